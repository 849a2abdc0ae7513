"""The page of a comparison of auto-encoders: one HTML file, like the report of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_jax.render import whole_file
from wm_jax.render.report import Media, figures_of, number, templates


@dataclass(frozen=True)
class Column:
    """A figure of the table.

    key: by which the rows have it.
    title: above the column.
    better: "low" or "high", where one of them is; "" where neither.
    about: what it is, in a sentence.
    """

    key: str
    title: str
    better: str
    about: str


@dataclass(frozen=True)
class Entry:
    """A row of the table, and the pictures that belong to it."""

    name: str
    seeds: int
    figures: Mapping[str, float | None]
    spread: Mapping[str, float | None]
    pictures: Sequence[Media]


def write_comparison(
    path: Path,
    *,
    game: str,
    subtitle: str,
    advice: Sequence[str],
    columns: Sequence[Column],
    entries: Sequence[Entry],
    predictors: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> Path:
    """Write the page, whole or not at all.

    Args:
      entries: the best first.
      predictors: how well figures order the entries as their scores do: figure, correlation, low, high.
    """
    shown = [column for column in columns if any(_known(each.figures.get(column.key)) for each in entries)]
    html = (
        templates()
        .get_template("comparison.html")
        .render(
            game=game,
            subtitle=subtitle,
            advice=advice,
            columns=shown,
            rows=[[_cell(each, column, entries) for column in shown] for each in entries],
            entries=entries,
            pictures=[figures_of(each.pictures, path.parent) for each in entries],
            predictors=[
                {**each, **{key: _said(each[key]) for key in ("correlation", "low", "high")}} for each in predictors
            ],
            settings=settings,
        )
    )
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


@dataclass(frozen=True)
class _Cell:
    """A figure as it is shown.

    bar: its length in per cent of the longest in the column.
    best: it is the best of the column.
    """

    text: str
    spread: str
    bar: float
    best: bool


def _cell(each: Entry, column: Column, entries: Sequence[Entry]) -> _Cell:
    value = each.figures.get(column.key)
    if value is None or not math.isfinite(value):
        return _Cell("\N{EN DASH}", "", 0.0, best=False)
    others = [other for entry in entries if _known(other := entry.figures.get(column.key))]
    ends = [float(other) for other in others if other is not None]
    longest = max(map(abs, ends)) or 1.0
    best = bool(column.better) and value == (min(ends) if column.better == "low" else max(ends))
    apart = each.spread.get(column.key)
    return _Cell(_digits(value), f"±{_digits(apart / 2)}" if apart else "", 100 * abs(value) / longest, best)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _said(value: float | None) -> str:
    return number(float(value)) if value is not None and math.isfinite(value) else "\N{EN DASH}"


def _digits(value: float) -> str:
    """Three digits that count, or all before the point: figures are small ones and large ones."""
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
    return shown.replace("-", "\N{MINUS SIGN}")
