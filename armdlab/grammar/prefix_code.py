"""Can every text be read in one way only?

By construction: the options of every choice are *prefix-free*, that is, no wording of one option begins a
wording of another. Sequences of prefix-free codes are prefix-free, and so are choices between them, hence
the whole grammar is one prefix code, and a reader who goes from left to right never has to go back. The
check ignores agreements (a slot may show any form of its column), so even a text that contradicts itself
has one reading at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from armdlab.grammar.values import Fact, Fork, Item, Slot, Where

TOKEN = re.compile(r"\w+|\W")  # words, and every other character by itself: joined again, they are the text


class Cell:
    """A reader's position: what comes next, and the position after it."""

    __slots__ = ("_moves", "head", "rest")

    def __init__(self, head: str | Slot | Fork, rest: Cell | None) -> None:
        self.head, self.rest = head, rest
        self._moves: list[tuple[str, Cell]] | None = None

    def moves(self) -> list[tuple[str, Cell]]:
        """Every token that can come next, with the position after it."""
        if self._moves is None:
            if self.rest is None:
                self._moves = []
            elif isinstance(self.head, str):
                self._moves = [(self.head, self.rest)]
            elif isinstance(self.head, Slot):
                forms = dict.fromkeys(self.head.forms)
                self._moves = [move for form in forms for move in chain([form], self.rest).moves()]
            else:
                self._moves = [move for option in self.head.options for move in chain(option, self.rest).moves()]
        return self._moves


END = Cell("", None)


def chain(items: Iterable[Item], rest: Cell) -> Cell:
    """The position before the items, when `rest` is the one after them."""
    for item in reversed(list(items)):
        if isinstance(item, str):
            for token in reversed(TOKEN.findall(item)):
                rest = Cell(token, rest)
        elif not isinstance(item, Fact):
            rest = Cell(item, rest)
    return rest


def clash(starts: Sequence[Cell]) -> tuple[int, int, str] | None:
    """Two options of which one can be read as the beginning of the other, and the words they share."""
    pending = [(list(enumerate(starts)), "")]
    seen: set[frozenset[tuple[int, Cell]]] = set()
    while pending:
        positions, said = pending.pop()
        by_token: dict[str, dict[tuple[int, Cell], None]] = {}
        for option, cell in positions:
            for token, after in cell.moves():
                by_token.setdefault(token, {})[option, after] = None
        for token, reached in by_token.items():
            if len({option for option, _ in reached}) == 1 or frozenset(reached) in seen:
                continue
            ended = next((option for option, cell in reached if cell is END), None)
            if ended is not None:
                return ended, next(option for option, _ in reached if option != ended), said + token
            seen.add(frozenset(reached))
            pending.append((list(reached), said + token))
    return None


def refuse_clash(chains: Sequence[Cell], lines: Sequence[Where], names: Sequence[str]) -> None:
    """Refuse options that are not prefix-free.

    Args:
        chains: the position before each option.
        lines: where each option is written.
        names: what to call each option.

    Raises:
        GrammarError: if the words of one option begin those of another, or are the same.
    """
    found = clash(chains)
    if found is None:
        return
    one, other, words = found
    shown = words if len(words) <= 60 else f"{words[:20]} ... {words[-35:]}"
    where = "" if lines[one] == lines[other] else f" ({lines[one].file}, line {lines[one].line})"
    lines[other].refuse(
        f"two derivations may give one text: {shown!r} is all that {names[one]}{where} says,"
        f" and {names[other]} can begin with it; change a word"
    )


def first(chains: Sequence[Cell]) -> dict[str, tuple[int, ...]]:
    """First token -> the options that can begin with it."""
    first: dict[str, tuple[int, ...]] = {}
    for i, chain in enumerate(chains):
        for token in dict.fromkeys(token for token, _ in chain.moves()):
            first[token] = (*first.get(token, ()), i)
    return first
