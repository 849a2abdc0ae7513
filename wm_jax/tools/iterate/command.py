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

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.distributed.progress import log
from wm_jax.run.ancestors import inherit_settings
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.stage_graph import CHAIN, upstream
from wm_jax.stages import collect, encode, evaluate, train_controller, train_memory, train_vae
from wm_jax.utils import markdown, process
from wm_jax.utils.errors import UsageError
from wm_jax.utils.files import plain, write_atomically, write_manifest

STAGES = {
    "replays": processes.on_main_process(collect.run),
    "vae": train_vae.run,
    "latents": encode.run,
    "memory": train_memory.run,
    "controller": train_controller.run,
    "evaluation": processes.on_main_process(evaluate.run),
}
"""What makes each artifact; those that are not shared by all processes, the main one makes."""

FIGURES = {
    "replays.train_frames": "frames seen",
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
episodes of the round's own store, in which each round's agent plays a larger part."""


def accept(config: Config, options: argparse.Namespace) -> None:
    """Refuse what makes no sense, before anything is played.

    Raises:
      UsageError: no rounds, no growth, or an agent that has nothing to learn from what it sees.
    """
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds}: give 1 or more")
    if not 0 < options.growth < math.inf:
        raise UsageError(f"--growth {options.growth:g}: give a number above 0, such as 1")
    if options.fresh:
        raise UsageError("--fresh: rounds are built on each other; give another --run to start anew")
    if config.controller.world == "random":
        raise UsageError("--controller.world random: what does not learn has no rounds; leave it out")
    if config.collect.policy == "agent":
        raise UsageError("--collect.policy agent: the first round has none yet, the others do so; leave it out")
    train_vae.accept(config)
    train_memory.accept(config)
    train_controller.accept(config)


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Do all rounds that are not done; returns the figures of each, and where their table is.

    Raises:
      Interrupted, UserError: see the stages.
    """
    accept(config, options)
    found: dict[str, dict[str, Any]] = {}
    before: Run | None = None
    for number in range(1, options.rounds + 1):
        own, settings = run, config
        if before is not None:
            made = frozenset(upstream("evaluation", config.controller)) - {"replays"} | {"evaluation"}
            own = Run.open(run.path / "named" / f"round-{number}", run.path, makes=made)
            settings = _further(config, before)
        if own.stage("evaluation").summary() is None:
            log(f"== round {number} of {options.rounds}, in {own.path}")
            if before is not None:
                _let_play(config, before, number, options.growth, stop)
            _make(settings, own, stop)
        found[str(number)] = _figures(own)
        if processes.is_main_process():
            write_manifest(run.path / "rounds.json", plain(found), indent=1)
            write_atomically(run.path / "rounds.md", _table(found).encode())
        before = own
    return {"table": str(run.path / "rounds.md"), "rounds": found}


def _further(config: Config, before: Run) -> Config:
    """The settings of a round after the first: all begin with the weights of the round before."""
    start = {"start_from": str(before.path)}
    # Frames that are generated show random play; those of the store, what the agents saw, too.
    vae = config.vae.model_copy(update=start | {"frames": "replays"})
    memory = config.memory.model_copy(update=start)
    controller = config.controller.model_copy(update=start)
    return config.model_copy(update={"vae": vae, "memory": memory, "controller": controller})


def _let_play(config: Config, before: Run, number: int, growth: float, stop: Stop) -> None:
    """Have the agent of the round before play for this one."""
    times, settings = 1 + growth * (number - 1), config.collect
    wanted = {"episodes": math.ceil(settings.episodes * times), "frames": math.ceil(settings.frames * times)}
    collecting = settings.model_copy(update={"policy": "agent", **wanted})
    _stage("replays", config.model_copy(update={"collect": collecting}), before, stop)


def _make(config: Config, run: Run, stop: Stop) -> None:
    """All that a round consists of; what is finished says so."""
    for artifact in (*upstream("evaluation", config.controller), "evaluation"):
        if artifact == "replays" and run.base is not None:
            continue  # the agent has played for it
        _stage(artifact, inherit_settings(config, run, artifact), run, stop)


def _stage(artifact: str, config: Config, run: Run, stop: Stop) -> None:
    if stop.agreed():
        raise Interrupted
    log(f"== {CHAIN[artifact]}")
    STAGES[artifact](config, run, stop)
    process.give_back_memory()


def _figures(run: Run) -> dict[str, Any]:
    """A round's row; None where a stage has no such figure."""
    return {name: (run.stage(name.split(".")[0]).summary() or {}).get(name.split(".")[1]) for name in FIGURES}


def _table(found: dict[str, dict[str, Any]]) -> str:
    return markdown.table(
        ["round", *FIGURES.values()], [[number, *figures.values()] for number, figures in found.items()]
    )
