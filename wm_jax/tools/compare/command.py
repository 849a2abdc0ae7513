"""compare_vaes: which auto-encoder does a game need? All train on the same frames for the same time.

    bin/compare_vaes --game chaser --variants vanilla,vq,vanilla+encoder=grid --budget 3

Each lies in a run of its own beside the game's (`RUN/named/compare-NAME-SEED`), so that it can be looked at, or gone on
with. `RUN/comparison/` has what was found: `report.html`, `results.json`, and a file for each trial, by which the same
command goes on where it was.
"""

import argparse
from pathlib import Path
from typing import Any

from wm_jax.config.schema import Config
from wm_jax.distributed.progress import log
from wm_jax.envs.games import find
from wm_jax.render.comparison import Contender, write_comparison
from wm_jax.render.report import Media
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.run.provenance import now
from wm_jax.tools.compare import ranking
from wm_jax.tools.compare.candidates import Candidate, parse
from wm_jax.tools.compare.columns import COLUMNS
from wm_jax.tools.compare.held_out import held_out
from wm_jax.tools.compare.probing import exposed_state
from wm_jax.tools.compare.trial import Trial
from wm_jax.utils.errors import UsageError
from wm_jax.utils.files import plain, write_manifest

FOLDER = "comparison"


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure all candidates; returns the ranking, and where the report is."""
    candidates = accept(config, options)
    folder = run.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    unseen = held_out(config, folder / "held-out", stop)
    exposed = exposed_state(config, folder / "exposed.npz")
    log(f"compare_vaes: {len(unseen.frames):,} held-out frames of {unseen.episodes:,} episodes")

    def trial(candidate: Candidate, seed: int) -> Trial:
        return Trial(candidate, seed, config, run, folder, options.budget)

    found = []
    for candidate in candidates:
        found.append(trial(candidate, 0).see_and_predict(unseen, exposed, stop))
        _write(config, run, found, options)
    named = {candidate.name: candidate for candidate in candidates}
    leaders = [named[name] for name in ranking.best(found, options.leaders)]
    for leader in leaders:
        for seed in range(1, options.seeds):
            found.append(trial(leader, seed).see_and_predict(unseen, exposed, stop))
            _write(config, run, found, options)
    if options.generations:
        for leader in leaders:
            scored = trial(leader, 0).act(options.generations, options.episodes, stop)
            found = [scored if _is_same(each, scored) else each for each in found]
            _write(config, run, found, options)
    return _write(config, run, found, options)


def accept(config: Config, options: argparse.Namespace) -> list[Candidate]:
    """The candidates, with the settings tried before anything is played.

    Raises:
      UsageError: a number that makes no sense, or a candidate that does not exist.
    """
    for name, least in (("budget", 0.01), ("seeds", 1), ("leaders", 0), ("generations", 0), ("episodes", 1)):
        if not getattr(options, name) >= least:
            raise UsageError(f"--{name} {getattr(options, name):g}: give {least:g} or more")
    candidates = parse(options.variants)
    for candidate in candidates:
        candidate.config(config, frames="replays")
    return candidates


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["candidate"], one["seed"]) == (other["candidate"], other["seed"])


def _write(config: Config, run: Run, found: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """The report as far as it is known, whole or not at all."""
    rows = ranking.table(found)
    said, agrees = ranking.advice(rows), ranking.predictors(rows)
    folder = run.path / FOLDER
    results = {
        "game": config.game,
        "budget_minutes": options.budget,
        "advice": said,
        "ranking": [row._asdict() for row in rows],
        "predictors": agrees,
        "trials": found,
    }
    write_manifest(folder / "results.json", plain(results), indent=1)
    write_comparison(
        folder / "report.html",
        game=find(config.game, config.env).title,
        subtitle=f"{len(rows)} auto-encoders, {options.budget:g} minutes each, {now()}",
        advice=said,
        columns=COLUMNS,
        contenders=[_contender(row, found, folder) for row in rows],
        predictors=agrees,
        settings=config.vae.model_dump(),
    )
    return {
        "candidates": len(rows),
        "best": rows[0].name,
        "moving_error": rows[0].figures.get(ranking.RANKED_BY),
        "advice": said[0],
        "report": str(folder / "report.html"),
    }


def _contender(row: ranking.Row, found: list[dict[str, Any]], folder: Path) -> Contender:
    """A row of the table with its first trial's pictures."""
    trial = next(each for each in found if each["candidate"] == row.name)
    path = folder / Candidate(row.name, trial["settings"]).folder(trial["seed"])
    pictures = [
        Media(Path(f"{path}.png"), f"Held-out frames above what {row.name} makes of them", "Real above decoded."),
        Media(
            Path(f"{path}-traversals.png"),
            f"One frame, with one number of {row.name}'s z changed along each row",
            "One number of z changes along each row: those that vary most.",
        ),
        Media(Path(f"{path}-samples.png"), f"Pictures drawn from {row.name}'s prior", "Drawn without a frame."),
    ]
    return Contender(row.name, row.seeds, row.figures, row.spread, pictures)
