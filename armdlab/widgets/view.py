"""What must every view have, whatever it shows? (base of the views; joined to shared.js)"""

from __future__ import annotations

import threading
import traceback
import warnings
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from armdlab.figures import Picture

HERE = Path(__file__).parent


class View(anywidget.AnyWidget):
    """A drawn view that asks its kernel by messages, and is told a mistake as a sentence.

    A subclass names its `files`, and gives an `answer` to a message and a `picture` for where no view can be.
    """

    files: ClassVar[tuple[str, ...]] = ()

    message = traitlets.Unicode("").tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401
        if "files" in cls.__dict__:  # adding a trait makes a subclass, too
            cls._esm = "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in ("shared", *cls.files))
            styles = [path for name in cls.files if (path := HERE / f"{name}.css").is_file()]
            cls._css = "\n".join(path.read_text(encoding="utf-8") for path in styles)
        super().__init_subclass__(**kwargs)

    def __init__(self, **traits: Any) -> None:  # noqa: ANN401
        self.last_error = ""
        self._one_at_a_time = threading.Lock()  # ipykernel 7 answers two messages on two threads
        super().__init__(**traits)
        self.on_msg(self._asked)

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """What to send back for a message of the view; traits may change meanwhile."""
        raise NotImplementedError("a View does not know what its page may ask: use one of its subclasses")

    def picture(self) -> Picture:
        """A drawing of what there is to see."""
        raise NotImplementedError("a View has nothing to draw: use one of its subclasses")

    def _asked(self, _: object, content: dict[str, Any], buffers: object) -> None:
        with self._one_at_a_time:
            try:
                said = {"status": "done"} | self.answer(content)
                if said["status"] != "old":  # asked in the same breath as what failed: the sentence stays
                    self.message = ""
            except (Exception, KeyboardInterrupt) as error:
                self.last_error, self.message = traceback.format_exc(), str(error) or type(error).__name__
                said = {"status": "failed"}
            asked = {name: content.get(name) for name in ("ask", "run") if name == "ask" or name in content}
            self.send(said | asked)  # before another thread works on the next: answers keep their order

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401
        data, metadata = super()._repr_mimebundle_(**kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # the picture's font lacks a letter; the view's does not
            picture = self.picture()
        return picture._repr_mimebundle_() | data, metadata
