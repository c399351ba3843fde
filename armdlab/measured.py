"""Was this measured before, on the same weights and in the same way? (so that measuring goes on where it stopped)"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_type_hints

import torch

import armdlab
from armdlab.checkpoints import read_json, to_json, write_json

Figure = TypeVar("Figure")  # Likelihood, Bound, AnyOrder, Generated


class Measured:
    """The figures of a folder, each kept in a file of its own as soon as it is known.

    The file is named after all that decides the figure: what measures, each of its arguments (models, labs and texts by
    their fingerprints), device and versions. If one of them changes, so does the name, and nothing stale is read. What
    a torn file held is measured anew. Code is known by its version alone: who changes it deletes the folder.

    Args:
        folder: made when the first figure is known.
        device: where models are measured; None for the CPU.
        say: takes a sentence about a figure that is kept, or torn.
    """

    def __init__(
        self, folder: Path, *, device: torch.device | None = None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder, self.device, self.say = folder, device, say

    def __call__(
        self,
        run: str,
        measure: Callable[..., Figure],
        /,
        *args: Any,  # noqa: ANN401
        **how: Any,  # noqa: ANN401
    ) -> Figure:
        """What `measure(*args, **how)` returns, measured now if it was not before.

        Args:
            run: whose figure it is, for `say`.
            measure: `likelihood`, `bound`, `any_order`, `generated`, or another that returns plain values.
            args: what has a `fingerprint` (a model, a lab, a text), or goes into JSON.
            how: as `args`, or plain dataclasses.

        Raises:
            OSError: if the figure could not be written.
        """
        decided_by = self._decided_by(measure, inspect.signature(measure).bind(*args, **how))
        digest = hashlib.sha256(to_json(decided_by).encode()).hexdigest()
        path = self.folder / f"{measure.__name__}_{digest[:16]}.json"
        if path.is_file():
            try:
                found = _read(get_type_hints(measure)["return"], read_json(path)["figure"])
            except (ValueError, TypeError, KeyError, AttributeError):
                self.say(f"{path} is torn; measuring {run} anew")
            else:
                self.say(f"kept from before: {run}, {found.order}, perplexity {found.perplexity:.2f}")
                return found
        found = measure(*args, **how)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"run": run, "decided_by": decided_by, "figure": asdict(found)})
        return found

    def _decided_by(self, measure: Callable[..., Any], call: inspect.BoundArguments) -> dict[str, Any]:
        call.apply_defaults()  # they decide, too, and another version may have others
        return {
            "measure": measure.__name__,
            **{name: _said(value) for name, value in call.arguments.items()},
            "device": str(self.device or "cpu"),
            "versions": {"armdlab": armdlab.__version__, "torch": torch.__version__},
        }


def _said(value: Any) -> Any:  # noqa: ANN401
    """A value as JSON can hold it: its fingerprint, or what it is made of."""
    if (fingerprint := getattr(value, "fingerprint", None)) is not None:
        return fingerprint
    return asdict(value) if is_dataclass(value) else value


def _read(kind: Any, found: Any) -> Any:  # noqa: ANN401
    """A value of some type from what JSON made of it: objects are dataclasses, lists were tuples, null nan or none."""
    if isinstance(kind, UnionType):  # X | None
        return None if found is None else _read(kind.__args__[0], found)
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: _read(types[name], value) for name, value in found.items()})
    if isinstance(found, dict):
        return {name: _read(None, value) for name, value in found.items()}
    if isinstance(found, list):
        return tuple(_read(None, value) for value in found)
    return math.nan if found is None else found
