"""Is what you wrote right, and if not, which mistake is it? (the exercises' judges)

A judge calls the learner's function on inputs on which typical mistakes cannot pass, goes from shape to single cells,
and names the first mistake that it finds. It never raises: an error in the learner's code becomes a sentence, too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """What a judge found.

    Args:
        passed: whether every law held.
        sentence: what was checked, or which mistake was found and how to see it.
    """

    passed: bool
    sentence: str

    def __repr__(self) -> str:
        return f"{'passed' if self.passed else 'not yet'}: {self.sentence}"

    def _repr_html_(self) -> str:
        """For a notebook, which breaks plain text in the middle of words."""
        return f"<p>{escape(repr(self))}</p>"


def call(function: Callable, *arguments: object) -> tuple[Any, Verdict | None]:
    """Run the learner's function; an error or an unfilled stub becomes a verdict."""
    try:
        result = function(*arguments)
    except Exception as error:  # a learner's code may raise anything
        given = ", ".join(map(_said, arguments))
        reason = f"{type(error).__name__}: {error}"
        return None, Verdict(False, f"your function stopped with {reason}; it was called with {given}")
    if result is None or result is ...:
        return None, Verdict(False, "nothing is returned: fill in the stub above, run it, then run this cell again")
    return result, None


def in_words(found: object) -> str:
    """The kind of thing that a learner returned, where another was wanted."""
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__


def as_number(found: object) -> float | None:
    """What a learner returned as one number; None where it is anything else."""
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several
        return None


def as_steps(steps: object) -> list[list[int]] | None:
    """Steps of whole numbers, sorted inside each step; None where it is anything else."""
    if not isinstance(steps, list | tuple):
        return None
    try:
        return [sorted(operator.index(position) for position in step) for step in steps]
    except Exception:  # what a learner returns may hold anything
        return None


def _said(argument: object) -> str:
    """An argument in a few words: a large tensor's type and shape, a long list's length, a model's name."""
    if isinstance(argument, Tensor) and argument.numel() > 12:
        return f"a tensor of {argument.dtype} and shape {tuple(argument.shape)}"
    if isinstance(argument, list) and len(argument) > 12:
        return f"a list of {len(argument)}"
    return type(argument).__name__ if isinstance(argument, torch.nn.Module) else repr(argument)
