"""What may be written, and can every text be read in one way only? (the file format of `data/tales`)

A grammar is a folder of plain text files with lists of words, rules and stories; `data/tales/README.md`
is its manual. This module reads the files, refuses what is wrong with file, line and reason, and gives a
`Grammar`: values that `tales.py` samples, parses and scores. It knows nothing of heroes and kites.

Why a text has one derivation, by construction: the options of every choice are *prefix-free*, that is, no
wording of one option begins a wording of another. Sequences of prefix-free codes are prefix-free, and so
are choices between them, hence the whole grammar is one prefix code. Loading checks this at every choice,
with all agreements ignored: even a text that contradicts itself has at most one reading.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import NoReturn, Union

TOKEN = re.compile(r"\w+|\W")  # words, and every other character by itself: joined again, they are the text
_PIECE = re.compile(r"[^\[\]{}<>|]+|\{[^{}]*\}|<[^<>]*>|.")  # "{slot}", "<rule>", "[", "|", "]", plain text
_SHARE = re.compile(r"(\d+/\d+|\d*\.?\d+)(?:\s+|$)")  # "1/3" or "0.25" before an option or after a name
_DRAW = re.compile(r"([a-z]\w*) +from +([\w-]+)(?:\.(\w+))?((?: *, *not +[a-z]\w*(?:\.\w+)?)*)$")
_SUM = re.compile(r"([a-z]\w*) +is +([a-z]\w*)((?: *[+-] *[a-z]\w*)+)$")
_COLUMN = re.compile(r"([a-z]\w*)(?: *\((\w+)\)| *-> *([\w-]+))?$")
_FACT = re.compile(r"([a-z]\w*)\.([a-z]\w*) *= *([a-z]\w*)$")
_SLOT = re.compile(r"(?:([Aa])n? +)?([A-Za-z]\w*)(?:\.([A-Za-z]\w*))?(?:\.([A-Za-z]\w*))?$")
_SOUNDS_LIKE_A = re.compile(r"(?:uni|use|usu|eu|one|once)", re.IGNORECASE)
_SOUNDS_LIKE_AN = re.compile(r"(?:[aeiou]|hour|honest|heir)", re.IGNORECASE)


class GrammarError(ValueError):
    """A grammar file is refused; the message names file, line and what is wrong."""

    def __init__(self, at: Where, reason: str) -> None:
        super().__init__(f"{at.file}, line {at.line}: {reason}")
        self.file, self.line, self.reason = at.file, at.line, reason


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
    at: Where
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
    column: str
    kind: str  # of the agreement that a wrong form breaks
    fact: str | None  # "toy.owner" where the variable stands there for a fact
    forms: tuple[str, ...]  # row -> what is written
    options: tuple[str, ...]  # the distinct forms
    rows: Mapping[str, int] | None  # what is written -> row, where every row has its own form
    match: Callable[[str, int], re.Match[str] | None]
    at: Where


@dataclass(frozen=True, eq=False)
class Fact:
    """`{toy.owner = friend}`: writes nothing, changes the world."""

    name: str
    variable: str


@dataclass(frozen=True, eq=False)
class Fork:
    """A choice between options, each a sequence of items, with integer shares."""

    name: str
    at: Where
    options: tuple[tuple[Item, ...], ...]
    shares: tuple[int, ...]
    lines: tuple[Where, ...]
    first: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # first token -> options to try

    @cached_property
    def cumulative(self) -> tuple[int, ...] | None:
        """Running sums of the shares, or None where all are equal."""
        return _cumulative(self.shares)

    @cached_property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each option."""
        total = sum(self.shares)
        return tuple(share / total for share in self.shares)


Item = Union[str, Slot, Fact, Fork]


@dataclass(frozen=True, eq=False)
class Story:
    """One variant of a plot: a cast of variables, and a text that shows them."""

    plot: str
    name: str
    at: Where
    draws: tuple[Draw, ...]
    sums: tuple[Sum, ...]
    items: tuple[Item, ...]
    count: int  # distinct tales
    entropy: float  # nats, given the story


