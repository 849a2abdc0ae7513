"""The report of a run: one HTML file that holds everything it shows, so it can be mailed, archived and opened offline.

This module prepares what there is to show, and the files in `templates/` show it. All text is escaped; nothing is
loaded from elsewhere, and a content security policy in the file makes the browser enforce that.
"""

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wm_jax.evaluation.statistics import is_approximate
from wm_jax.render import whole_file

EMBED_LIMIT_BYTES = 25_000_000
"""A video above this is linked rather than embedded, for base64 adds a third and browsers slow down."""

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Score:
    """A mean over episodes, with its confidence interval [low, high] where there is one."""

    mean: float
    low: float | None = None
    high: float | None = None
    std: float | None = None
    episodes: int | None = None


@dataclass(frozen=True)
class StageRow:
    """One link in the chain. `facts` are shown as they are: {"episodes": 10000, "frames": "9.4 M"}."""

    title: str
    seconds: float | None = None
    facts: Mapping[str, Any] | None = None
    done: bool = True


@dataclass(frozen=True)
class Media:
    """A picture or a video: the file, what it shows in words (for who can't see it), and a caption."""

    path: Path
    alt: str
    caption: str = ""


def write_report(
    path: Path | str,
    *,
    game: str,
    subtitle: str = "",
    score: Score | None = None,
    random_score: Score | None = None,
    warnings: Sequence[str] = (),
    references: Mapping[str, float] | None = None,
    unit: str = "",
    confidence: str = "95 % interval",
    stages: Sequence[StageRow] = (),
    scores: Sequence[Media] = (),
    video: Media | None = None,
    reconstructions: Media | None = None,
    seen: Sequence[Media] = (),
    losses: Sequence[Media] = (),
    settings: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    embed_limit: int = EMBED_LIMIT_BYTES,
) -> Path:
    """Write the report, whole or not at all. A part that is not given, or whose file is missing, becomes a plain note.

    Args:
      path: the HTML file.
      game: the game's title, the heading.
      subtitle: one line under it (preset, seed, date).
      score: the agent's, the headline.
      random_score: the random policy's on the same episodes.
      warnings: sentences that come before everything else.
      references: named scores to compare with, such as {"solved": 900}.
      unit: what the score counts, such as "cars passed".
      confidence: what [low, high] of the scores is.
      stages: in the order in which they ran.
      scores: plots of scores (history, histogram).
      video: the agent playing; linked by relative path above `embed_limit` bytes.
      reconstructions: V's sheet.
      seen: what V and M make of the agent's own games.
      losses: loss plots.
      settings: nested mapping, shown folded, one table for each section.
      provenance: versions, device, seed, artifact ids; values may be mappings.
      embed_limit: bytes.

    Raises:
      ValueError: a file to embed that is neither PNG, JPEG, GIF nor MP4.
    """
    folder = Path(path).parent
    total = sum(stage.seconds or 0.0 for stage in stages)
    page = templates().get_template("report.html")
    html = page.render(
        game=game,
        subtitle=subtitle,
        warnings=warnings,
        cards=_cards(score, random_score, confidence) if score else [],
        axis=_axis(score, random_score, references or {}) if score else None,
        unit=unit,
        stages=_stages(stages, total),
        total=duration(total) if total else "",
        scores=figures_of(scores, folder),
        video=_figure(video, folder, embed_limit) if video else None,
        reconstructions=figures_of([reconstructions] if reconstructions else [], folder),
        seen=figures_of(seen, folder),
        losses=figures_of(losses, folder),
        settings=_settings(settings or {}),
        provenance=provenance,
    )
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return Path(path)


