"""The report of a run: one HTML file that holds everything it shows, so it can be mailed, archived and opened offline.

All text is escaped; nothing is loaded from elsewhere, and a content security policy in the
file makes the browser enforce that.
"""

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
      provenance: versions, device, seed, artefact ids; values may be mappings.
      embed_limit: bytes.

    Raises:
      ValueError: a file to embed that is neither PNG, JPEG, GIF nor MP4.
    """
    folder = Path(path).parent
    sections = [
        ("Score", _headline(score, random_score, references or {}, unit, confidence)),
        ("How it was made", _chain(stages)),
        ("Play", _video(video, folder, embed_limit)),
        ("Learning to play", _figures(scores, "No plot of the scores.")),
        ("What V sees", _figures([reconstructions] if reconstructions else [], "No reconstructions.")),
        ("What V and M make of the agent's games", _figures(seen, "Not looked at.")),
        ("Learning to see and to predict", _figures(losses, "No plot of the losses.")),
        ("Settings", _settings(settings)),
        ("Provenance", _table(provenance) if provenance else _note("Not recorded.")),
    ]
    if warnings:
        items = "".join(f"<li>{escape(warning)}.</li>" for warning in warnings)
        sections.insert(0, ("Warnings", f'<ul class="warnings">{items}</ul>'))
    body = "".join(f"<section><h2>{escape(title)}</h2>{content}</section>" for title, content in sections)
    with whole_file(path) as temporary:
        temporary.write_text(_page(game, subtitle, body), encoding="utf-8")
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


def _headline(
    score: Score | None, random_score: Score | None, references: Mapping[str, float], unit: str, confidence: str
) -> str:
    if score is None:
        return _note("Not evaluated yet.")
    cards = _card("agent", "Agent", score, unit, confidence)
    if random_score is not None:
        cards += _card("random", "Random policy", random_score, unit, confidence)
    else:
        cards += _note("The random policy was not scored.")
    return f'<div class="cards">{cards}</div>{_strip(score, random_score, references)}'


def _card(kind: str, name: str, score: Score, unit: str, confidence: str) -> str:
    details = []
    if (interval := _interval(score)) is not None:
        approximate = "approximate " if score.episodes is not None and is_approximate(score.episodes) else ""
        details.append(f"{approximate}{confidence} {number(interval[0])} to {number(interval[1])}")
    if score.std is not None and math.isfinite(score.std):
        details.append(f"standard deviation {number(score.std)}")
    if score.episodes is not None:
        details.append(f"{score.episodes:,} episode{'s' * (score.episodes != 1)}")
    return (
        f'<div class="card {kind}"><h3>{escape(name)}</h3><p class="big">{number(score.mean)}'
        f"{f' <small>{escape(unit)}</small>' if unit else ''}</p>"
        f"<p>{'<br>'.join(escape(detail) for detail in details)}</p></div>"
    )


def _strip(score: Score, random_score: Score | None, references: Mapping[str, float]) -> str:
    """All scores on one axis: a dot for each mean, a bar for its interval."""
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

    lines = []
    for kind, name, row in rows:
        bar = ""
        if (interval := _interval(row)) is not None:
            low, high = map(at, interval)
            bar = f'<i style="left:{low}%;width:{high - low:.2f}%"></i>'
        lines.append(
            f'<li class="{kind}"><span>{escape(name)}</span><span class="track">'
            f'<u style="left:{at(0.0)}%"></u>{bar}<b style="left:{at(row.mean)}%"></b></span>'
            f"<span>{number(row.mean)}</span></li>"
        )
    return f'<ul class="strip" aria-label="The scores on one axis, from {number(left)}">{"".join(lines)}</ul>'


def _interval(score: Score) -> tuple[float, float] | None:
    """The confidence interval, where there is one; that of a single episode may be NaN."""
    if score.low is None or score.high is None or not math.isfinite(score.high - score.low):
        return None
    return score.low, score.high


def _chain(stages: Sequence[StageRow]) -> str:
    if not stages:
        return _note("No stage has run yet.")
    total = sum(stage.seconds or 0.0 for stage in stages)
    items = []
    for stage in stages:
        time = duration(stage.seconds) if stage.seconds is not None else "time not recorded"
        share = 100 * (stage.seconds or 0.0) / total if total else 0.0
        facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in (stage.facts or {}).items())
        items.append(
            f"<li{'' if stage.done else ' class=todo'}><h3>{escape(stage.title)}</h3>"
            f'<p class="time">{time if stage.done else "not done"}</p>'
            f'<p class="share" aria-hidden="true"><i style="width:{share:.1f}%"></i></p>'
            f"{f'<dl>{facts}</dl>' if facts else ''}</li>"
        )
    return f'<ol class="chain">{"".join(items)}</ol>{_note(f"In all {duration(total)}.") if total else ""}'


def _video(video: Media | None, folder: Path, embed_limit: int) -> str:
    if video is None:
        return _note("No video.")
    if not video.path.is_file():
        return _note(f"The video is missing: {video.path.name}.")
    caption = f"<figcaption>{escape(video.caption)}</figcaption>" if video.caption else ""
    size = video.path.stat().st_size
    if size > embed_limit:
        link = quote(Path(os.path.relpath(video.path.absolute(), folder.absolute())).as_posix())
        what = f"{escape(video.alt)} ({size / 1e6:,.0f} MB, beside this report)"
        return f'<figure class="link"><p><a href="./{link}">{what}</a></p>{caption}</figure>'
    return (
        f'<figure><video controls loop muted playsinline preload="metadata" aria-label="{escape(video.alt)}" '
        f'src="{_data(video.path)}"></video>{caption}</figure>'
    )


def _figures(media: Sequence[Media], note: str) -> str:
    """Pictures side by side where there is room; full width when there is one."""
    parts = []
    for picture in media:
        if not picture.path.is_file():
            parts.append(_note(f"A picture is missing: {picture.path.name}."))
            continue
        caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
        parts.append(f'<figure><img alt="{escape(picture.alt)}" src="{_data(picture.path)}">{caption}</figure>')
    return f'<div class="figures">{"".join(parts)}</div>' if parts else _note(note)


def _settings(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return _note("Not recorded.")
    alone = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    tables = _table(alone) if alone else ""
    for name, section in settings.items():
        if isinstance(section, Mapping):
            tables += f"<div><h3>{escape(str(name))}</h3>{_table(section)}</div>"
    return f'<details><summary>All settings</summary><div class="settings">{tables}</div></details>'


def _table(values: Mapping[str, Any]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(str(key))}</th><td>{_text(v)}</td></tr>' for key, v in values.items())
    return f"<table><tbody>{rows}</tbody></table>"


def _text(value: Any) -> str:
    """Any value as escaped text: mappings and sequences flat, numbers with thousands apart."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(key))} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    return escape(str(value))


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _data(path: Path) -> str:
    kind = _TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path.name}: can embed {', '.join(_TYPES)} only")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _page(game: str, subtitle: str, body: str) -> str:
    title = escape(game)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:; \
