"""The parts of the check, as tables: what is measured, and the bars that it has to meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

from wm_jax.distributed.progress import Progress
from wm_jax.envs.car_racing.track import bank
from wm_jax.run.artifacts import Trained
from wm_jax.tools.fidelity import motion, pictures, returns, seeing, sheet, speed
from wm_jax.tools.fidelity.figures import Figure, Table
from wm_jax.tools.fidelity.reference import STYLES, Style, record

ONE_STEP = 2e-4
"""Largest error of positions and angles after one step, in u and rad."""
DRIFT: Mapping[Style, float] = {"random": 0.002, "following": 0.002, "fast": 0.05, "racing": 0.05}
"""Of a style, the median error of the position after 200 steps, in u."""
SAME = 0.97
"""Share of the steps with the same number of visited tiles, and of those with the same reward."""
FRAMES = {"near": (0.5, 0.001), "zooming": (1.0, 0.005)}
"""Of a phase: mean absolute difference in levels, and share of pixels that are off by more than 32."""
WORSE = 1.1
"""Error of V's reconstructions of Gymnasium's frames, over that of ours, on which it was trained."""
CORRELATION, OFF = 0.95, 0.05
"""Of returns: Pearson's correlation, and the mean difference as a share of their range."""
FASTER = {"x Gymnasium": 20.0, "x EnvPool": 3.0}
"""Of ours with frames, on two cores of a CPU."""
LAP_STEPS, DRIFT_STEPS = 2600, 200


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    seeds: of tracks; styles: of driving; steps: of recordings.
    laps: tracks that are driven round; photographs: after so many steps.
    episodes: of each of the policies, on tracks from the first seed on, with so many steps at most.
    judges_speed: are there bars for it?
    """

    seeds: range
    styles: Sequence[Style] = STYLES
    steps: int = 700
    laps: int = 3
    photographs: tuple[int, ...] = (0, 1, 3, 6, 10, 15, 20, 30, 40, 49, 55, 80, 120, 160, 200, 250, 300)
    episodes: int = 100
    episode_steps: int = returns.STEPS
    policies: Sequence[str] = tuple(returns.POLICIES)
    timed: speed.Size = field(default_factory=speed.Size)
    judges_speed: bool = True


def measure_motion(sizes: Sizes) -> list[Table]:
    """One step from Gymnasium's states, hundreds without correction, and whole laps."""
    laps = sizes.seeds[: sizes.laps] if "following" in sizes.styles else range(0)
    tracks = bank(sizes.seeds)
    single: dict[str, dict[str, Figure]] = {}
    many: dict[str, dict[str, Figure]] = {}
    with Progress("motion", len(sizes.styles) * len(sizes.seeds) + len(laps), "drive") as progress:

        def gathered(style: Style, seeds: Sequence[int], steps: int) -> motion.Batch:
            drives = []
            for seed in seeds:
                drives.append(record(seed, style, steps))
                progress.advance(1)
            return motion.gather(drives, steps)

        for style in sizes.styles:
            batch = gathered(style, sizes.seeds, sizes.steps)
            single[style] = _one_step(motion.one_step(tracks, batch))
            many[style] = _drift(motion.drift(tracks, batch), sizes.steps, DRIFT.get(style))
        title = f"One step from each state of Gymnasium's ({_seeds(sizes.seeds)}): largest errors, shares that differ"
        tables = [Table("motion", "one step", title, single)]
        title = f"{sizes.steps} steps with the same actions, without correction ({_seeds(sizes.seeds)})"
        tables.append(Table("motion", "drift", title, many))
        if laps:
            batch = gathered("following", laps, LAP_STEPS)
            row = {"lap ended": Figure(float(batch.terminated.mean()), ".0%", 1.0, above=True)}
            row |= _drift(motion.drift(bank(laps), batch), LAP_STEPS)
            title = f"Once round the track, until the lap ends the game ({_seeds(laps)})"
            tables.append(Table("motion", "lap", title, {"following": row}))
    return tables


