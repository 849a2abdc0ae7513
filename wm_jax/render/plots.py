"""Plots of a run: losses, the evolution of the score, and how scores spread. Light, printable, legible on a phone.

One colour means one thing everywhere: blue the agent, grey the random policy, teal the population, orange held-out
data. Matplotlib is imported when a plot is drawn, since most commands draw none and it is slow to load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_jax.render import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AGENT = "#1f5fa8"
RANDOM = "#80868f"
POPULATION = "#3d9b8f"
DREAM = "#c0653a"
TRAINING = "#1f5fa8"
HELD_OUT = "#d2691e"

LABELS = {
    "reconstruction": "squared error,\nsummed over a frame",
    "kl": "KL (nats per frame)",
    "active_units": "active latent units",
    "nll": "NLL (nats per step)",
    "reward": "reward error\n(squared, of the rewards' mean square)",
    "done": "done loss\n(cross-entropy)",
}
"""Axis labels, units included, of the measures that V and M record; any other is labelled with its own name."""

_INK = "#2b2f36"
_BOOKKEEPING = ("step", "time", "seconds", "learning_rate")
_MOST_POINTS = 400
_WIDTH = 6.4  # inches; with 11 point text this stays readable when a phone shrinks it to its width
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a8",
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "savefig.dpi": 180,
}


def loss_curves(
    path: Path | str,
    metrics: Sequence[Mapping[str, Any]],
    title: str = "",
) -> Path:
    """One panel for each measure, training beside held-out data.

    Args:
      path: PNG, written whole or not at all.
      metrics: one stage's records, each with "step" and some numbers: `train_X` or `X` from training, `test_X` from
        held-out data; a record need not hold all of them. Times, rates and what isn't finite are left out.
      title: above the panels.

    Raises:
      ValueError: nothing to draw.
    """
    names = [
        name for name in _measures(metrics) if any(len(_series(metrics, kind, name)[0]) for kind in ("train", "test"))
    ]
    if not names:
        raise ValueError(f"no measure to draw among {sorted({key for row in metrics for key in row})}")
    with _figure(path, height=0.9 + 2.0 * len(names)) as figure:
        axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axis, name in zip(axes, names, strict=True):
            _loss_panel(axis, metrics, name)
            axis.set_ylabel(LABELS.get(name, name.replace("_", " ")))
        axes[0].set_title(title)
        if len(axes[0].get_legend_handles_labels()[0]) > 1:
            axes[0].legend(loc="upper right")
        axes[-1].set_xlabel("updates")
        axes[-1].locator_params(axis="x", nbins=6)
        axes[-1].xaxis.set_major_formatter(_thousands())
        figure.align_ylabels()
    return Path(path)


def score_history(
    path: Path | str,
    history: Sequence[Mapping[str, Any]],
    random_score: float | None = None,
    title: str = "",
    unit: str = "score",
) -> Path:
    """How the controller's scores grew over the generations.

    Args:
      path: PNG, written whole or not at all.
      history: one record a generation: "generation"; "best", "mean" and "min" of the population; and, in some records,
        "evaluation", the score of the distribution's mean, with "evaluation_error", the half-width of its bar. Of a
        search in the dream that is the score in the real game, and "dream" and "dream_error" are those in the dream.
        A missing or null number is left out.
      random_score: the random policy's mean, drawn as a line.
      title: above the plot.
      unit: label of the vertical axis, such as "score (cars passed)".

    Raises:
      ValueError: no generation to draw.
    """
    from matplotlib.ticker import MaxNLocator

    if not history:
        raise ValueError("the history holds no generation")
    with _figure(path, height=3.9) as figure:
        axis = figure.subplots()
        in_dream = any(_is_finite(row.get("dream")) for row in history)
        what = "mean, in the real game" if in_dream else "distribution's mean"
        _evaluations(axis, history, "evaluation", AGENT, what)
        _evaluations(axis, history, "dream", DREAM, "mean, in the dream")
        _population(axis, history)
        if random_score is not None:
            axis.axhline(random_score, color=RANDOM, linestyle=(0, (4, 3)), label="random policy")
        axis.set(title=title, xlabel="generation", ylabel=unit)
        axis.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10], integer=True))
        axis.xaxis.set_major_formatter(_thousands())
        axis.yaxis.set_major_formatter(_thousands())
        _legend_below(figure, axis)
    return Path(path)


def score_histogram(
    path: Path | str,
    scores: Sequence[float],
    baseline_scores: Sequence[float] | None = None,
    title: str = "",
    unit: str = "score",
) -> Path:
    """How the scores of single episodes spread, the agent's over the random policy's, with a line at each mean.

    Args:
      path: PNG, written whole or not at all.
      scores: the agent's, one an episode.
      baseline_scores: the random policy's.
      title: above the plot.
      unit: label of the horizontal axis.

    Raises:
      ValueError: no finite score.
    """
    from matplotlib.ticker import MaxNLocator

    groups = [("random policy", RANDOM, baseline_scores), ("agent", AGENT, scores)]
    drawn = [(name, colour, _finite(values)) for name, colour, values in groups if values is not None]
    if not len(drawn[-1][2]):
        raise ValueError("scores holds no finite number")
    drawn = [group for group in drawn if len(group[2])]
    edges = _bins(np.concatenate([values for *_, values in drawn]))
    with _figure(path, height=3.4) as figure:
        axis = figure.subplots()
        for name, colour, values in drawn:
            mean = values.mean()
            label = f"{name}: mean {_number(mean, 4)}, {len(values)} episodes"
            axis.hist(values, edges.tolist(), color=colour, alpha=0.55, edgecolor="white", linewidth=0.8, label=label)
            axis.axvline(mean, color=colour, linewidth=2)
        axis.set(title=title, xlabel=unit, ylabel="episodes")
        axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
        axis.xaxis.set_major_formatter(_thousands())
        axis.grid(axis="x", visible=False)
        _legend_below(figure, axis)
    return Path(path)


def seen_curve(
    path: Path | str,
    curve: Mapping[str, Sequence[float | None]],
    held_out: Mapping[str, float | None],
    title: str = "",
) -> Path:
    """V's error and M's surprise along the games of an agent, each beside its value on held-out replays.

    Args:
      path: PNG, written whole or not at all.
      curve: "step"; and for each panel, "error" and "surprise", one value a step, null where there is none. A panel
        without values is left out.
      held_out: the values on held-out replays, by the same names, where they are known.
      title: above the panels.

    Raises:
      ValueError: nothing to draw.
    """
    labels = {"error": LABELS["reconstruction"], "surprise": LABELS["nll"]}
    names = [name for name in labels if any(map(_is_finite, curve[name]))]
    if not names:
        raise ValueError("the curve holds no finite number")
    with _figure(path, height=0.9 + 2.0 * len(names)) as figure:
        axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axis, name in zip(axes, names, strict=True):
            points = [(at, y) for at, y in zip(curve["step"], curve[name], strict=True) if _is_finite(y)]
            steps, values = np.array(points, float).T
            marker = "o" if len(steps) == 1 else None
            axis.plot(steps, values, color=AGENT, marker=marker, label="along the agent's games")
            low, high = values.min(), values.max()
            if _is_finite(reference := held_out.get(name)):
                assert reference is not None
                axis.axhline(reference, color=HELD_OUT, linestyle=(0, (4, 3)), label="on held-out replays")
                low, high = min(low, reference), max(high, reference)
            axis.margins(x=0.02)
            if name == "error" and low > 0 and high > 8 * low:
                axis.set_yscale("log")
            axis.yaxis.set_major_formatter(_thousands())
            axis.set_ylabel(labels[name])
        axes[0].set_title(title)
        axes[-1].set_xlabel("steps of the game")
        axes[-1].xaxis.set_major_formatter(_thousands())
        _legend_below(figure, axes[0])
        figure.align_ylabels()
    return Path(path)


def throughputs(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """One panel for each case: how much every contender gets done in a second.

    Args:
      path: PNG, written whole or not at all.
      rows: each with "case", "contender", "unit" and "per_second".
    """
    cases = list(dict.fromkeys(row["case"] for row in rows))
    with _figure(path, height=0.6 + 1.6 * len(cases)) as figure:
        for axis, case in zip(figure.subplots(len(cases), 1, squeeze=False)[:, 0], cases, strict=True):
            mine = [row for row in rows if row["case"] == case]
            colours = [RANDOM if row["contender"].startswith("torch") else AGENT for row in mine]
            bars = axis.barh([row["contender"] for row in mine], [row["per_second"] for row in mine], color=colours)
            axis.bar_label(bars, [f"{row['per_second']:,.0f}" for row in mine], padding=4)
            axis.invert_yaxis()
            axis.margins(x=0.15)
            axis.set(title=case, xlabel=f"{mine[0]['unit']} a second")
            axis.xaxis.set_major_formatter(_thousands())
            axis.grid(axis="y", visible=False)
    return Path(path)


@contextmanager
def _figure(path: Path | str, height: float) -> Iterator[Figure]:
    """A figure that is saved at the end. No pyplot: it keeps global state, and a display where there is one."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.07), facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png")


