"""What is a grammar, how many texts has it, and how many nats is one of them worth?

The values that the files in `data/tales` become: lists of words, draws from them, slots that show what was
drawn, forks between wordings, stories, plots. All are frozen. They know nothing of heroes and kites.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from itertools import chain as joined
from typing import NoReturn


class GrammarError(ValueError):
    """A grammar file is refused; the message names file, line and what is wrong."""

    def __init__(self, at: Where, reason: str) -> None:
        super().__init__(f"{at.file}, line {at.line}: {reason}")
        self.file, self.line = at.file, at.line


@dataclass(frozen=True)
class Where:
    """A line of a grammar file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def refuse(self, reason: str) -> NoReturn:
        """Raise the GrammarError of this line."""
        raise GrammarError(self, reason)


@dataclass(frozen=True, eq=False)
class WordList:
    """A table of entries; an entry is known by its row number, a group is a tuple of row numbers."""

    name: str
    kinds: Mapping[str, str]  # column that can be written -> kind of agreement
    cells: Mapping[str, tuple[str, ...]]  # column -> one cell a row
    lines: tuple[Where, ...]
    values: tuple[int, ...] = ()  # of a list of numbers

    @property
    def key(self) -> str:
        """The first column, which tells the entries apart."""
        return next(iter(self.kinds))


@dataclass(frozen=True, eq=False)
class Draw:
    """`name from base, not ...`: one entry of a list, all equally likely among those that may stand."""

    name: str
    at: Where
    words: WordList
    base: tuple[int, ...]  # the rows to draw from, or () when they hang on `parent`
    parent: str | None  # "toy" in `colour from toy.colours`
    link: tuple[tuple[int, ...], ...]  # row of the parent -> rows to draw from
    excluded: tuple[tuple[str, tuple[str, ...] | None], ...]  # (variable, None or the column that must differ)
    known: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Row -> the word that tells the entry apart."""
        return self.words.cells[self.words.key]

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """The variables on which the support depends."""
        return ((self.parent,) if self.parent else ()) + tuple(name for name, _ in self.excluded)

    def support(self, values: Mapping[str, int]) -> tuple[int, ...]:
        """The rows that may be drawn, given the rows drawn before."""
        key = tuple([values[name] for name in self.parents])
        if key not in self.known:
            rows = self.base if self.parent is None else self.link[values[self.parent]]
            for name, column in self.excluded:
                other = values[name]
                rows = tuple(r for r in rows if (r != other if column is None else column[r] != column[other]))
            self.known[key] = rows
        return self.known[key]


@dataclass(frozen=True, eq=False)
class Sum:
    """`name is a - b + c`: a number that follows from others, so no choice."""

    name: str
    at: Where
    words: WordList
    terms: tuple[tuple[int, str], ...]  # (+1 or -1, variable)

    def row(self, values: Mapping[str, int]) -> int | None:
        """The row of the result, or None where the list has no such number."""
        total = sum(sign * self.words.values[values[name]] for sign, name in self.terms)
        return self.words.values.index(total) if total in self.words.values else None


@dataclass(frozen=True, eq=False)
class Slot:
    """A place in the text where a variable shows itself in one of its forms."""

    variable: str
    kind: str  # of the agreement that a wrong form breaks
    fact: str | None  # "toy.owner" where the variable stands there for a fact
    forms: tuple[str, ...]  # row -> what is written
    options: tuple[str, ...]  # the distinct forms
    rows: Mapping[str, int] | None  # what is written -> row, where every row has its own form
    match: Callable[[str, int], re.Match[str] | None]


@dataclass(frozen=True, eq=False)
class Fact:
    """`{toy.owner = friend}`: writes nothing, changes the world."""

    name: str
    variable: str


class Weighted:
    """Something that chooses among options by integer shares."""

    shares: tuple[int, ...]

    @cached_property
    def cumulative(self) -> tuple[int, ...] | None:
        """Running sums of the shares, or None where all are equal, which is usual and faster to draw from."""
        return None if len(set(self.shares)) == 1 else tuple(accumulate(self.shares))

    @cached_property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each option."""
        total = sum(self.shares)
        return tuple(share / total for share in self.shares)


@dataclass(frozen=True, eq=False)
class Fork(Weighted):
    """A choice between options, each a sequence of items, with integer shares."""

    name: str
    options: tuple[tuple[Item, ...], ...]
    shares: tuple[int, ...]
    first: Mapping[str, tuple[int, ...]]  # first token -> options to try

    @cached_property
    def words(self) -> tuple[str, ...] | None:
        """The options, where each of them is plain words."""
        if all(len(option) == 1 and isinstance(option[0], str) for option in self.options):
            return tuple(option[0] for option in self.options)
        return None


Item = str | Slot | Fact | Fork


