"""train_controller: C evolves on the game, or in its dream, V and M fixed (`evaluation/fitness.py`: what is kept).

Several processes (`distributed/processes.py`) play a share of the episodes each, on host environments and devices of
their own. All get all returns and tell them to their own copies of the search, which therefore stay the same, bit for
bit.
"""

import contextlib
from typing import Any

import jax
import numpy as np

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.distributed.progress import Progress, log
from wm_jax.envs.games import find, random_start_in
from wm_jax.envs.make import open_pool
from wm_jax.envs.spaces import Discrete
from wm_jax.envs.types import Game
from wm_jax.evaluation.fitness import ControllerState, FitnessEvaluator
from wm_jax.models.controller import rounded, with_gas
from wm_jax.models.dream import Dream, require_heads
from wm_jax.run.artifacts import WorldModel, load_world
from wm_jax.run.dreams import load_dream
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.kept import KeptControllers
from wm_jax.run.metrics import Metrics
from wm_jax.run.resume import resume
from wm_jax.run.starting_weights import require_start, starting_controller
from wm_jax.training.evolution import Evolution
from wm_jax.utils import streams
from wm_jax.utils.errors import UsageError

SHOWN = {"mean": "mean", "best": "best", "network": "network_share", "environments": "environments_share"}
"""The figures of a generation in the progress line, by the names that they bear there; the last two are those of host
environments."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Evolve until `controller.generations`; returns the scores of the best and the latest mean."""
    stage, settings = run.stage("controller"), config.controller
    game = training_game(config)
    world = load_world(run, config, game, settings)
    dream, members = None, {}
    if settings.arena == "dream":
        assert world.memory is not None  # `load_world` loads it for dreams
        shares = world.agent.can_share_memory
        dream, members = load_dream(run, config, game, world.vae, world.memory, shares_memory=shares)
    identity = {
        "seed": config.seed,
        "game": config.game,
        "env": config.env.fixed(),
        "controller": settings.fixed(),
        **({"dream": config.dream.fixed()} if dream is not None else {}),
    }
    mean, start = starting_controller(stage, settings.start_from, world.agent.controller.n_params)
    parents, nothing = world.parents | members | start, world.no_controllers(settings)
    with stage.lock():
        stage.check(identity, parents)
        if (done := stage.finished("generations", settings.generations, nothing.weights())) is not None:
            log(f"controller: evolved already ({done['generations']:,} generations)")
            return done
        evolution = _evolution(config, world)
        stage.claim(identity, parents, config.model_dump())
        stage.note(config.model_dump())
        search, latest, figures = _evolve(config, run, game, world, dream, evolution, mean, stop)
        kept = KeptControllers(search.best, latest, None if search.dream is None else search.dream.best)
        record = {
            "settings": settings.model_dump(),
            "parents": world.parents,
            "actions": list(game.actions.names),
            "best_score": float(search.best_score),
        }
        digest = stage.weights.save(settings.generations, kept.weights(), record)
        summary = {
            "generations": settings.generations,
            "parameters": world.agent.controller.n_params,
            "best_score": round(float(search.best_score), 2),
            **figures,
            "weights": digest,
        }
        stage.write_summary(summary)
        return summary


def accept(config: Config) -> None:
    """Refuse settings that don't fit each other or the game, before anything is played.

    Raises:
      UsageError: the first of them.
    """
    settings = config.controller
    require_start(settings.start_from, "controller")
    if settings.arena == "dream" and settings.world == "random":
        raise UsageError("--controller.world random: an untrained M dreams of nothing; leave it out, or --in dream")
    if settings.world == "random":
        for name, model in (("vae", config.vae), ("memory", config.memory)):
            if model.start_from is not None:
                raise UsageError(
                    f"--{name}.start_from {model.start_from}: with --controller.world random nothing trained is used; "
                    "leave one of the two out"
                )
    if settings.arena == "dream":
        if config.dream.disagreement and config.dream.members == 1:
            raise UsageError(
                f"--dream.disagreement {config.dream.disagreement:g}: a single M disagrees with nobody; give "
                "--dream.members 4, or leave it out"
            )
        require_heads(config.memory, find(config.game, config.env), config.dream.ends)
    if settings.seeds == "paired" and settings.population % 2:
        raise UsageError(
            f"--controller.population {settings.population}: --controller.seeds paired needs an even number; give one, "
            "or other seeds"
        )
    if settings.sample_action and type(find(config.game, config.env).actions) is not Discrete:
        raise UsageError(
            f"--controller.sample_action: C has no output for each of several actions of {config.game}; leave it out"
        )
    if settings.random_start:
        random_start_in(find(config.game, config.env), settings.random_start, "--controller.random_start")
    if settings.gas != "sigmoid":
        with_gas(find(config.game, config.env).actions, settings.gas)


