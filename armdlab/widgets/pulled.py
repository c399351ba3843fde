"""How does a view watch a run that takes long? By pulling (pull.js asks; here it is answered)

The view asks for the next steps, the kernel works for a moment and answers, and the answer makes the view ask again.
Nothing runs between two questions: no thread, cells still run, Colab shows what JupyterLab shows, and Stop is simply
not to ask any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from armdlab.widgets.view import View

RECORDED = Path(__file__).resolve().parents[2] / "data" / "traces"  # what views show before anything is computed

LATE = 0.1  # share of its time that the kernel may stand still
MOST_STRETCH = 4  # half a second at most, so that cells and Stop need not wait long


class PulledView(View):
    """A view of a run: a subclass says how to `begin` one, `advance` it for a while, and `halt` it."""

    def __init__(self, **traits: Any) -> None:  # noqa: ANN401
        self._run_id: object = None
        self._goes_on = False
        self._answered: float | None = None  # when the last question of this run was, by the clock
        self._stretch = 1
        super().__init__(**traits)

    def begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run; returns what the view needs before its first step."""
        raise NotImplementedError("a PulledView has no run to begin: use one of its subclasses")

    def advance(self, seconds: float) -> tuple[dict[str, Any], bool]:
        """Go on for about that long, at least one step; returns what is new, and whether there is more to come."""
        raise NotImplementedError("a PulledView has no run to advance: use one of its subclasses")

    def halt(self, shown: int | None) -> None:
        """End the run where the view saw it end: after `shown` steps, or after all that were made if None."""
        raise NotImplementedError("a PulledView has no run to halt: use one of its subclasses")

    def look_up(self) -> dict[str, Any]:
        """What is worth knowing once a run has ended, and would have delayed it."""
        return {}

    @contextmanager
    def _by_a_cell(self) -> Iterator[None]:
        """A cell takes over: meanwhile no question is answered, and what a view watched is an older run."""
        with self._one_at_a_time:
            self._run_id = None
            yield

    def _to_the_end(self, asked: Mapping[str, Any]) -> None:
        """Begin and advance in the calling cell, until there is no more to come."""
        with self._by_a_cell():
            self.begin(asked)
            while self.advance(1.0)[1]:
                pass

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Start, go on, stop, or look up: `want` is "run", "steps", "stop" or "others".

        The answer to "run" holds the first steps, too: a short run needs no other question. What belongs to an older
        run is answered by status "old". A run that fails is over.
        """
        want, run = content.get("want"), content.get("run")
        if want != "run" and run != self._run_id:
            return {"status": "old"}
        try:
            if want == "run":
                self._run_id = self._answered = None
                begun = self.begin(content.get("asked", {}))
                self._run_id = run
                return begun | self._more(content)
            if want == "stop":
                self._goes_on = False
                self.halt(content.get("shown"))
                return {"status": "stopped"}
            if want == "others":
                return self.look_up() | {"status": "done"}
            return self._more(content) if self._goes_on else {"status": "old"}
        except BaseException:
            self._run_id = None
            raise

    def _more(self, content: dict[str, Any]) -> dict[str, Any]:
        """Go on for as long as the view asks, or longer where its questions come late: then the kernel stood still."""
        seconds = float(content.get("budget_ms", 40)) / 1000
        if self._answered is not None and time.perf_counter() - self._answered > LATE * seconds:
            self._stretch = min(2 * self._stretch, MOST_STRETCH)
        new, self._goes_on = self.advance(self._stretch * seconds)
        self._answered = time.perf_counter() if self._goes_on else None
        return new | {"status": "running" if self._goes_on else "finished"}
