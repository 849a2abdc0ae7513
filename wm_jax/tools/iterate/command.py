"""iterate: random play shows little of a game. The agent plays more of it, and all learn on from that, and again.

    bin/iterate --game carracing --rounds 3

Ha & Schmidhuber 2018, section 5 ("Iterative Training Procedure"). The first round is the run itself, as `bin/pipeline`
makes it. For each further one the agent of the round before plays episodes into the run's store, where those of random
play stay; V, M and C then begin with the weights of the round before and learn on, on all that is in the store. Round
N is a run of its own, `RUN/named/round-N`, that `--name round-N` goes on with, films and evaluates; `RUN/rounds.md`
has the scores. Stopped, the same command goes on; a larger `--rounds` adds to what is there.
"""

import argparse
import math
from typing import Any

from wm_jax import stages
from wm_jax.config.schema import Config
from wm_jax.data.replay import Counts, ReplayStore
from wm_jax.distributed import processes
from wm_jax.distributed.progress import log
from wm_jax.run.folder import NAMED, Run, Stage
from wm_jax.run.interrupt import Stop
from wm_jax.run.stage_graph import CHAIN, whole_chain
from wm_jax.tools.pipeline import report
from wm_jax.tools.tables import read_rows, write_rows
from wm_jax.utils.errors import UsageError, UserError

FIGURES = {
    "vae.test_reconstruction": "V's error",
    "vae.test_moving_explained": "moving, explained",
    "memory.test_nll": "M's loss",
    "controller.confirmed_score": "C's training",
    "evaluation.official_mean": "official score",
    "evaluation.official_ci_low": "95 % from",
    "evaluation.official_ci_high": "to",
    "evaluation.official_random_mean": "random play",
}
"""Of a round: entries of its stages' summaries, and what they are called in the table. Errors are those on held-out
episodes of all that the round was trained on, of which each round's agent has played more."""
TABLE = "rounds"


