"""Which words are there, and how are they written? Headings and lists of the grammar files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from armdlab.grammar.prefix_code import END, TOKEN, chain, clash
from armdlab.grammar.values import Where, WordList

_SHARE = re.compile(r"\d+/0*[1-9]\d*|\d*\.?\d+")  # 1/3 or 0.25
_COLUMN = re.compile(r"([a-z]\w*)(?: *\((\w+)\)| *-> *([\w-]+))?$")  # "he (pronoun)", "colours -> colour"
_SOUNDS_LIKE_A = re.compile(r"(?:uni|use|usu|eu|one|once)", re.IGNORECASE)
_SOUNDS_LIKE_AN = re.compile(r"(?:[aeiou]|hour|honest|heir)", re.IGNORECASE)


@dataclass
class Section:
    """A heading with the lines below it."""

    word: str  # list, rule, plot, story, cast, text
    name: str
    share: str
    at: Where
    lines: list[tuple[Where, str]]


def sections(folder: Path) -> Iterator[Section]:
    """Headings stand at the margin, what belongs to them is indented, # begins a remark."""
    files = sorted(folder.glob("*.txt"), key=lambda path: path.name)
    if not files:
        raise FileNotFoundError(f"no grammar at {folder}: it is a folder with .txt files, as data/tales is")
    for path in files:
        section: Section | None = None
        try:
            lines = path.read_bytes().decode("utf-8-sig").split("\n")
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


def _heading(line: str, at: Where) -> Section:
    word, _, rest = line.strip().partition(" ")
    if word in ("cast", "text") and not rest:
        return Section(word, word, "", at, [])
    if word not in ("list", "rule", "plot", "story"):
        at.refuse(f"unknown heading {line.strip()!r}; headings are list, rule, plot, story, cast and text")
    name, _, share = rest.strip().partition(" ")
    if not re.fullmatch(r"[a-z][\w-]*", name):
        at.refuse(f"{word} needs a name of small letters, as in `{word} kite`; this one is {name!r}")
    if share and word in ("list", "rule"):
        at.refuse(f"{share.strip()!r} follows the name of a {word}; only plots and stories have a probability there")
    return Section(word, name, share.strip(), at, [])


def shares_of(written: Sequence[str], lines: Sequence[Where], at: Where, of: str) -> tuple[int, ...]:
    """Probabilities as written, or equal ones where none is; as integers over a common denominator."""
    if not any(written):
        return (1,) * len(written)
    for text, line in zip(written, lines, strict=True):
        if not text:
            line.refuse(f"an option of {of} has no probability although others have; give it to all or to none")
        if not _SHARE.fullmatch(text) or Fraction(text) <= 0:
            line.refuse(f"{text!r} is not a probability; write 1/3 or 0.25, more than 0")
    parts = [Fraction(text) for text in written]
    if sum(parts) != 1:
        at.refuse(f"the probabilities of {of} sum to {sum(parts)}, not 1; change one of them")
    base = math.lcm(*(part.denominator for part in parts))
    return tuple(int(part * base) for part in parts)


class Forms(NamedTuple):
    """What a slot writes for each row of a list, and how it reads it back."""

    forms: tuple[str, ...]  # row -> what is written
    options: tuple[str, ...]  # the distinct forms
    rows: dict[str, int] | None  # what is written -> row, where every row has its own form
    match: Callable[[str, int], re.Match[str] | None]


@dataclass
class Lexicon:
    """The lists of a grammar, their groups (lists and tags), and their columns of choices."""

    lists: dict[str, WordList] = field(default_factory=dict)
    groups: dict[str, tuple[WordList, tuple[int, ...]]] = field(default_factory=dict)
    links: dict[tuple[str, str], tuple[WordList, tuple[tuple[int, ...], ...]]] = field(default_factory=dict)
    known: dict[tuple[str, str, bool, bool], Forms] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, lists: Sequence[Section]) -> Lexicon:
        """Read the sections that are lists."""
        lexicon = cls()
        tables = [_table(section) for section in lists]
        for section, table in zip(lists, tables, strict=True):
            lexicon._add_list(section, table)
        for section, table in zip(lists, tables, strict=True):
            lexicon._add_links(section, table)
        return lexicon

    def _add_list(self, section: Section, table: _Table) -> None:
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
        words = WordList(name, kinds, table.cells, tuple(table.lines), values)
        seen: dict[str, Where] = {}
        for cell, line in zip(table.cells[words.key], table.lines, strict=True):
            if cell in seen:
                line.refuse(f"two derivations of one text: list {name} has {cell!r} also on line {seen[cell].line}")
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

    def _add_links(self, section: Section, table: _Table) -> None:
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
            self.links[section.name, column] = (self.lists[target], tuple(rows))

    def forms(self, words: WordList, column: str, article: bool, capital: bool, at: Where) -> Forms:
        """How one column shows its rows, with or without a/an, small or capital; for the line `at`."""
        key = (words.name, column, article, capital)
        if key not in self.known:
            forms = tuple(_form(cell, article, capital) for cell in words.cells[column])
            for form, line in zip(forms, words.lines, strict=True):
                if not re.fullmatch(r"\w(?:[^\[\]{}<>|]*\w)?", form):
                    line.refuse(f"{form!r} cannot be written; a word begins and ends with a letter")
            distinct = list(dict.fromkeys(forms))
            found = clash([chain(TOKEN.findall(form), END) for form in distinct])
            if found:
                one, other, _ = found
                at.refuse(
                    f"two derivations may give one text: in list {words.name} {distinct[one]!r} begins"
                    f" {distinct[other]!r}; rename one"
                )
            longest_first = sorted(map(re.escape, distinct), key=len, reverse=True)
            pattern = re.compile(rf"(?:{'|'.join(longest_first)})(?!\w)")
            rows = {form: row for row, form in enumerate(forms)} if len(distinct) == len(forms) else None
            self.known[key] = Forms(forms, tuple(distinct), rows, pattern.match)
        return self.known[key]


@dataclass
class _Table:
    columns: dict[str, tuple[str | None, str | None]]  # name -> (kind of agreement, list it points to)
    cells: dict[str, tuple[str, ...]]
    tags: list[list[str]]
    lines: list[Where]


def _table(section: Section) -> _Table:
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
