"""compare_vaes: which auto-encoder does a game need? All train on the same frames for the same time.

    bin/compare_vaes --game chaser --variants vanilla,vq,vanilla+encoder=grid --budget 3

Each lies in a run of its own beside the game's (`RUN/named/compare-NAME-SEED`), so that it can be looked at, or gone on
with. `RUN/comparison/` has what was found: `report.html`, `results.json`, `results.md`, and a file for each trial, by
which the same command goes on where it was.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from wm_jax.config.schema import Config
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed import processes
from wm_jax.distributed.progress import log
from wm_jax.envs.games import find
from wm_jax.models.vae import make_vae
from wm_jax.render.comparison import Entry, write_comparison
from wm_jax.render.report import Media
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.run.provenance import now
from wm_jax.tools.compare import ranking
from wm_jax.tools.compare.columns import COLUMNS
from wm_jax.tools.compare.contenders import Contender, parse
from wm_jax.tools.compare.held_out import held_out
from wm_jax.tools.compare.pace import Pace
from wm_jax.tools.compare.probing import exposed_state
from wm_jax.tools.compare.trial import Trial
from wm_jax.utils.errors import UsageError, UserError
from wm_jax.utils.files import plain, write_atomically, write_manifest

FOLDER = "comparison"


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure all contenders; returns the ranking, and where the report is.

    A contender that fails, such as by a loss that is no longer finite, is left out, and the page says why.

    Raises:
      UserError: all of them fail, or what is there was made otherwise.
    """
    contenders = accept(config, options)
    folder = run.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    unseen = held_out(config, folder / "held-out", stop)
    exposed = exposed_state(config, folder / "exposed.npz")
    log(f"compare_vaes: {len(unseen.frames):,} held-out frames of {unseen.episodes:,} episodes")
    pace = Pace(ReplayStore.open(run.stage("replays").path), folder / "reference.json")
    found: list[dict[str, Any]] = []
    failed: dict[str, str] = {}

    def trial(contender: Contender, seed: int) -> Trial:
        return Trial(contender, seed, config, run, folder, options.budget, pace)

    def measured(contender: Contender, seed: int) -> None:
        try:
            found.append(trial(contender, seed).train_and_measure(unseen, exposed, stop))
        except UserError as error:
            failed[f"{contender.name}, seed {seed}"] = str(error)
            log(f"compare_vaes: {contender.name}, seed {seed}, is left out: {error}")
            if not found and len(failed) == len(contenders):
                raise
        else:
            _write(config, run, found, failed, options)

    for contender in contenders:
        measured(contender, 0)
    named = {contender.name: contender for contender in contenders}
    leaders = [named[name] for name in ranking.best(found, options.leaders)]
    for leader in leaders:
        for seed in range(1, options.seeds):
            measured(leader, seed)
    if options.generations:
        for leader in leaders:
            try:
                scored = trial(leader, 0).train_controller(options.generations, options.episodes, stop)
            except UserError as error:
                failed[f"the controller of {leader.name}"] = str(error)
                log(f"compare_vaes: the controller of {leader.name} is left out: {error}")
            else:
                found = [scored if _is_same(each, scored) else each for each in found]
            _write(config, run, found, failed, options)
    return _write(config, run, found, failed, options)


def accept(config: Config, options: argparse.Namespace) -> list[Contender]:
    """The contenders, each tried on shapes before anything is played.

    Raises:
      UsageError: a number that makes no sense, or a contender that does not exist.
      UserError: the settings of one make no auto-encoder.
    """
    for name, least in (("budget", 0.01), ("seeds", 1), ("leaders", 0), ("generations", 0), ("episodes", 1)):
        if not getattr(options, name) >= least:
            raise UsageError(f"--{name} {getattr(options, name):g}: give {least:g} or more")
    if processes.count() > 1:
        raise UsageError("--hosts: compare_vaes works in one process; leave these settings out")
    contenders = parse(options.variants)
    for contender in contenders:
        settings = contender.config(config, frames="replays").vae
        try:
            jax.eval_shape(lambda settings=settings: nnx.state(make_vae(settings, nnx.Rngs(0))))
        except UserError as error:
            raise UserError(f"--variants {contender.name}: {error}") from None
    return contenders


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["contender"], one["seed"]) == (other["contender"], other["seed"])


def _write(
    config: Config, run: Run, found: list[dict[str, Any]], failed: dict[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    """The report as far as it is known, whole or not at all."""
    rows = ranking.table(found)
    said, agrees = ranking.advice(rows), ranking.predictors(rows)
    titles = {column.key: column.title for column in COLUMNS}
    folder = run.path / FOLDER
    results = {
        "game": config.game,
        "budget_minutes": options.budget,
        "advice": said,
        "ranking": [row._asdict() for row in rows],
        "predictors": agrees,
        "trials": found,
        "failed": failed,
    }
    write_manifest(folder / "results.json", plain(results), indent=1)
    write_atomically(folder / "results.md", ranking.as_markdown(rows).encode())
    write_comparison(
        folder / "report.html",
        game=find(config.game, config.env).title,
        subtitle=f"{len(rows)} auto-encoders, {options.budget:g} minutes each, {now()}",
        advice=[*said, *(f"{name} is left out: {why.rstrip('.')}" for name, why in failed.items())],
        columns=COLUMNS,
        entries=[_entry(row, found, folder) for row in rows],
        predictors=[{**each, "figure": titles[each["figure"]]} for each in agrees],
        settings=config.vae.model_dump(),
    )
    return {
        "contenders": len(rows),
        "best": rows[0].name,
        "moving_error": rows[0].figures.get(ranking.RANKED_BY),
        "advice": said[0],
        "report": str(folder / "report.html"),
    }


def _entry(row: ranking.Row, found: list[dict[str, Any]], folder: Path) -> Entry:
    """A row of the table with its first trial's pictures."""
    trial = next(each for each in found if each["contender"] == row.name)
    path = folder / Contender(row.name, trial["settings"]).folder(trial["seed"])
    pictures = [
        Media(Path(f"{path}.png"), f"Held-out frames above what {row.name} makes of them", "Real above decoded."),
        Media(
            Path(f"{path}-traversals.png"),
            f"One frame, with one number of {row.name}'s z changed along each row",
            "One number of z changes along each row: those that vary most.",
        ),
        Media(Path(f"{path}-samples.png"), f"Pictures drawn from {row.name}'s prior", "Drawn without a frame."),
    ]
    return Entry(row.name, row.seeds, row.figures, row.spread, pictures)