def accept(config: Config, options: argparse.Namespace) -> None:
    """Refuse what makes no sense, before anything is played.

    Raises:
      UsageError: no rounds, no growth, or an agent that learns nothing from what it sees.
    """
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds}: give 1 or more")
    if not 0 < options.growth < math.inf:
        raise UsageError(f"--growth {options.growth:g}: give a number above 0, such as 1")
    if options.fresh:
        raise UsageError("--fresh: rounds are built on each other; give another --run to start anew")
    if config.controller.world == "random":
        raise UsageError("--controller.world random: what does not learn has no rounds; leave it out")
    if options.keep_vae and "memory" not in whole_chain(config.controller):
        raise UsageError("--keep_vae: without M there is nothing else to learn from what is played; leave it out")
    if config.evaluate.dream_choice and config.controller.arena != "dream":
        raise UsageError("--evaluate.dream_choice: only a search in the dream has one; add --in dream, or leave it out")
    if config.collect.policy == "agent":
        raise UsageError("--collect.policy agent: the first round has none yet, the others do so; leave it out")
    for artifact in whole_chain(config.controller):
        stages.accept(artifact, config)


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Do all rounds that are not done; returns the figures of each, and where their table is.

    Raises:
      UserError: a round that is there was made with other settings; or see the stages.
      Interrupted: see the stages.
    """
    accept(config, options)
    if run.base is not None:
        raise UserError(
            f"{run.path} takes its replays from {run.base.path}, and rounds need their own; give another --run"
        )
    _require_same_vaes(run, keep_vae=options.keep_vae)
    found = read_rows(run.path, TABLE, "remove the file, and the same command writes it again")
    before: Run | None = None
    for number in range(1, options.rounds + 1):
        own, settings, makes = run, config, whole_chain(config.controller)
        if before is not None:
            shared = {"replays", *(("vae", "latents") if options.keep_vae else ())}
            own = run.named(f"round-{number}", makes=set(makes) - shared)
            settings = _further(config, before, keep_vae=options.keep_vae)
            # The agent has played; and of V that is kept, only what it sees in what was played is new.
            makes = [artifact for artifact in makes if artifact == "latents" or artifact not in shared]
        log(f"== round {number} of {options.rounds}, in {own.path}")
        if before is not None and _learner(own, run).summary() is None:
            _let_play(config, run, before, options.growth, stop)
        _make(makes, settings, own, stop)
        found[str(number)] = _figures(own, run)
        if processes.is_main_process():
            write_rows(run.path, TABLE, "round", {"frames": "frames", **FIGURES}, found)
        before = own
    return {"table": str(run.path / "rounds.md"), "rounds": found}


def _require_same_vaes(run: Run, *, keep_vae: bool) -> None:
    """See that V is kept, or learns on, in all rounds alike: M learns on, on what V makes of frames.

    Raises:
      UserError: the second round was begun otherwise.
    """
    second = run.path / NAMED / "round-2"
    if not second.is_dir():
        return
    if keep_vae and (second / "vae").exists():
        raise UserError(f"--keep_vae: {second} has a V of its own; leave it out, or give another --run")
    if not keep_vae and not (second / "vae").exists():
        raise UserError(f"{second} was begun with the V of the first round; add --keep_vae, or give another --run")


def _learner(own: Run, first: Run) -> Stage:
    """The first stage of a round that learns from the replays."""
    return own.stage("vae" if _makes(own, "vae", first) else "memory")


def _makes(own: Run, artifact: str, first: Run) -> bool:
    """Is this artifact of a round its own?"""
    return own.path == first.path or own.stage(artifact).path != first.stage(artifact).path


def _further(config: Config, before: Run, *, keep_vae: bool) -> Config:
    """The settings of a round after the first: all that learns begins with the weights of the round before."""
    start = {"start_from": str(before.path)}
    # Frames that are generated show random play; those of the store, what the agents saw, too.
    vae = config.vae if keep_vae else config.vae.model_copy(update=start | {"frames": "replays"})
    memory = config.memory.model_copy(update=start)
    controller = config.controller.model_copy(update=start)
    return config.model_copy(update={"vae": vae, "memory": memory, "controller": controller})


def _let_play(config: Config, run: Run, before: Run, growth: float, stop: Stop) -> None:
    """Have the agent of the round before play for this one, beyond all that was seen then."""
    first, seen = _seen(run, run), _seen(before, run)
    if config.collect.frames:  # of these alone, since episodes get longer as the agent gets better
        wanted = {"episodes": seen.episodes, "frames": seen.frames + math.ceil(growth * first.frames)}
    else:
        wanted = {"episodes": seen.episodes + math.ceil(growth * first.episodes)}
    collecting = config.collect.model_copy(update={"policy": "agent", **wanted})
    config = config.model_copy(update={"collect": collecting})
    stages.make("replays", config, before, stop, f"== {CHAIN['replays']}")


def _seen(own: Run, first: Run) -> Counts:
    """The replays that a round's models were trained on."""
    stage = _learner(own, first)
    manifest = stage.manifest()
    if manifest is None:
        raise stage.lost_record()
    return ReplayStore.open(first.stage("replays").path, episodes=manifest["settings"]["episodes"]).count()


def _make(artifacts: list[str], config: Config, run: Run, stop: Stop) -> None:
    """All that a round makes. What is finished says so, unless it was made with other settings."""
    done = run.stage("evaluation").summary() is not None
    for artifact in artifacts:
        # Of a round that is done, more replays and their latents are of no use.
        if not done or artifact not in ("replays", "latents"):
            stages.make(artifact, config, run, stop, f"== {CHAIN[artifact]}")
    if not done:
        processes.on_main_process(report.run)(config, run, stop)


def _figures(own: Run, first: Run) -> dict[str, Any]:
    """A round's row; None where a stage has no such figure, or is that of the first round."""
    row: dict[str, Any] = {"frames": _seen(own, first).frames}
    for name in FIGURES:
        stage, _, figure = name.partition(".")
        row[name] = (own.stage(stage).summary() or {}).get(figure) if _makes(own, stage, first) else None
    return row