def training_game(config: Config) -> Game:
    """The game with episodes as long as in training."""
    return find(config.game, config.env).up_to(config.controller.episode_steps)


def _evolution(config: Config, world: WorldModel) -> Evolution:
    settings = config.controller
    key = jax.random.key(streams.integer(config.seed, "controller", "search"))
    return Evolution(settings.strategy, world.agent.controller.n_params, settings.population, settings.sigma, key)


def _evolve(
    config: Config,
    run: Run,
    game: Game,
    world: WorldModel,
    dream: Dream | None,
    evolution: Evolution,
    mean: jax.Array | None,
    stop: Stop,
) -> tuple[ControllerState, jax.Array, dict[str, Any]]:
    """The search at its end, the mean it ended with, and the figures of the last generation and of what is kept.

    Args:
      mean: where it begins (None: at zero).
    """
    stage, settings = run.stage("controller"), config.controller
    start = ControllerState.first(evolution, mean, in_dream=dream is not None)
    begun = resume(stage, start, settings.generations, "generation")
    generation, search, figures, evaluated = begun.count, begun.state, begun.figures, begun.reported
    saved = generation
    # In the dream, the real game is for evaluations alone.
    most = settings.population * settings.episodes if dream is None else settings.evaluate_episodes
    checkpoints, mine = stage.checkpoints, processes.share(most)
    slots = min(settings.slots, max(1, mine.stop - mine.start))
    with (
        contextlib.closing(open_pool(game, slots, random_start=settings.random_start)) as pool,
        Metrics(stage.path, resume_at=generation) as metrics,
        Progress("controller", settings.generations, "generation", done=generation) as progress,
    ):
        arena = FitnessEvaluator(config, world, evolution, pool, dream)
        if mean is not None and generation == 0:  # what it begins with may stay the best
            search = arena.evaluate_start(search, mean)
        while generation < settings.generations:
            try:
                search, figures = arena.play_generation(search, generation, stop)
            except Interrupted:
                # This generation will be played again from its start; those before it are kept.
                if generation > saved:
                    checkpoints.save(generation, search, begun.record(figures, evaluated))
                raise
            generation += 1
            if generation % settings.evaluate_every == 0 or generation == settings.generations:
                search, evaluation = arena.evaluate_mean(search)
                figures, evaluated = figures | evaluation, generation
            metrics.write(generation, **figures)
            shown = {name: figures[key] for name, key in SHOWN.items() if key in figures}
            kept = float(search.best_score)
            progress.advance(1, **shown, **({"kept": kept} if np.isfinite(kept) else {}))
            if generation % settings.save_every == 0 or generation == settings.generations or stop.agreed():
                checkpoints.save(generation, search, begun.record(figures, evaluated))
                saved = generation
        if evaluated != generation:  # an earlier process was stopped right here, before this was the end
            search, evaluation = arena.evaluate_mean(search)
            figures |= evaluation
            checkpoints.save(generation, search, begun.record(figures, generation))
        # All that this depends on is in the checkpoint: where it is stopped, it is begun again.
        figures |= arena.confirm(search, stop)
    latest = rounded(evolution.mean(search.evolution), settings.rounding)
    return search, latest, {**figures, "seconds": begun.watch.seconds()}
