"""From the figures of all trials to a ranked table, and what it advises."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wm_jax.evaluation.vae_measures.agreement import LEAST, agreement
from wm_jax.tools.compare.columns import COLUMNS
from wm_jax.utils import markdown

RANKED_BY = "moving_error"
"""What contenders are ranked by while there are no scores: the small things of a game are what is lost first."""
CHEAP = (
    "moving_error",
    "rare_error",
    "error",
    "ssim",
    "moving_explained",
    "probe_mlp",
    "one_step_moving_error",
    "fifteen_step_moving_error",
    "active_units",
)
"""Figures that are held against the scores: which of them says beforehand who will play well?"""
IN_MARKDOWN = (
    "score",
    "moving_error",
    "rare_error",
    "moving_explained",
    "error",
    "fifteen_step_moving_error",
    "active_units",
    "size",
    "codes_in_use",
    "classes",
    "steps",
)
"""Figures of the table in Markdown; the page has all. The updates say how fast each trains: all had the same time."""
COLLAPSED_BELOW = 0.5
"""A latent is reported as collapsed where a smaller share of its units is active."""


class Row(NamedTuple):
    """A contender in the table.

    figures: means over its seeds; of each that has several, how far they lie apart stands in `spread`.
    seeds: how many it was trained with.
    """

    name: str
    figures: dict[str, float]
    spread: dict[str, float]
    seeds: int


def table(trials: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The contenders, the best first: those with a score by that, then the others by `RANKED_BY`."""
    of_each: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for trial in trials:
        of_each[trial["contender"]].append(trial)
    rows = []
    for name, mine in of_each.items():
        values: dict[str, list[float]] = defaultdict(list)
        for trial in mine:
            for figure, value in trial.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and figure != "seed":
                    values[figure].append(float(value))
        means = {figure: float(np.mean(each)) for figure, each in values.items()}
        apart = {figure: float(np.ptp(each)) for figure, each in values.items() if len(each) > 1}
        rows.append(Row(name, means, apart, len(mine)))
    return sorted(rows, key=lambda row: (-row.figures.get("score", -np.inf), _cost(row)))


def as_markdown(rows: Sequence[Row]) -> str:
    """The table with the figures of `IN_MARKDOWN`; in brackets, how far those of several seeds lie apart."""
    titles = {column.key: column.title for column in COLUMNS}
    shown = [figure for figure in IN_MARKDOWN if any(figure in row.figures for row in rows)]

    def cell(row: Row, figure: str) -> str:
        if (value := row.figures.get(figure)) is None:
            return ""
        apart = row.spread.get(figure)
        return _shown(value, 3) + (f" ({_shown(apart, 2)})" if apart else "")

    header = ["auto-encoder", "seeds", *(titles[figure] for figure in shown)]
    return markdown.table(header, [[row.name, row.seeds, *(cell(row, figure) for figure in shown)] for row in rows])


def _shown(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _cost(row: Row) -> float:
    value = row.figures.get(RANKED_BY)
    return np.inf if value is None else value


def best(trials: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """The names of the few that see best."""
    return [row.name for row in sorted(table(trials), key=_cost)[:count]]


def predictors(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How well each cheap figure orders those that have a score: Spearman's correlation, with its 95 % interval.

    1: just as the scores do. Nothing, where fewer than three have one.
    """
    scored = [row for row in rows if "score" in row.figures]
    better = {column.key: column.better for column in COLUMNS}
    found = []
    for figure in CHEAP:
        if len(scored) < LEAST or any(figure not in row.figures for row in scored):
            continue
        sign = -1.0 if better[figure] == "low" else 1.0
        values = np.array([sign * row.figures[figure] for row in scored])
        scores = np.array([row.figures["score"] for row in scored])
        agrees = agreement(values, scores, np.random.default_rng(0))
        found.append({"figure": figure, "contenders": len(scored), **agrees._asdict()})
    return found


def advice(rows: Sequence[Row]) -> list[str]:
    """What the table says, in sentences with their reasons and their uncertainty."""
    known = [row for row in rows if RANKED_BY in row.figures]
    if not known:
        return ["Nothing has been measured yet"]
    sees = min(known, key=_cost)
    said = [
        f"{sees.name} sees small things best: {sees.figures[RANKED_BY]:.3g} of squared error for a moving pixel"
        + _apart(sees, RANKED_BY)
        + _beside(sees, next((row for row in known if row.name == "vanilla"), None))
    ]
    near = [
        row.name
        for row in known
        if row is not sees
        and abs(row.figures[RANKED_BY] - sees.figures[RANKED_BY]) <= max(_width(row), _width(sees))
        and max(_width(row), _width(sees)) > 0
    ]
    if near:
        said.append(f"Seeds differ by more than what lies between it and {', '.join(near)}")
    elif sees.seeds < 2:
        said.append("It was trained with one seed: how much of that is luck is not known")
    scored = [row for row in rows if "score" in row.figures]
    if scored:
        first = scored[0]
        low, high = first.figures.get("score_low"), first.figures.get("score_high")
        interval = f" ({low:.4g} to {high:.4g})" if low is not None and high is not None else ""
        said.append(f"The best controller plays on {first.name}: {first.figures['score']:.4g}{interval}")
        others = [row.name for row in scored[1:] if low is not None and row.figures.get("score_high", -np.inf) >= low]
        if others:
            said.append(f"Its interval overlaps with that of {', '.join(others)}: these scores don't tell them apart")
        lows = [row.figures.get("score_low") for row in scored]
        random = first.figures.get("random_score")
        if random is not None and all(low is not None and low <= random for low in lows):
            said.append(
                f"No score lies above that of random play, {random:.4g}: evolve longer before trusting their order"
            )
    for row in known:
        what, used, there = "units", row.figures.get("active_units"), row.figures.get("size")
        if "codes_in_use" in row.figures:  # then units are the numbers that classes are written as
            what, used, there = "classes", row.figures["codes_in_use"], row.figures.get("classes")
        if used is not None and there and used < COLLAPSED_BELOW * there:
            said.append(f"{row.name} uses {used:.0f} of its {there:.0f} {what}: a part of it has collapsed")
    return said


def _apart(row: Row, figure: str) -> str:
    return f", {row.spread[figure]:.2g} apart between {row.seeds} seeds" if figure in row.spread else ""


def _width(row: Row) -> float:
    return row.spread.get(RANKED_BY, 0.0)


def _beside(row: Row, other: Row | None) -> str:
    if other is None or other is row:
        return ""
    share = row.figures[RANKED_BY] / other.figures[RANKED_BY]
    return f", {share:.2f} times vanilla's"
