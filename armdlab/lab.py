"""What does a lesson ask for besides the package itself? (the notebooks' front door)"""

from __future__ import annotations

import inspect
import platform
from dataclasses import dataclass
from importlib.metadata import version
from textwrap import dedent
from types import FunctionType, ModuleType

import torch

from armdlab.checks import Verdict
from armdlab.counts import seed_for_torch
from armdlab.questions import QUESTIONS
from armdlab.trained import Lab, load

__all__ = ["Lab", "Shown", "finish", "load", "predict", "report", "show_source", "start"]

LESSONS = {
    "00": "Start here",
    "01": "Masking is an order",
    "02": "Strictly causal",
    "03": "One-pass likelihood",
    "04": "Permutation training",
    "05": "Parallel streams",
    "06": "Exact and parallel",
    "07": "Infill and edit",
    "08": "The tables",
    "x1": "Tales whose truth is known",  # an extra: it needs none of the others
}


@dataclass(frozen=True)
class Shown:
    """Text that a notebook shows as Markdown, and a terminal as it is."""

    markdown: str

    def __repr__(self) -> str:
        return self.markdown

    def _repr_markdown_(self) -> str:
        return self.markdown


def start(lesson: str, *, seed: int = 0) -> None:
    """Open a lesson: fix chance, and say what it runs on.

    Args:
        lesson: its number, such as "01".
        seed: of torch's global stream of chance.

    Raises:
        ValueError: if there is no such lesson, or the seed is none that torch takes.
    """
    if lesson not in LESSONS:
        raise ValueError(f"lesson={lesson!r} does not exist; choose one of {', '.join(LESSONS)}")
    torch.manual_seed(seed_for_torch(seed))
    _show_views_in_colab()
    device = inspect.signature(load).parameters["device"].default  # where lessons put their models
    versions = f"armdlab {version('armdlab')}, torch {torch.__version__}, Python {platform.python_version()}"
    print(f"Lesson {lesson}, {LESSONS[lesson]}\n{versions}, device {device}, seed {seed}")


def _show_views_in_colab() -> None:
    """Colab shows views that are not its own only after it was asked to; elsewhere there is nothing to ask."""
    try:
        from google.colab import output
    except ImportError:
        return
    output.enable_custom_widget_manager()


def predict(question: str, *, guess: str) -> Shown:
    """Commit to a guess, then see the answer and why.

    Args:
        question: its name in `armdlab.questions`; what is asked stands above the cell.
        guess: the learner's letter; change it in the cell, then run the cell.

    Raises:
        ValueError: if there is no such question, or `guess` is none of its letters.
    """
    if question not in QUESTIONS:
        raise ValueError(f"question={question!r} does not exist; choose one of {', '.join(QUESTIONS)}")
    asked = QUESTIONS[question]
    if guess not in tuple(asked.letters):
        raise ValueError(f"guess={guess!r} is none of {', '.join(asked.letters)}; put your letter there, run it again")
    is_right = guess == asked.answer
    verdict = f"You said **{guess}**, and so it is" if is_right else f"You said **{guess}**; it is **{asked.answer}**"
    return Shown(f"{verdict}: {asked.because}")


def report(**numbers: object) -> None:
    """Print named results, one a line; floats to four decimals, so that a lesson reads the same on every machine.

    >>> report(cells=12, share=1 / 3)
    cells: 12
    share: 0.3333
    """
    for name, value in numbers.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"{name.replace('_', ' ')}: {shown}")


def show_source(thing: FunctionType | type | ModuleType) -> Shown:
    """Show the package's own code, as it is at this moment."""
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    where = f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else thing.__name__
    return Shown(f"`{where}`\n\n```python\n{dedent(inspect.getsource(thing)).rstrip()}\n```")


def finish(lesson: str, **verdicts: Verdict) -> Shown:
    """Close a lesson: which exercises passed in this session, and what comes next.

    Args:
        lesson: its number.
        verdicts: name of an exercise -> what its judge said.

    Raises:
        ValueError: if there is no such lesson.
    """
    lines = [f"- {'passed' if v.passed else 'still open'}: {name.replace('_', ' ')}" for name, v in verdicts.items()]
    passed = sum(verdict.passed for verdict in verdicts.values())
    numbers = list(LESSONS)
    if lesson not in numbers:
        raise ValueError(f"lesson={lesson!r} must be one of {', '.join(numbers)}")
    following = numbers[numbers.index(lesson) + 1 :]
    ending = "This is the last lesson."
    if following:
        kind = "an extra, lesson" if following[0].startswith("x") else "lesson"
        ending = f"Next: {kind} {following[0]}, {LESSONS[following[0]]}."
    listed = "\n".join(lines)
    return Shown(f"**{passed} of {len(verdicts)} exercises passed in this session**\n\n{listed}\n\n{ending}")