def measure_pictures(sizes: Sizes, path: Path | None) -> list[Table]:
    """Frames of the same states; and the sheet, if a path is given for it."""
    with Progress("pictures", len(sizes.styles) + 1, "album") as progress:
        albums = _albums(sizes, progress)
        colourful = pictures.photograph("racing", sizes.seeds, sizes.photographs, colourful=True)
        progress.advance(1)
    found = {style: pictures.compare(album) for style, album in albums.items()}
    found["random colours"] = pictures.compare(colourful)
    whole = pictures.Album.bound(list(albums.values()))
    regions = pictures.compare(whole)
    observed = {"zooming": whole.zooming, "near": ~whole.zooming}
    tables = []
    for phase, title in (("near", "after the first second"), ("zooming", "while the camera comes near")):
        rows = {name: _pixels(each[phase]["all"], FRAMES[phase]) for name, each in found.items() if phase in each}
        if observed[phase].any():
            seen = pictures.observations_differ(whole.only(observed[phase]))
            rows["observations, rows 0..83"] = _pixels(seen, FRAMES[phase])
        title = f"Frames of the same states, {title}, in levels of 255 ({_seeds(sizes.seeds)})"
        tables.append(Table("pictures", phase, title, rows))
    for phase, each in sorted(regions.items()):
        rows = {name: {"of all": Figure(part.share, ".1%")} | _pixels(part) for name, part in each.items()}
        tables.append(Table("pictures", f"regions, {phase}", f"The same by region, {phase}, all styles together", rows))
    if path is not None:
        styles = [style for style, album in albums.items() for _ in album.seeds]
        sheet.draw(path, whole, styles)
    return tables


def measure_seeing(sizes: Sizes, vae: Trained) -> list[Table]:
    """Reconstructions of frames of the same states."""
    with Progress("seeing", len(sizes.styles), "album") as progress:
        albums = _albums(sizes, progress)
    seen = {style: (seeing.see(vae, album.frames()), seeing.see(vae, album.ours())) for style, album in albums.items()}
    rows = {name: _eyesight(*pair, np.ones(len(pair[0].errors), bool)) for name, pair in seen.items()}
    theirs, ours = (
        seeing.Seen(*map(np.concatenate, zip(*(pair[side] for pair in seen.values()), strict=True))) for side in (0, 1)
    )
    zooming = np.concatenate([album.zooming for album in albums.values()])
    for name, chosen in (("all, camera far away", zooming), ("all, after the first second", ~zooming)):
        if chosen.any():
            rows[name] = _eyesight(theirs, ours, chosen)
    rows["all"] = _eyesight(theirs, ours, np.ones(len(zooming), bool))
    rows["all"]["ratio"] = replace(rows["all"]["ratio"], bar=WORSE)
    title = f"V trained on our frames, on pictures of the same states ({_seeds(sizes.seeds)})"
    remark = (
        f"V {vae.digest[:12]}; errors: squared, summed over 12,288 values in [0, 1]\n"
        "  apart: root mean square distance of z, in standard deviations of V's posterior"
    )
    return [Table("seeing", "seeing", title, rows, remark)]


def measure_returns(sizes: Sizes) -> list[Table]:
    """Episodes of the same policies on both sides."""
    seeds = range(sizes.seeds.start, sizes.seeds.start + sizes.episodes)
    policies = {name: returns.POLICIES[name] for name in sizes.policies}
    with Progress("returns", len(policies) * len(seeds), "episode") as progress:
        pairs = returns.compare(policies, seeds, sizes.episode_steps, progress.advance)
    whole = returns.Agreement.of(list(pairs.values()))
    each = {name: returns.Agreement.of([pair]) for name, pair in pairs.items()}
    rows = {name: _agreement(found, whole.span) for name, found in each.items()}
    rows["all"] = _agreement(whole, whole.span) | {
        "off": Figure(whole.difference / whole.span, ".2%", OFF),
        "correlation": Figure(whole.correlation, ".4f", CORRELATION, above=True),
        "ends": Figure(whole.ended, ".2%"),  # no bar: which of two slides past a tile depends on the last bit
    }
    worst = max(abs(found.ours - found.theirs) for found in each.values()) / whole.span
    rows["all"]["means off"] = Figure(worst, ".2%", OFF)
    title = f"Returns of {len(policies)} policies, {len(seeds)} episodes each ({_seeds(seeds)})"
    remark = (
        f"off: mean absolute difference of a pair's returns, as a share of their range in Gymnasium, {whole.span:.0f}\n"
        "  means off: the same of the policies' mean returns; one tile: pairs that differ by less than it earns\n"
        "  ends: pairs in which the game ends both or neither; steps: in the same step"
    )
    tables = [Table("returns", "returns", title, rows, remark)]
    nudged = {name: replace(p, ours=p.nudged) for name, p in pairs.items() if p.nudged is not None}
    if nudged:
        rows = {name: _agreement(returns.Agreement.of([pair]), whole.span, "nudged") for name, pair in nudged.items()}
        title = f"Gymnasium beside itself with the wheel turned by {returns.NUDGE:g} more, where ours differs from it"
        tables.append(Table("returns", "nudged", title, rows))
    return tables