@dataclass(frozen=True, eq=False)
class Plot:
    """A choice between stories."""

    name: str
    stories: tuple[Story, ...]
    shares: tuple[int, ...]

    @cached_property
    def cumulative(self) -> tuple[int, ...] | None:
        """Running sums of the shares, or None where all are equal."""
        return _cumulative(self.shares)


@dataclass(frozen=True, eq=False)
class Grammar:
    """A grammar that was read, and found to be a prefix code."""

    folder: Path
    lists: Mapping[str, WordList]
    groups: Mapping[str, tuple[WordList, tuple[int, ...]]]
    plots: tuple[Plot, ...]
    shares: tuple[int, ...]
    first: Mapping[str, tuple[tuple[int, int], ...]]  # first token -> (plot, story) to try

    @cached_property
    def cumulative(self) -> tuple[int, ...] | None:
        """Running sums of the plots' shares, or None where all are equal."""
        return _cumulative(self.shares)

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


def read(folder: Path | str) -> Grammar:
    """Read the grammar in a folder, and check it.

    Args:
        folder: a folder whose `.txt` files hold the lists, rules, plots and stories.

    Returns:
        The grammar.

    Raises:
        FileNotFoundError: if the folder is missing or has no `.txt` file.
        GrammarError: if a file breaks a rule of the format, or two derivations give one text.
    """
    return _Reader(Path(folder)).grammar()


# ------------------------------------------------------------------------------------- lines and headings


@dataclass
class _Section:
    word: str  # list, rule, plot, story, cast, text
    name: str
    share: str
    at: Where
    lines: list[tuple[Where, str]]


