"""What does a line of a story say? `{slots}`, `[one|other]`, `<rules>`, and facts that change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from armdlab.grammar.lexicon import Lexicon, Section
from armdlab.grammar.prefix_code import END, chain, first, refuse_clash
from armdlab.grammar.values import (
    Draw,
    Fact,
    Fork,
    Item,
    Slot,
    Story,
    Sum,
    Where,
    WordList,
    measure_cast,
    measure_text,
)

_PIECE = re.compile(r"[^\[\]{}<>|]+|\{[^{}]*\}|<[^<>]*>|.")  # "{slot}", "<rule>", "[", "|", "]", plain text
_DRAW = re.compile(r"([a-z]\w*) +from +([\w-]+)(?:\.(\w+))?((?: *, *not +[a-z]\w*(?:\.\w+)?)*)$")
_SUM = re.compile(r"([a-z]\w*) +is +([a-z]\w*)((?: *[+-] *[a-z]\w*)+)$")
_FACT = re.compile(r"([a-z]\w*)\.([a-z]\w*) *= *([a-z]\w*)$")
_SLOT = re.compile(r"(?:([Aa])n? +)?([A-Za-z]\w*)(?:\.([A-Za-z]\w*))?(?:\.([A-Za-z]\w*))?$")


@dataclass
class Parts:
    """Marked-up text, cut into pieces: plain text, ("{", slot), ("<", rule), or ("[", options)."""

    pieces: list[str | tuple[str, str] | tuple[str, list[Parts]]]
    at: Where


@dataclass
class Rule:
    """A named choice between wordings."""

    at: Where
    options: list[Parts]
    shares: tuple[int, ...]
    lines: tuple[Where, ...]
    used: bool = False


def cut(source: str, at: Where) -> Parts:
    """Cut marked-up text into pieces."""
    levels: list[list[Parts]] = [[Parts([], at)]]
    for piece in _PIECE.findall(source):
        inner = levels[-1][-1].pieces
        if len(piece) > 1 and piece[0] in "{<":
            inner.append((piece[0], piece[1:-1].strip()))
        elif piece == "[":
            levels.append([Parts([], at)])
        elif piece in "|]" and len(levels) == 1:
            at.refuse(f"a {piece} stands outside [ ]; a choice is written [one|other]")
        elif piece == "|":
            levels[-1].append(Parts([], at))
        elif piece == "]":
            options = levels.pop()
            if len(options) < 2 or not all(option.pieces for option in options):
                at.refuse("a choice needs two options or more, and none may be empty: [one|other]")
            levels[-1][-1].pieces.append(("[", options))
        elif piece in "{}<>":
            at.refuse(f"a {piece} has no partner on this line")
        else:
            inner.append(piece)
    if len(levels) > 1:
        at.refuse("a [ has no ] on this line")
    if not levels[0][0].pieces:
        at.refuse("an option is empty; a choice that may say nothing cannot be read back")
    return levels[0][0]


def rules_named(options: Iterable[Parts]) -> Iterator[tuple[Where, str]]:
    """Every rule that the options name, with its line."""
    for option in options:
        for piece in option.pieces:
            if piece[0] == "<":
                yield option.at, piece[1]
            elif piece[0] == "[":
                yield from rules_named(piece[1])


class StoryTeller:
    """Compiles a story: casts its variables, follows the facts, and expands its rules where they stand."""

    def __init__(self, lexicon: Lexicon, rules: Mapping[str, Rule], story: tuple[Section, Section, Section]) -> None:
        self.lexicon, self.rules = lexicon, rules
        self.head, self.cast, self.text = story
        self.variables: dict[str, WordList] = {}
        self.draws: dict[str, Draw] = {}
        self.sums: dict[str, Sum] = {}
        self.facts: dict[str, str] = {}

    def story(self) -> Story:
        """The story."""
        for at, line in self.cast.lines:
            self._add_to_cast(at, line)
        items: list[Item] = []
        for at, line in self.text.lines:
            compiled = _joined(self._items(cut(line, at), inside=False), at)
            spaced = items and not all(isinstance(item, Fact) for item in compiled)
            items += [" ", *compiled] if spaced else compiled
        if not items:
            self.text.at.refuse(f"story {self.head.name} has no text")
        items = _joined(items, self.text.at)
        named = _named(items)
        for name, draw in self.draws.items():
            if name not in named:
                draw.at.refuse(
                    f"{name} is drawn, but not every wording of the text names it, so it cannot be read back"
                )
        count, entropy = measure_cast(list(self.draws.values()), list(self.sums.values()))
        ways, nats = measure_text(items)
        return Story(
            self.head.name,
            self.head.at,
            tuple(self.draws.values()),
            tuple(self.sums.values()),
            tuple(items),
            count * ways,
            entropy + nats,
        )

    def _add_to_cast(self, at: Where, line: str) -> None:
        draw, total = _DRAW.match(line), _SUM.match(line)
        if not draw and not total:
            at.refuse(f"{line!r} is not a cast line; write `name from list`, `, not other`, or `name is a - b`")
        name = (draw or total).group(1)
        if name in self.variables or name == "a":
            at.refuse(f"the name {name} is taken; choose another one")
        if total:
            terms = [(1, total.group(2))]
            terms += [(1 if sign == "+" else -1, other) for sign, other in re.findall(r"([+-]) *(\w+)", total.group(3))]
            lists = {self._variable(other, at) for _, other in terms}
            if len(lists) > 1 or not next(iter(lists)).values:
                at.refuse(f"{line!r} needs numbers from one list that has a column value")
            self.variables[name] = next(iter(lists))
            self.sums[name] = Sum(name, at, self.variables[name], tuple(terms))
            return
        _, source, column, excluded = draw.groups()
        if column:
            parent = self._variable(source, at)
            if (parent.name, column) not in self.lexicon.links or source in self.sums:
                at.refuse(f"unknown symbol {source}.{column}: list {parent.name} has no such column of choices")
            words, link = self.lexicon.links[parent.name, column]
            base = ()
        else:
            if source not in self.lexicon.groups:
                at.refuse(f"unknown symbol {source!r}: no list and no tag has this name")
            (words, base), link = self.lexicon.groups[source], ()
        others = []
        for other, differing in re.findall(r"not +(\w+)(?:\.(\w+))?", excluded):
            if self._variable(other, at) is not words or other in self.sums:
                at.refuse(f"{other} is not drawn from list {words.name}, so `not {other}` says nothing")
            if differing and differing not in words.kinds:
                at.refuse(f"unknown symbol {other}.{differing}: list {words.name} has no such column")
            others.append((other, words.cells[differing] if differing else None))
        self.variables[name] = words
        self.draws[name] = Draw(name, at, words, base, source if column else None, link, tuple(others))

    def _variable(self, name: str, at: Where) -> WordList:
        if name not in self.variables:
            cast = ", ".join(self.variables) or "nobody yet"
            at.refuse(f"unknown symbol {name!r}: the cast of story {self.head.name} is {cast}")
        return self.variables[name]

    def _items(self, parts: Parts, inside: bool) -> list[Item]:
        items: list[Item] = []
        for piece in parts.pieces:
            if isinstance(piece, str):
                items.append(piece)
            elif piece[0] == "{":
                items.append(self._slot(piece[1], parts.at, inside))
            elif piece[0] == "[":
                options = [self._items(option, inside=True) for option in piece[1]]
                n = len(options)
                items.append(self._fork(str(parts.at), options, (1,) * n, (parts.at,) * n))
            else:
                items.append(self._rule(piece[1], parts.at))
        return items

    def _rule(self, name: str, at: Where) -> Item:
        if name not in self.rules:
            at.refuse(f"unknown symbol <{name}>: no rule has this name")
        rule = self.rules[name]
        rule.used = True
        options = [self._items(option, inside=True) for option in rule.options]
        return self._fork(name, options, rule.shares, rule.lines)

    def _fork(self, name: str, options: list[list[Item]], shares: tuple[int, ...], lines: tuple[Where, ...]) -> Fork:
        joined = [tuple(_joined(option, line)) for option, line in zip(options, lines, strict=True)]
        chains = [chain(option, END) for option in joined]
        refuse_clash(chains, lines, [f"option {i + 1}" for i in range(len(options))])
        return Fork(name, tuple(joined), shares, first(chains))

    def _slot(self, source: str, at: Where, inside: bool) -> Item:
        fact = _FACT.match(source)
        if fact:
            return self._fact(*fact.groups(), at=at, inside=inside)
        found = _SLOT.match(source)
        if not found:
            at.refuse(f"{{{source}}} is no slot; write {{hero}}, {{hero.he}}, {{a kite}} or {{kite.owner = hero}}")
        article, *parts = found.groups()
        names = [part for part in parts if part]
        capital = article == "A" or (not article and any(name[0].isupper() for name in names))
        names = [part[0].lower() + part[1:] for part in names]
        variable, label = names[0], None
        words = self._variable(variable, at)
        if ".".join(names[:2]) in self.facts:
            label = ".".join(names[:2])
            variable = self.facts[label]
            words = self.variables[variable]
            names = names[1:]
        column = names[1] if len(names) > 1 else words.key
        if column not in words.kinds or len(names) > 2:
            known = ", ".join([*words.kinds, *(f.split(".")[1] for f in self.facts if f.split(".")[0] == variable)])
            at.refuse(f"unknown symbol {{{source}}}: {variable} has {known}")
        kind = label.split(".")[1] if label else words.kinds[column]
        shown = self.lexicon.forms(words, column, bool(article), capital, at)
        rows = None if variable in self.sums else shown.rows
        return Slot(variable, kind, label, shown.forms, shown.options, rows, shown.match)

    def _fact(self, owner: str, name: str, value: str, at: Where, inside: bool) -> Fact:
        if inside:
            at.refuse("a fact changes inside a choice; put it on a line of its own in the text of the story")
        self._variable(value, at)
        if name in self._variable(owner, at).kinds:
            at.refuse(f"{owner}.{name} is a column of list {self.variables[owner].name}; name the fact otherwise")
        self.facts[f"{owner}.{name}"] = value
        return Fact(f"{owner}.{name}", value)


def _joined(items: Iterable[Item], at: Where) -> list[Item]:
    """Merge neighbouring plain texts; refuse two words with nothing between them."""
    merged: list[Item] = []
    for item in items:
        if isinstance(item, str) and merged and isinstance(merged[-1], str):
            merged[-1] += item
        else:
            merged.append(item)
    written = [item for item in merged if not isinstance(item, Fact)]
    for left, right in pairwise(written):
        if _touches(left, -1) and _touches(right, 0):
            name = getattr(left, "variable", None) or getattr(right, "variable", None) or "a choice"
            at.refuse(f"{name} is glued to a letter; put a space or a mark between them")
    return merged


def _touches(item: Item, end: int) -> bool:
    """Whether the item can begin (end 0) or end (-1) with a letter."""
    if isinstance(item, str):
        return item[end].isalnum() or item[end] == "_"
    if isinstance(item, Fork):
        return any(_touches(option[end], end) for option in item.options)
    return isinstance(item, Slot)


def _named(items: Iterable[Item]) -> set[str]:
    """The variables that every path through the items names in a form of their own."""
    names: set[str] = set()
    for item in items:
        if isinstance(item, Slot) and item.rows is not None:
            names.add(item.variable)
        elif isinstance(item, Fork):
            names |= set.intersection(*(_named(option) for option in item.options))
    return names
