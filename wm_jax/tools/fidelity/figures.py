"""Figures of a measurement, the bars that they have to stay under or over, and tables of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number, and the bar that it must not miss.

    form: how it is written, as in `format`.
    bar: None for figures that are only told; above: it has to be larger than the bar, or at the bar, not smaller.
    """

    value: float
    form: str = ".2g"
    bar: float | None = None
    above: bool = False

    @property
    def met(self) -> bool | None:
        """None without a bar; what is no number meets none."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.above else self.value < self.bar

    def __str__(self) -> str:
        return format(self.value, self.form) + {None: "", True: " ok", False: " FAIL"}[self.met]

    def bar_text(self) -> str:
        """The bar as tables show it."""
        if self.bar is None:
            return ""
        return (">= " if self.above else "< ") + (
            f"{100 * self.bar:g}%" if self.form.endswith("%") else f"{self.bar:g}"
        )


@dataclass(frozen=True)
class Table:
    """Figures of one kind: row -> column -> figure.

    part: of the command; name: of the table, in JSON; title: what the figures are of.
    """

    part: str
    name: str
    title: str
    rows: Mapping[str, Mapping[str, Figure]]
    remark: str = ""

    def columns(self) -> list[str]:
        """In the order in which they appear."""
        return list(dict.fromkeys(column for row in self.rows.values() for column in row))

    def __str__(self) -> str:
        columns = self.columns()
        common = {column: self._common_bar(column) for column in columns}
        lines = [["", *columns], ["bar", *common.values()]] if any(common.values()) else [["", *columns]]
        for name, row in self.rows.items():
            lines.append([name, *(_cell(row.get(column), common[column]) for column in columns)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
        text = [
            "  "
            + line[0].ljust(widths[0])
            + "".join("  " + cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))
            for line in lines
        ]
        return "\n".join([self.title, *text, *([f"  {self.remark}"] if self.remark else [])])

    def records(self) -> list[dict[str, Any]]:
        """For JSON: a dict for each figure."""
        return [
            {
                "part": self.part,
                "table": self.name,
                "row": name,
                "figure": column,
                "text": format(figure.value, figure.form),
                "value": figure.value if math.isfinite(figure.value) else None,
                "bar": figure.bar,
                "above": figure.above if figure.bar is not None else None,
                "met": figure.met,
            }
            for name, row in self.rows.items()
            for column, figure in row.items()
        ]

    def missed(self) -> list[str]:
        """A sentence for each bar that is missed."""
        return [
            f"{self.part}, {self.name}, {name}: {column} {format(figure.value, figure.form)} (bar: {figure.bar_text()})"
            for name, row in self.rows.items()
            for column, figure in row.items()
            if figure.met is False
        ]

    def _common_bar(self, column: str) -> str:
        """The bar of all figures of the column that have one; empty where they differ, or have none."""
        bars = {row[column].bar_text() for row in self.rows.values() if column in row and row[column].bar is not None}
        return bars.pop() if len(bars) == 1 else ""


def _cell(figure: Figure | None, common: str) -> str:
    if figure is None:
        return ""
    own = figure.bar_text()
    return str(figure) if own in ("", common) else f"{figure} ({own})"


def judged(tables: Sequence[Table]) -> tuple[int, list[str]]:
    """How many bars there are, and what is missed of them."""
    bars = sum(figure.met is not None for table in tables for row in table.rows.values() for figure in row.values())
    return bars, [sentence for table in tables for sentence in table.missed()]