def _loss_panel(axis: Axes, metrics: Sequence[Mapping[str, Any]], name: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    lowest, highest = math.inf, -math.inf
    steps, values = _series(metrics, "train", name)
    if len(steps):
        groups = np.array_split(np.arange(len(steps)), min(len(steps), _MOST_POINTS))
        middle = [steps[group].mean() for group in groups]
        mean = np.array([values[group].mean() for group in groups])
        if len(steps) > _MOST_POINTS:
            low, high = ([f(values[group]) for group in groups] for f in (np.min, np.max))
            axis.fill_between(middle, low, high, color=TRAINING, alpha=0.18, linewidth=0)
        axis.plot(middle, mean, color=TRAINING, marker="o" if len(steps) == 1 else None, label="training")
        lowest, highest = min(lowest, values.min()), max(highest, values.max())
    steps, values = _series(metrics, "test", name)
    if len(steps):
        marker = "o" if len(steps) <= 25 else None
        axis.plot(steps, values, color=HELD_OUT, linewidth=1.4, marker=marker, markersize=4, label="held out")
        lowest, highest = min(lowest, values.min()), max(highest, values.max())
    axis.margins(x=0.02)
    # A first loss far above the rest would squeeze everything after it into a flat line.
    if lowest > 0 and highest > 8 * lowest:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(_thousands())


def _measures(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measures that the records hold, in order of appearance."""
    names: dict[str, None] = {}
    for row in metrics:
        for key, value in row.items():
            name = key.removeprefix("train_").removeprefix("test_")
            if isinstance(value, int | float) and name not in _BOOKKEEPING and not name.endswith("_per_second"):
                names[name] = None
    return list(names)


def _series(metrics: Sequence[Mapping[str, Any]], kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one measure, sorted by step."""
    keys = (f"train_{name}", name) if kind == "train" else (f"test_{name}",)
    points = [(row["step"], row[key]) for row in metrics for key in keys if _is_finite(row.get(key))]
    steps, values = np.array(sorted(points), float).reshape(-1, 2).T
    return steps, values


def _population(axis: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    low_at, low = _column(history, "min")
    high_at, high = _column(history, "best")
    if np.array_equal(low_at, high_at):
        axis.fill_between(low_at, low, high, color=POPULATION, alpha=0.14, linewidth=0)
    axis.plot(high_at, high, color=POPULATION, linewidth=1, alpha=0.9, linestyle="-", label="best candidate")
    axis.plot(*_column(history, "mean"), color=POPULATION, linewidth=2.2, label="mean of the population")
    axis.plot(low_at, low, color=POPULATION, linewidth=1, alpha=0.9, linestyle=":", label="worst candidate")


def _evaluations(axis: Axes, history: Sequence[Mapping[str, Any]], key: str, color: str, label: str) -> None:
    generations, values = _column(history, key)
    if not len(generations):
        return
    errors = dict(zip(*_column(history, f"{key}_error"), strict=True))
    bars = np.array([errors.get(generation, math.nan) for generation in generations])  # NaN draws none
    many = len(generations) > 40
    axis.errorbar(
        generations,
        values,
        yerr=bars,
        color=color,
        marker="o",
        markersize=2.5 if many else 4.5,
        capsize=0 if many else 2.5,
        linewidth=1.4,
        elinewidth=0.8 if many else 1.2,
        label=label,
        zorder=3,
    )


def _column(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["generation"], row[key]) for row in history if _is_finite(row.get(key))]
    generations, values = np.array(sorted(points), float).reshape(-1, 2).T
    return generations, values


def _bins(values: np.ndarray) -> np.ndarray:
    """About 24 bins; whole-numbered edges between the integers when all scores are integers."""
    low, high = values.min(), values.max()
    if np.all(values == np.round(values)):
        width = max(1, math.ceil((high - low + 1) / 24))
        return np.arange(low - 0.5, high + width + 0.5, width)
    return np.linspace(low, high, 25) if high > low else np.array([low - 0.5, low + 0.5])


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _thousands() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: _number(value, 10))


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}g}".replace("-", "\N{MINUS SIGN}")


def _legend_below(figure: Figure, axis: Axes) -> None:
    """Outside the plot, where it hides no data."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, columnspacing=1.4)