style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title} - world model</title>
<style>{_CSS}</style>
</head>
<body>
<header><p>World model</p><h1>{title}</h1><p>{escape(subtitle)}</p></header>
<main>{body}</main>
</body>
</html>
"""


_CSS = """
:root { --ink: #22262d; --soft: #626a76; --line: #e1e4e8; --paper: #fbfbfa; --card: #ffffff; --agent: #1f5fa8;
  --random: #80868f; --tint: #e9f0f8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e8ed; --soft: #9aa3b0; --line: #32373f; --paper: #16181c;
  --card: #1f2228; --agent: #76aee8; --random: #8f96a1; --tint: #223041 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
header, main { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem }
header { padding-top: 2.5rem }
header p { margin: 0; color: var(--soft) }
h1 { margin: 0; font-size: clamp(1.9rem, 6vw, 3rem); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere }
h2 { margin: 2.75rem 0 .9rem; font-size: 1.2rem }
h3 { margin: 0; font-size: 1rem }
p { margin: 0 }
a { color: var(--agent) }
main { padding-bottom: 4rem }
.note { color: var(--soft) }
.warnings { margin: 0; padding: .9rem 1.3rem .9rem 2.3rem; border-left: .3rem solid #c2571a; border-radius: .3rem;
  background: var(--card) }
.cards { display: flex; flex-wrap: wrap; gap: 1rem }
.card { flex: 1 1 17rem; padding: 1.1rem 1.3rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; color: var(--soft) }
.card.agent { background: var(--tint); border-color: transparent }
.card h3 { font-weight: 600 }
.big { font-size: 3rem; font-weight: 650; line-height: 1.15; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; color: var(--random) }
.agent .big { color: var(--agent) }
.big small { font-size: 1rem; font-weight: 400; letter-spacing: 0; color: var(--soft) }
.strip { list-style: none; margin: 1.2rem 0 0; padding: 0 .3rem }
.strip li { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr 4.5rem; gap: .8rem; align-items: center;
  color: var(--random); font-size: .95rem }
.strip li.agent { color: var(--agent); font-weight: 600 }
.strip li > span:last-child { text-align: right; font-variant-numeric: tabular-nums }
.track { position: relative; height: 1.7rem;
  background: linear-gradient(var(--line), var(--line)) center / 100% 1px no-repeat }
.track > * { position: absolute; top: 50%; transform: translateY(-50%); background: currentColor }
.track u { width: 1px; height: 100%; background: var(--line) }
.track i { height: .5rem; border-radius: .25rem; opacity: .35 }
.track b { width: .8rem; height: .8rem; margin-left: -.4rem; border-radius: 50% }
.reference .track b { background: var(--paper); border: 2px solid currentColor }
.chain { list-style: none; margin: 0 0 .7rem; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(9.2rem, 1fr)) }
.chain li { padding: .8rem .9rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem }
.chain li.todo { opacity: .6; border-style: dashed }
.time { font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums }
.share { height: .3rem; margin: .35rem 0 .5rem; background: var(--line); border-radius: .15rem; overflow: hidden }
.share i { display: block; height: 100%; background: var(--agent) }
dl { margin: 0; font-size: .85rem }
dl div { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .6rem }
dt { color: var(--soft) }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.figures { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
figure { margin: 0; padding: .7rem; background: #fff; border: 1px solid var(--line); border-radius: .6rem;
  overflow: hidden }
figure img, figure video { display: block; max-width: 100%; height: auto; margin: 0 auto }
figure video { width: 100%; max-width: 54rem; background: #16181c; border-radius: .3rem }
figcaption, figure p { padding: .5rem .3rem 0; font-size: .9rem; color: #626a76 }
figure:has(video), figure.link { background: var(--card) }
figure:has(video) figcaption, .link figcaption { color: var(--soft) }
summary { cursor: pointer; color: var(--agent) }
.settings { columns: 22rem; column-gap: 2rem; margin-top: 1rem }
.settings > * { break-inside: avoid; margin-bottom: 1.2rem }
section > table { max-width: 44rem }
table { width: 100%; border-collapse: collapse; font-size: .9rem }
th, td { padding: .28rem .5rem .28rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere }
th { width: 45%; font-weight: 400; color: var(--soft) }
@media print { body { background: #fff } section { break-inside: avoid } video { display: none } }
"""