def duration(seconds: float) -> str:
    """Seconds as people say it: 4.2 s, 3 min 5 s, 2 h 7 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        whole, rest = divmod(round(seconds / small), size // small)
        if whole:
            return f"{whole} {unit} {rest} {small_unit}" if rest else f"{whole} {unit}"
    return "1 min"


def number(value: float) -> str:
    """A score with as many decimals as its size deserves (none for an int), thousands apart, a real minus sign."""
    decimals = 0 if isinstance(value, int) or abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class _Card:
    """A score in words. `kind` chooses its colour."""

    kind: str
    name: str
    score: str
    details: Sequence[str]


def _cards(score: Score, random_score: Score | None, confidence: str) -> list[_Card]:
    """The agent's card, and the random policy's if it was scored."""
    named = [("agent", "Agent", score)]
    if random_score is not None:
        named.append(("random", "Random policy", random_score))
    return [_Card(kind, name, number(each.mean), _details(each, confidence)) for kind, name, each in named]


def _details(score: Score, confidence: str) -> list[str]:
    details = []
    if (interval := _interval(score)) is not None:
        approximate = "approximate " if score.episodes is not None and is_approximate(score.episodes) else ""
        details.append(f"{approximate}{confidence} {number(interval[0])} to {number(interval[1])}")
    if score.std is not None and math.isfinite(score.std):
        details.append(f"standard deviation {number(score.std)}")
    if score.episodes is not None:
        details.append(f"{score.episodes:,} episode{'s' * (score.episodes != 1)}")
    return details


@dataclass(frozen=True)
class _Mark:
    """A score on the axis: a dot for its mean, and (left, width) of a bar for its interval, in per cent of the axis."""

    kind: str
    name: str
    score: str
    dot: float
    bar: tuple[float, float] | None


@dataclass(frozen=True)
class _Axis:
    """All scores on one axis: the score at its left end, where zero lies in per cent, and the marks."""

    left: str
    zero: float
    marks: Sequence[_Mark]


def _axis(score: Score, random_score: Score | None, references: Mapping[str, float]) -> _Axis:
    rows = [("agent", "agent", score)]
    if random_score is not None:
        rows.append(("random", "random", random_score))
    rows += [("reference", name, Score(value)) for name, value in references.items()]
    rows = [row for row in rows if math.isfinite(row[2].mean)]
    ends = [0.0]
    for _, _, row in rows:
        ends += [row.mean, *(_interval(row) or ())]
    left, span = min(ends), (max(ends) - min(ends)) or 1.0

    def at(value: float) -> float:
        return round(2 + 96 * (value - left) / span, 2)

    def bar(row: Score) -> tuple[float, float] | None:
        if (interval := _interval(row)) is None:
            return None
        low, high = map(at, interval)
        return low, high - low

    marks = [_Mark(kind, name, number(row.mean), at(row.mean), bar(row)) for kind, name, row in rows]
    return _Axis(number(left), at(0.0), marks)


def _interval(score: Score) -> tuple[float, float] | None:
    """The confidence interval, where there is one; that of a single episode may be NaN."""
    if score.low is None or score.high is None or not math.isfinite(score.high - score.low):
        return None
    return score.low, score.high


@dataclass(frozen=True)
class _Stage:
    """A stage as it is shown. `share` is its part of the time of all, in per cent."""

    title: str
    time: str
    share: float
    facts: Mapping[str, Any]
    done: bool


def _stages(stages: Sequence[StageRow], total: float) -> list[_Stage]:
    shown = []
    for stage in stages:
        time = duration(stage.seconds) if stage.seconds is not None else "time not recorded"
        share = 100 * (stage.seconds or 0.0) / total if total else 0.0
        shown.append(_Stage(stage.title, time if stage.done else "not done", share, stage.facts or {}, stage.done))
    return shown


@dataclass(frozen=True)
class _Figure:
    """A picture or a video as it is shown: embedded (`source`), linked (`link`), or missing (neither)."""

    name: str
    alt: str
    caption: str
    source: str = ""
    link: str = ""
    megabytes: str = ""


def figures_of(media: Sequence[Media], folder: Path) -> "list[_Figure]":
    """Pictures as a page in this folder shows them."""
    return [_figure(each, folder) for each in media]


def _figure(media: Media, folder: Path, embed_limit: float = math.inf) -> _Figure:
    figure = _Figure(media.path.name, media.alt, media.caption)
    if not media.path.is_file():
        return figure
    size = media.path.stat().st_size
    if size <= embed_limit:
        return replace(figure, source=_data(media.path))
    relative = Path(os.path.relpath(media.path.absolute(), folder.absolute())).as_posix()
    return replace(figure, link=f"./{quote(relative)}", megabytes=f"{size / 1e6:,.0f}")


def _data(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path.name}: can embed {', '.join(_TYPES)} only")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _settings(settings: Mapping[str, Any]) -> Sequence[tuple[str | None, Mapping[str, Any]]]:
    """One table for each section, with its name; first, without a name, what stands in no section."""
    alone = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    sections = [(str(name), section) for name, section in settings.items() if isinstance(section, Mapping)]
    return [(None, alone), *sections] if alone else sections


def _plain(value: Any) -> str:
    """The text of a value that is no mapping and no sequence: numbers with thousands apart, yes and no."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


@cache
def templates() -> Environment:
    """The folder beside this file. What a template shows is escaped, and a name that it isn't given is an error."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["plain"] = _plain
    # Jinja's own test for sequences holds for strings, too.
    templates.tests["listed"] = lambda value: isinstance(value, list | tuple)
    return templates