@dataclass(frozen=True, eq=False)
class Story:
    """One variant of a plot: a cast of variables, and a text that shows them."""

    name: str
    at: Where
    draws: tuple[Draw, ...]
    sums: tuple[Sum, ...]
    items: tuple[Item, ...]
    count: int  # distinct tales
    entropy: float  # nats, given the story


@dataclass(frozen=True, eq=False)
class Plot(Weighted):
    """A choice between stories."""

    name: str
    stories: tuple[Story, ...]
    shares: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Grammar(Weighted):
    """A grammar that was read, and found to be a prefix code."""

    lists: Mapping[str, WordList]
    groups: Mapping[str, tuple[WordList, tuple[int, ...]]]
    plots: tuple[Plot, ...]
    shares: tuple[int, ...]
    first: Mapping[str, tuple[tuple[int, int], ...]]  # first token -> (plot, story) to try

    @cached_property
    def weighted_stories(self) -> tuple[tuple[Fraction, Story], ...]:
        """Every story with its probability."""
        return tuple(
            (Fraction(share, sum(self.shares)) * Fraction(part, sum(plot.shares)), story)
            for share, plot in zip(self.shares, self.plots, strict=True)
            for part, story in zip(plot.shares, plot.stories, strict=True)
        )

    def count(self) -> int:
        """Number of derivations, hence of distinct texts."""
        return sum(story.count for _, story in self.weighted_stories)

    def entropy(self) -> float:
        """Entropy in nats: H(story) + sum over stories of p(story) H(tale | story)."""
        return math.fsum(float(p) * (story.entropy - math.log(p)) for p, story in self.weighted_stories)


def measure_text(items: Iterable[Item]) -> tuple[int, float]:
    """Number of wordings and entropy in nats: H = sum over forks of E[-log p]."""
    count, entropy = 1, 0.0
    for item in items:
        if isinstance(item, Fork):
            inner = [measure_text(option) for option in item.options]
            count *= sum(ways for ways, _ in inner)
            entropy += math.fsum(p * (h - math.log(p)) for p, (_, h) in zip(item.probabilities, inner, strict=True))
    return count, entropy


def measure_cast(draws: list[Draw], sums: list[Sum]) -> tuple[int, float]:
    """Number of casts and entropy in nats, exactly, although a draw may hang on earlier ones.

    H = sum over draws of E[log |support|]. The expectation runs forward over the rows of those variables
    that a later draw looks at, and over one connected group of draws at a time, so that it stays small.
    """
    count, entropy = 1, 0.0
    for group in _connected(draws, sums):
        last = {name: i for i, node in enumerate(group) for name in _parents(node)}
        live: list[str] = []
        states: dict[tuple[int, ...], tuple[int, float]] = {(): (1, 1.0)}
        for i, node in enumerate(group):
            keep = [name for name in (*live, node.name) if last.get(name, -1) > i]
            after: dict[tuple[int, ...], tuple[int, float]] = {}
            for state, (ways, p) in states.items():
                values = dict(zip(live, state, strict=True))
                rows = _rows(node, values)
                if isinstance(node, Draw):
                    entropy += p * math.log(len(rows))
                branches = [(row, 1) for row in rows] if node.name in keep else [(-1, len(rows))]
                for row, copies in branches:
                    values[node.name] = row
                    key = tuple([values[name] for name in keep])
                    old = after.get(key, (0, 0.0))
                    after[key] = (old[0] + ways * copies, old[1] + p * copies / len(rows))
            live, states = keep, after
        count *= sum(ways for ways, _ in states.values())
    return count, entropy


def _rows(node: Draw | Sum, values: Mapping[str, int]) -> tuple[int, ...]:
    if isinstance(node, Draw):
        rows = node.support(values)
        if not rows:
            node.at.refuse(f"nothing is left to draw for {node.name}; widen the list, or exclude less")
        return rows
    row = node.row(values)
    if row is None:
        numbers = " ".join(f"{'+' if s > 0 else '-'} {node.words.values[values[n]]}" for s, n in node.terms)
        node.at.refuse(f"{node.name} can be {numbers.removeprefix('+ ')}, which list {node.words.name} does not have")
    return (row,)


def _parents(node: Draw | Sum) -> tuple[str, ...]:
    return node.parents if isinstance(node, Draw) else tuple(name for _, name in node.terms)


def _connected(draws: list[Draw], sums: list[Sum]) -> list[list[Draw | Sum]]:
    """Draws and sums that hang together, each group in the order of the cast."""
    groups: list[list[Draw | Sum]] = []
    for node in sorted([*draws, *sums], key=lambda node: node.at.line):
        touched = [group for group in groups if any(other.name in _parents(node) for other in group)]
        groups = [group for group in groups if group not in touched]
        groups.append(sorted([*joined(*touched), node], key=lambda node: node.at.line))
    return groups