def measure_speed(sizes: Sizes) -> list[Table]:
    """Steps a second."""
    found = speed.measure(sizes.timed)
    rows: dict[str, dict[str, Figure]] = {}
    for name, each in found.items():
        rows[name] = {"steps/s": Figure(each.per_second, ",.0f"), "spread": Figure(each.spread, ".0%")}
        if name.endswith(speed.BLIND):  # the others draw: a ratio would compare other work
            continue
        bars = FASTER if sizes.judges_speed and name.startswith("ours") else {}
        ratios = {"x Gymnasium": each.gymnasium, "x EnvPool": each.envpool}
        rows[name] |= {column: Figure(value, ",.2f", bars.get(column), above=True) for column, value in ratios.items()}
    title = f"Steps with 64 x 64 frames, medians of {sizes.timed.rounds} alternating rounds; bars are for two cores"
    return [Table("speed", "speed", title, rows)]


def _albums(sizes: Sizes, progress: Progress) -> dict[Style, pictures.Album]:
    albums = {}
    for style in sizes.styles:
        albums[style] = _photographed(style, sizes.seeds, sizes.photographs)
        progress.advance(1)
    return albums


@cache
def _photographed(style: Style, seeds: range, steps: tuple[int, ...]) -> pictures.Album:
    """Two parts look at the same albums."""
    return pictures.photograph(style, seeds, steps)


def _one_step(found: motion.OneStep) -> dict[str, Figure]:
    units = {"position": "u", "angle": "rad", "joint_angles": "rad"}
    row = {"steps": Figure(found.steps, ",")}
    for name, spread in found.errors.items():
        bar = ONE_STEP if name in units else None
        row[name.replace("_", " ")] = Figure(spread.largest, ".1e", bar)
    differ = {name: Figure(getattr(found, name), ".3%") for name in ("contacts", "visits", "rewards")}
    return row | differ | {"ends": Figure(1.0 - found.ends, ".0%", 1.0, above=True)}


def _drift(found: motion.Drift, steps: int, bar: float | None = None) -> dict[str, Figure]:
    row: dict[str, Figure] = {}
    if DRIFT_STEPS in found.positions:
        median, worst = found.positions[DRIFT_STEPS]
        row |= {f"median after {DRIFT_STEPS}": Figure(median, ".1e", bar), "worst": Figure(worst, ".1e")}
    last = max(each for each in motion.CHECKPOINTS if each <= steps)
    if last > DRIFT_STEPS and last in found.positions:
        row[f"median after {last}"] = Figure(found.positions[last][0], ".1e")
    return row | {
        "visited equal": Figure(found.touched, ".2%", SAME, above=True),
        "rewards equal": Figure(found.rewards, ".2%", SAME, above=True),
        "ends equal": Figure(found.ends, ".0%", 1.0, above=True),
        "returns off by": Figure(found.returns, ".2f"),
    }


def _pixels(found: pictures.Difference, bars: tuple[float | None, float | None] = (None, None)) -> dict[str, Figure]:
    return {
        "mean": Figure(found.mean, ".3f", bars[0]),
        f"over {pictures.NOTICEABLE}": Figure(found.noticeable, ".2%"),
        f"over {pictures.WRONG}": Figure(found.wrong, ".4%", bars[1]),
        "largest": Figure(found.largest, "d"),
    }


def _eyesight(theirs: seeing.Seen, ours: seeing.Seen, chosen: np.ndarray) -> dict[str, Figure]:
    found = seeing.Eyesight.of(theirs, ours, chosen)
    return {
        "Gymnasium's": Figure(found.theirs, ".2f"),
        "ours": Figure(found.ours, ".2f"),
        "ratio": Figure(found.theirs / found.ours, ".4f"),
        "apart": Figure(found.apart, ".2f"),
    }


def _agreement(found: returns.Agreement, span: float, side: str = "ours") -> dict[str, Figure]:
    return {
        "Gymnasium": Figure(found.theirs, ",.1f"),
        side: Figure(found.ours, ",.1f"),
        "off": Figure(found.difference / span, ".2%"),
        "means off": Figure(abs(found.ours - found.theirs) / span, ".2%"),
        "one tile": Figure(found.within_tile, ".1%"),
        "correlation": Figure(found.correlation, ".4f"),
        "ends": Figure(found.ended, ".1%"),
        "steps": Figure(found.lengths, ".1%"),
    }


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}..{seeds[-1]}"