def _sections(folder: Path) -> Iterator[_Section]:
    """Headings stand at the margin, what belongs to them is indented, # begins a remark."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise FileNotFoundError(f"no grammar at {folder}: it is a folder with .txt files, as data/tales is")
    for path in files:
        section: _Section | None = None
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            line = path.read_bytes()[: error.start].count(b"\n") + 1
            Where(path.name, line).refuse("this line is not UTF-8; save the file as UTF-8")
        for number, line in enumerate(lines, 1):
            at = Where(path.name, number)
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if line[0].isspace():
                if section is None:
                    at.refuse("this indented line belongs to no heading; begin with list, rule or plot")
                section.lines.append((at, line.strip()))
                continue
            section = _heading(line, at)
            yield section


def _heading(line: str, at: Where) -> _Section:
    word, _, rest = line.strip().partition(" ")
    if word in ("cast", "text") and not rest:
        return _Section(word, word, "", at, [])
    if word not in ("list", "rule", "plot", "story"):
        at.refuse(f"unknown heading {line.strip()!r}; headings are list, rule, plot, story, cast and text")
    name, _, share = rest.strip().partition(" ")
    if not re.fullmatch(r"[a-z][\w-]*", name):
        at.refuse(f"{word} needs a name of small letters, as in `{word} kite`; this one is {name!r}")
    return _Section(word, name, share.strip(), at, [])


def _shares(written: Sequence[str], lines: Sequence[Where], at: Where, of: str) -> tuple[int, ...]:
    """Probabilities as written, or equal ones where none is; as integers over a common denominator."""
    if not any(written):
        return (1,) * len(written)
    for text, line in zip(written, lines, strict=True):
        if not text:
            line.refuse(f"an option of {of} has no probability although others have; give it to all or to none")
        if not _SHARE.fullmatch(text) or text.endswith("/0") or Fraction(text) <= 0:
            line.refuse(f"{text!r} is not a probability; write 1/3 or 0.25, more than 0")
    parts = [Fraction(text) for text in written]
    if sum(parts) != 1:
        at.refuse(f"the probabilities of {of} sum to {sum(parts)}, not 1; change one of them")
    base = math.lcm(*(part.denominator for part in parts))
    return tuple(int(part * base) for part in parts)


def _cumulative(shares: Sequence[int]) -> tuple[int, ...] | None:
    if len(set(shares)) == 1:
        return None
    return tuple(sum(shares[: i + 1]) for i in range(len(shares)))


# ----------------------------------------------------------------------------- from sections to a grammar


@dataclass
class _Rule:
    at: Where
    options: list[_Parts]
    shares: tuple[int, ...]
    lines: tuple[Where, ...]
    used: bool = False


@dataclass
class _Parts:
    """Marked-up text, cut into pieces: plain text, ("{", slot), ("<", rule), or ("[", options)."""

    pieces: list[str | tuple[str, str] | tuple[str, list[_Parts]]]
    at: Where


class _Reader:
    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"no grammar at {folder}: the folder does not exist; data/tales has one")
        self.folder = folder
        self.lists: dict[str, WordList] = {}
        self.groups: dict[str, tuple[WordList, tuple[int, ...]]] = {}
        self.links: dict[tuple[str, str], tuple[str, tuple[tuple[int, ...], ...]]] = {}
        self.rules: dict[str, _Rule] = {}
        self.matchers: dict[tuple[str, str, bool, bool], tuple] = {}

    def grammar(self) -> Grammar:
        sections = list(_sections(self.folder))
        tables = [(section, _table(section)) for section in sections if section.word == "list"]
        for section, table in tables:
            self._add_list(section, table)
        for section, table in tables:
            self._add_links(section, table)
        for section in sections:
            if section.word == "rule":
                self._add_rule(section)
        self._refuse_cycles()
        plots, shares = self._plots(sections)
        for name, rule in self.rules.items():
            if not rule.used:
                rule.at.refuse(f"no story uses rule {name}; write <{name}> somewhere, or delete it")
        first = _check_stories([(p, s) for p, plot in enumerate(plots) for s in range(len(plot.stories))], plots)
        return Grammar(self.folder, self.lists, self.groups, plots, shares, first)

    # lists

    def _add_list(self, section: _Section, table: _Table) -> None:
        name, at = section.name, section.at
        if name in self.groups:
            at.refuse(f"the name {name} is taken; choose another one for this list")
        kinds = {column: kind or name for column, (kind, link) in table.columns.items() if not link}
        values = ()
        if "value" in kinds:
            del kinds["value"]
            values = tuple(_whole(cell, line) for cell, line in zip(table.cells["value"], table.lines, strict=True))
        if not kinds:
            at.refuse(f"list {name} has no column of words; its first line names the columns")
        words = WordList(name, at, kinds, table.cells, tuple(table.lines), values)
        seen: dict[str, Where] = {}
        for cell, line in zip(table.cells[words.key], table.lines, strict=True):
            if cell in seen:
                line.refuse(f"two derivations of one text: list {name} has {cell!r} here and on line {seen[cell].line}")
            seen[cell] = line
        self.lists[name] = words
        self.groups[name] = (words, tuple(range(len(table.lines))))
        members: dict[str, list[int]] = {}
        for row, tags in enumerate(table.tags):
            for tag in tags:
                members.setdefault(tag, []).append(row)
        for tag, rows in members.items():
            if tag in self.groups:
                line = table.lines[rows[0]]
                line.refuse(f"the tag {tag} is also the name of a list, or a tag of another list; rename it")
            self.groups[tag] = (words, tuple(rows))

    def _add_links(self, section: _Section, table: _Table) -> None:
        for column, (_, target) in table.columns.items():
            if not target:
                continue
            if target not in self.lists:
                section.at.refuse(f"column {column} points to list {target}, which does not exist")
            names = self.lists[target].cells[self.lists[target].key]
            rows = []
            for cell, line in zip(table.cells[column], table.lines, strict=True):
                chosen: list[int] = []
                for word in cell.split() if cell != "-" else []:
                    if word in self.groups and self.groups[word][0].name == target:
                        chosen += self.groups[word][1]
                    elif word in names:
                        chosen.append(names.index(word))
                    else:
                        line.refuse(f"unknown symbol {word!r}: list {target} has no such entry and no such tag")
                if len(set(chosen)) < len(chosen):
                    line.refuse(f"two derivations of one text: {cell!r} names an entry of list {target} twice")
                rows.append(tuple(chosen))
            self.links[section.name, column] = (target, tuple(rows))

    # rules

    def _add_rule(self, section: _Section) -> None:
        if section.name in self.rules:
            section.at.refuse(f"rule {section.name} is also defined on line {self.rules[section.name].at.line}")
        if not section.lines:
            section.at.refuse(f"rule {section.name} has no options; write one on each line below it, indented")
        written, options = [], []
        for at, line in section.lines:
            share = _SHARE.match(line)
            written.append(share.group(1) if share else "")
            options.append(_parts(line[share.end() :] if share else line, at))
        lines = tuple(at for at, _ in section.lines)
        shares = _shares(written, lines, section.at, f"rule {section.name}")
        self.rules[section.name] = _Rule(section.at, options, shares, lines)

    def _refuse_cycles(self) -> None:
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            for at, inner in _mentions(self.rules[name].options):
                if inner not in self.rules:
                    at.refuse(f"unknown symbol <{inner}>: no rule has this name")
                if inner in (*path, name):
                    loop = (*path, name)[(*path, name).index(inner) :]
                    at.refuse(f"a cycle: {' > '.join((*loop, inner))}; such a tale would never end")
                if inner not in done:
                    visit(inner, (*path, name))
            done.add(name)

        for name in self.rules:
            visit(name, ())

    # plots and stories

    def _plots(self, sections: list[_Section]) -> tuple[tuple[Plot, ...], tuple[int, ...]]:
        stories: dict[str, list[tuple[_Section, Story]]] = {}
        plots: dict[str, _Section] = {}
        names: set[str] = set()
        plot = ""
        sections = [section for section in sections if section.word not in ("list", "rule")]
        for i, section in enumerate(sections):
            if section.word == "plot":
                plot = section.name
                if plot in plots:
                    section.at.refuse(f"plot {plot} is also defined on line {plots[plot].at.line}")
                plots[plot], stories[plot] = section, []
            elif section.word == "story":
                if not plot:
                    section.at.refuse(f"story {section.name} stands before any plot; begin with `plot NAME`")
                if section.name in names:
                    section.at.refuse(f"two stories have the name {section.name}; rename one")
                names.add(section.name)
                following = sections[i + 1 : i + 3]
                if [other.word for other in following] != ["cast", "text"]:
                    section.at.refuse(f"story {section.name} needs a cast and then a text below it")
                story = _Teller(self, section, plot, *following).story()
                stories[plot].append((section, story))
            elif i == 0 or sections[i - 1].word not in ("story", "cast"):
                section.at.refuse(f"{section.word} stands outside a story; begin with `story NAME`")
            if section.word in ("plot", "story") and section.lines:
                section.lines[0][0].refuse(f"a line below {section.word} {section.name} belongs under cast or text")
        if not plots:
            Where(self.folder.name, 0).refuse("there is no story in this folder; see data/tales/README.md")
        built = []
        for name, section in plots.items():
            if not stories[name]:
                section.at.refuse(f"plot {name} has no story; write one below it")
            heads = [head for head, _ in stories[name]]
            shares = _shares([h.share for h in heads], [h.at for h in heads], section.at, f"the stories of {name}")
            built.append(Plot(name, tuple(story for _, story in stories[name]), shares))
        heads = list(plots.values())
        shares = _shares([h.share for h in heads], [h.at for h in heads], heads[0].at, "the plots")
        return tuple(built), shares

    # what a slot may write

    def matcher(self, words: WordList, column: str, article: bool, capital: bool, at: Where) -> tuple:
        """Forms by row, row by form (or None), and the pattern that reads one form."""
        key = (words.name, column, article, capital)
        if key not in self.matchers:
            forms = tuple(_form(cell, article, capital) for cell in words.cells[column])
            for form, line in zip(forms, words.lines, strict=True):
                if not re.fullmatch(r"\w(?:[^\[\]{}<>|]*\w)?", form):
                    line.refuse(f"{form!r} cannot be written; a word begins and ends with a letter")
            distinct = list(dict.fromkeys(forms))
            clash = _clash([_chain(TOKEN.findall(form), _END) for form in distinct])
            if clash:
                one, other, _ = clash
                at.refuse(
                    f"two derivations may give one text: in list {words.name} {distinct[one]!r} begins"
                    f" {distinct[other]!r}; rename one"
                )
            longest_first = sorted(map(re.escape, distinct), key=len, reverse=True)
            pattern = re.compile(rf"(?:{'|'.join(longest_first)})(?!\w)")
            rows = {form: row for row, form in enumerate(forms)} if len(distinct) == len(forms) else None
            self.matchers[key] = (forms, tuple(distinct), rows, pattern.match)
        return self.matchers[key]


@dataclass
class _Table:
    columns: dict[str, tuple[str | None, str | None]]  # name -> (kind of agreement, list it points to)
    cells: dict[str, tuple[str, ...]]
    tags: list[list[str]]
    lines: list[Where]


def _table(section: _Section) -> _Table:
    """`name (kind) | column -> list | tags`, then a line for each entry."""
    if len(section.lines) < 2:
        section.at.refuse(f"list {section.name} is empty; name its columns, then write one entry on each line")
    at, header = section.lines[0]
    columns: dict[str, tuple[str | None, str | None]] = {}
    for cell in header.split("|"):
        found = _COLUMN.match(cell.strip())
        if not found or found.group(1) in columns:
            at.refuse(f"{cell.strip()!r} is not a new column; write name, name (agreement), or name -> list")
        columns[found.group(1)] = (found.group(2), found.group(3))
    rows, tags, lines = [], [], []
    for at, line in section.lines[1:]:
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != len(columns) or not all(cells):
            at.refuse(f"{len(list(filter(None, cells)))} cells for the {len(columns)} columns {', '.join(columns)}")
        row = dict(zip(columns, cells, strict=True))
        tags.append([tag for tag in row.pop("tags", "-").split() if tag != "-"])
        rows.append(row)
        lines.append(at)
    columns.pop("tags", None)
    return _Table(columns, {name: tuple(row[name] for row in rows) for name in columns}, tags, lines)


def _whole(cell: str, at: Where) -> int:
    if not re.fullmatch(r"\d{1,9}", cell):
        at.refuse(f"{cell!r} is not a whole number; the column value holds digits")
    return int(cell)


def _form(word: str, article: bool, capital: bool) -> str:
    if article:
        is_an = _SOUNDS_LIKE_AN.match(word) and not _SOUNDS_LIKE_A.match(word)
        word = f"{'an' if is_an else 'a'} {word}"
    return word[0].upper() + word[1:] if capital else word


def _parts(source: str, at: Where) -> _Parts:
    """Cut marked-up text into pieces."""
    levels: list[list[_Parts]] = [[_Parts([], at)]]
    for piece in _PIECE.findall(source):
        inner = levels[-1][-1].pieces
        if len(piece) > 1 and piece[0] in "{<":
            inner.append((piece[0], piece[1:-1].strip()))
        elif piece == "[":
            levels.append([_Parts([], at)])
        elif piece in "|]" and len(levels) == 1:
            at.refuse(f"a {piece} stands outside [ ]; a choice is written [one|other]")
        elif piece == "|":
            levels[-1].append(_Parts([], at))
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


def _mentions(options: Iterable[_Parts]) -> Iterator[tuple[Where, str]]:
    """Every rule that the options name, with its line."""
    for option in options:
        for piece in option.pieces:
            if piece[0] == "<":
                yield option.at, piece[1]
            elif piece[0] == "[":
                yield from _mentions(piece[1])


# --------------------------------------------------------------------------------------- one story's text


class _Teller:
    """Compiles a story: casts its variables, follows the facts, and expands its rules where they stand."""

    def __init__(self, reader: _Reader, head: _Section, plot: str, cast: _Section, text: _Section) -> None:
        self.reader, self.head, self.plot, self.cast, self.text = reader, head, plot, cast, text
        self.variables: dict[str, WordList] = {}
        self.draws: dict[str, Draw] = {}
        self.sums: dict[str, Sum] = {}
        self.facts: dict[str, str] = {}

    def story(self) -> Story:
        for at, line in self.cast.lines:
            self._add_to_cast(at, line)
        items: list[Item] = []
        for at, line in self.text.lines:
            compiled = self._items(_parts(line, at), inside=False)
            spaced = items and not all(isinstance(item, Fact) for item in compiled)
            items += [" ", *compiled] if spaced else compiled
        if not items:
            self.text.at.refuse(f"story {self.head.name} has no text")
        items = _joined(items, self.text.at)
        named = _named(items)
        for name, draw in self.draws.items():
            if name not in named:
                draw.at.refuse(f"{name} is drawn, but not every path through the text names it, so it cannot be read back")
        count, entropy = _measure_cast(list(self.draws.values()), list(self.sums.values()))
        ways, nats = _measure(items)
        return Story(
            self.plot,
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
            if (parent.name, column) not in self.reader.links or source in self.sums:
                at.refuse(f"unknown symbol {source}.{column}: list {parent.name} has no such column of choices")
            target, link = self.reader.links[parent.name, column]
            words, base = self.reader.lists[target], ()
        else:
            if source not in self.reader.groups:
                at.refuse(f"unknown symbol {source!r}: no list and no tag has this name")
            (words, base), link = self.reader.groups[source], ()
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

    def _items(self, parts: _Parts, inside: bool) -> list[Item]:
        items: list[Item] = []
        for piece in parts.pieces:
            if isinstance(piece, str):
                items.append(piece)
            elif piece[0] == "{":
                items.append(self._slot(piece[1], parts.at, inside))
            elif piece[0] == "[":
                options = [self._items(option, inside=True) for option in piece[1]]
                items.append(self._fork(str(parts.at), parts.at, options, (1,) * len(options), None))
            else:
                items.append(self._rule(piece[1], parts.at))
        return items

    def _rule(self, name: str, at: Where) -> Item:
        if name not in self.reader.rules:
            at.refuse(f"unknown symbol <{name}>: no rule has this name")
        rule = self.reader.rules[name]
        rule.used = True
        options = [self._items(option, inside=True) for option in rule.options]
        return self._fork(name, rule.at, options, rule.shares, rule.lines)

    def _fork(
        self, name: str, at: Where, options: list[list[Item]], shares: tuple[int, ...], lines: tuple[Where, ...] | None
    ) -> Fork:
        lines = lines or (at,) * len(options)
        joined = [tuple(_joined(option, line)) for option, line in zip(options, lines, strict=True)]
        chains = [_chain(option, _END) for option in joined]
        _refuse_clash(chains, lines, [f"option {i + 1}" for i in range(len(options))])
        return Fork(name, at, tuple(joined), shares, lines, _first(chains))

    def _slot(self, source: str, at: Where, inside: bool) -> Item:
        fact = _FACT.match(source)
        if fact:
            return self._fact(*fact.groups(), at=at, inside=inside)
        found = _SLOT.match(source)
        if not found:
            at.refuse(f"{{{source}}} is not a slot; write {{hero}}, {{hero.he}}, {{a kite}} or {{kite.owner = hero}}")
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
        forms, options, rows, match = self.reader.matcher(words, column, bool(article), capital, at)
        rows = None if variable in self.sums else rows
        return Slot(variable, column, kind, label, forms, options, rows, match, at)

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
    for left, right in zip(written, written[1:], strict=False):
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


# ----------------------------------------------------------------------------------- count and entropy


def _measure(items: Iterable[Item]) -> tuple[int, float]:
    """Number of wordings and entropy in nats: H = sum over forks of E[-log p]."""
    count, entropy = 1, 0.0
    for item in items:
        if isinstance(item, Fork):
            inner = [_measure(option) for option in item.options]
            count *= sum(ways for ways, _ in inner)
            entropy += math.fsum(p * (h - math.log(p)) for p, (_, h) in zip(item.probabilities, inner, strict=True))
    return count, entropy


def _measure_cast(draws: list[Draw], sums: list[Sum]) -> tuple[int, float]:
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
        groups.append(sorted([*sum(touched, []), node], key=lambda node: node.at.line))
    return groups


# ------------------------------------------------------------------------------------ is it a prefix code?


class _Cell:
    """A reader's position: what comes next, and the position after it."""

    __slots__ = ("_moves", "head", "rest")

    def __init__(self, head: str | Slot | Fork, rest: _Cell | None) -> None:
        self.head, self.rest = head, rest
        self._moves: list[tuple[str, _Cell]] | None = None

    def moves(self) -> list[tuple[str, _Cell]]:
        """Every token that can come next, with the position after it."""
        if self._moves is None:
            if self.rest is None:
                self._moves = []
            elif isinstance(self.head, str):
                self._moves = [(self.head, self.rest)]
            elif isinstance(self.head, Slot):
                forms = dict.fromkeys(self.head.forms)
                self._moves = [move for form in forms for move in _chain([form], self.rest).moves()]
            else:
                self._moves = [move for option in self.head.options for move in _chain(option, self.rest).moves()]
        return self._moves


