"""What else could a tale have said, all its other choices being as they are?

Each choice of a tale is taken by itself: a member of the cast, or a wording. Its alternatives are what it could have
been while every other choice stays, with their chances given all that stays, and with the words that would then stand
in the text. Nothing is approximated: a tale with one choice made anew by these chances is a tale drawn like the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from armdlab.grammar.readings import Shown, Telling, Worded
from armdlab.grammar.values import Draw


class Span(NamedTuple):
    """Words of a tale that hang on a choice."""

    start: int  # first character
    end: int  # one past the last
    forms: tuple[str, ...]  # what can be written there: one for each row of a list, or option of a fork
    rows: tuple[int, ...]  # which of them each alternative writes
    is_own: bool  # whether they show the choice itself, and not a sum that other choices enter too


@dataclass(frozen=True)
class Alternatives:
    """One choice of a tale, and what it could have been."""

    name: str  # of the variable, or of the fork
    chances: tuple[float, ...]  # of each alternative, given all other choices; they sum to 1
    chosen: int  # the alternative that the tale has
    spans: tuple[Span, ...]  # in the order of the text


def alternatives(telling: Telling) -> list[Alternatives]:
    """The choices of a tale that could have been others, each with what else it could have been.

    Left out are the plot and the story, on which all else hangs, and wordings of which one is more than plain words,
    for it may hold choices of its own.

    Args:
        telling: of a tale, as its `Reading` has it.
    """
    drawn = [_of_draw(draw, telling) for draw in telling.story.draws]
    worded = [_of_wording(wording) for wording in telling.worded if wording.fork.words]
    return [found for found in (*drawn, *worded) if len(found.chances) > 1]


def _of_draw(draw: Draw, telling: Telling) -> Alternatives:
    story, values = telling.story, telling.values
    heirs = [heir for heir in story.draws if draw.name in heir.parents]
    written = {draw.name: []}  # variable that hangs on this draw -> its row, for each alternative
    totals = []
    for total in story.sums:
        if any(name in written for _, name in total.terms):
            totals.append(total)
            written[total.name] = []
    weights = []
    for row in draw.support(values):
        world = {**values, draw.name: row}
        weight = 1.0
        for heir in heirs:  # what was drawn after it must have been there to draw
            support = heir.support(world)
            weight *= (values[heir.name] in support) / max(1, len(support))
        if weight:
            weights.append(weight)
            for total in totals:
                world[total.name] = total.row(world)
            for name, rows in written.items():
                rows.append(world[name])
    total_weight = sum(weights)
    chances = tuple(weight / total_weight for weight in weights)
    spans = [_span(mention, written, draw.name) for mention in telling.shown if mention.slot.variable in written]
    return Alternatives(draw.name, chances, written[draw.name].index(values[draw.name]), tuple(spans))


def _span(mention: Shown, written: dict[str, list[int]], name: str) -> Span:
    slot = mention.slot
    return Span(mention.start, mention.end, slot.forms, tuple(written[slot.variable]), slot.variable == name)


def _of_wording(wording: Worded) -> Alternatives:
    fork = wording.fork
    span = Span(wording.start, wording.end, fork.words, tuple(range(len(fork.words))), True)
    return Alternatives(fork.name, fork.probabilities, wording.index, (span,))
