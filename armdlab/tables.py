"""What does a table of the paper say beside ours, and under which conditions?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from armdlab.checkpoints import read_json

RECORDED = Path(__file__).resolve().parents[1] / "data" / "tables"


@dataclass(frozen=True)
class Cell:
    """One figure of ours with its standard error and what it was measured under.

    Args:
        value: perplexity.
        error: its standard error.
        conditions: the whole sentence of each measurement.
        note: what stands behind it in the table, such as an entropy.
        over: what `error` is over: "3 seeds", "rows" or "samples"; empty where it is not known.
    """

    value: float
    error: float
    conditions: tuple[str, ...]
    note: str = ""
    over: str = ""


@dataclass(frozen=True)
class Line:
    """One model of a table.

    Args:
        name: of the model.
        cells: column -> our figure.
        paper: what the paper has there, as it is written: "22.36 (0.98 x AR)"; empty where it has nothing.
    """

    name: str
    cells: Mapping[str, Cell]
    paper: str = ""


@dataclass(frozen=True, repr=False)
class Table:
    """A table of the paper beside ours.

    Args:
        title: what is compared.
        lines: models.
        reference: name of the line to which the ratios are taken.
        curves: run -> what its card says of its way: dicts with "step", "seconds", "nats_per_token".
    """

    title: str
    lines: tuple[Line, ...]
    reference: str
    curves: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)

    def ratio(self, line: Line, column: str) -> float:
        """A figure over the reference's in the same column; nan where one is missing."""
        base = next(other for other in self.lines if other.name == self.reference).cells.get(column)
        return line.cells[column].value / base.value if base else math.nan

    def __str__(self) -> str:
        """The table, then the conditions of every figure in it."""
        rows = self._rows()
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        body = ["   ".join(f"{text:<{n}}" for text, n in zip(row, wide, strict=True)).rstrip() for row in rows]
        return "\n".join([self.title, self._legend, "", *body, "", *self._conditions()])

    __repr__ = __str__

    @property
    def _legend(self) -> str:
        return f"(x: ratio to {self.reference}; +-: one standard error, over what the brackets behind it name)"

    def _rows(self) -> list[list[str]]:
        columns = list(dict.fromkeys(column for line in self.lines for column in line.cells))
        cells = ([self._said(line, column) for column in columns] for line in self.lines)
        body = [[line.name, *said, line.paper] for line, said in zip(self.lines, cells, strict=True)]
        return [["", *columns, "the paper"], *body]

    def _conditions(self) -> list[str]:
        return [f"{line.name}: {text}" for line in self.lines for c in line.cells.values() for text in c.conditions]

    def _said(self, line: Line, column: str) -> str:
        cell = line.cells.get(column)
        if cell is None:
            return ""
        ratio = self.ratio(line, column)
        over = f" ({cell.over})" if cell.over else ""
        return f"{cell.value:.2f} +- {cell.error:.2f}{over}{'' if math.isnan(ratio) else f' {ratio:.3f} x'}{cell.note}"

    def _repr_markdown_(self) -> str:
        """The table as a notebook shows it; the conditions unfold."""
        head, *rows = self._rows()
        lines = [f"**{self.title}** {self._legend}", ""]
        body = ([escape(text).replace("|", "&#124;") for text in row] for row in rows)
        lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
        said = "\n".join(f"- {escape(text)}" for text in self._conditions())
        unfolds = f"<details><summary>Conditions of every figure</summary>\n\n{said}\n\n</details>"
        return "\n".join([*lines, "", unfolds])

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Table:
        """Read what `as_json` gave, and `armdlab reproduce` wrote.

        Raises:
            ValueError: if it is no table.
        """
        try:
            lines = tuple(
                Line(line["name"], {column: _read_cell(cell) for column, cell in line["cells"].items()}, line["paper"])
                for line in found["lines"]
            )
            return cls(found["title"], lines, found["reference"], found["curves"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no table of `armdlab reproduce`: {error!r}; write it anew") from None


def _read_cell(found: Mapping[str, Any]) -> Cell:
    error = math.nan if found["error"] is None else found["error"]  # JSON has no nan
    n_seeds = len(found["conditions"])
    over = found.get("over", f"{n_seeds} seeds" if n_seeds > 1 else "")  # older tables do not say
    return Cell(found["value"], error, tuple(found["conditions"]), found["note"], over)


def recorded(name: str) -> Table:
    """A table that `armdlab reproduce NAME --budget laptop` made, as the lab ships it.

    Args:
        name: "table1", "table2" or "table3".

    Raises:
        ValueError: if no such table is shipped.
    """
    path = RECORDED / f"{name}.json"
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in RECORDED.glob("*.json")))
        raise ValueError(f"name={name!r} is no table that the lab ships ({there or 'none yet'}); see data/tables")
    return Table.from_json(read_json(path))
