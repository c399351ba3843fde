"""Can a run be written into a folder, what of it is kept there when it fails, and is what lies there one run?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from armdlab.checkpoints import PLAN, differences, read_json
from armdlab.trained import CARD

T = TypeVar("T")


def refuse_taken(out: Path) -> None:
    """Say so if a new run cannot be written into a folder.

    Raises:
        ValueError: if `out` holds a model already, or cannot be made.
    """
    if (out / CARD).exists():
        raise ValueError(f"{out} holds a model already; go on with --resume, or choose another --out")
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"{out} cannot be made, for {there} is no folder that takes files; choose another --out")


def recipe_in(out: Path, card: Mapping[str, Any], kind: type[T]) -> T:
    """The recipe that a card tells of.

    Args:
        out: the folder of the card.
        card: what it holds.
        kind: the class of recipes; what this version of it does not know is left out.

    Raises:
        ValueError: if the card tells of none.
    """
    if "recipe" not in card:
        raise ValueError(f"{out} holds a model without the recipe of its training; train anew into another folder")
    known = {item.name for item in fields(kind)}
    return kind(**{name: value for name, value in card["recipe"].items() if name in known})


def refuse_another(out: Path, name: str, told: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Say so if the recipe in the card of a run and another file of its folder are of different runs.

    Args:
        out: the folder.
        name: of the other file.
        told: settings by the recipe.
        found: settings by the other file.

    Raises:
        ValueError: if they differ.
    """
    if changed := differences(told, found, f"is {{}} in {CARD} and {{}} in {name}"):
        raise ValueError(f"{out} holds files of different runs ({changed}); restore those that were saved together")


@contextmanager
def saying_what_is_kept(out: Path) -> Iterator[None]:
    """Let the sentence of a loss that is no number, or of a file that cannot be written, end in what `out` holds."""
    try:
        yield
    except (FloatingPointError, OSError) as error:
        kept = f"Nothing was saved in {out} before"
        if (out / CARD).is_file():
            kept = f"What was saved in {out} at step {read_json(out / PLAN)['step']} is whole"
            kept += f"; `armdlab train --out {out} --resume` goes on from it" * isinstance(error, OSError)
        raise type(error)(f"{error}. {kept}") from None