_END = _Cell("", None)


def _chain(items: Iterable[Item], rest: _Cell) -> _Cell:
    for item in reversed(list(items)):
        if isinstance(item, str):
            for token in reversed(TOKEN.findall(item)):
                rest = _Cell(token, rest)
        elif not isinstance(item, Fact):
            rest = _Cell(item, rest)
    return rest


def _clash(starts: Sequence[_Cell]) -> tuple[int, int, str] | None:
    """Two options of which one can be read as the beginning of the other, and the words they share."""
    pending = [(list(enumerate(starts)), "")]
    seen: set[frozenset[tuple[int, _Cell]]] = set()
    while pending:
        positions, said = pending.pop()
        by_token: dict[str, dict[tuple[int, _Cell], None]] = {}
        for option, cell in positions:
            for token, after in cell.moves():
                by_token.setdefault(token, {})[option, after] = None
        for token, reached in by_token.items():
            if len({option for option, _ in reached}) == 1 or frozenset(reached) in seen:
                continue
            ended = next((option for option, cell in reached if cell is _END), None)
            if ended is not None:
                return ended, next(option for option, _ in reached if option != ended), said + token
            seen.add(frozenset(reached))
            pending.append((list(reached), said + token))
    return None


def _refuse_clash(chains: Sequence[_Cell], lines: Sequence[Where], names: Sequence[str]) -> None:
    clash = _clash(chains)
    if clash:
        one, other, words = clash
        shown = words if len(words) <= 60 else f"{words[:20]} ... {words[-35:]}"
        where = "" if lines[one] == lines[other] else f" (line {lines[one].line})"
        lines[other].refuse(
            f"two derivations may give one text: {shown!r} is all that {names[one]}{where} says,"
            f" and {names[other]} can begin with it; change a word"
        )


def _first(chains: Sequence[_Cell]) -> dict[str, tuple[int, ...]]:
    first: dict[str, tuple[int, ...]] = {}
    for i, chain in enumerate(chains):
        for token in dict.fromkeys(token for token, _ in chain.moves()):
            first[token] = (*first.get(token, ()), i)
    return first


def _check_stories(indices: list[tuple[int, int]], plots: Sequence[Plot]) -> dict[str, tuple[tuple[int, int], ...]]:
    stories = [plots[p].stories[s] for p, s in indices]
    chains = [_chain(story.items, _END) for story in stories]
    _refuse_clash(chains, [story.at for story in stories], [f"story {story.name}" for story in stories])
    return {token: tuple(indices[i] for i in options) for token, options in _first(chains).items()}
