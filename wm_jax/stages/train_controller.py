"""train_controller: C evolves on the game, V and M fixed.

All candidates of a generation play the same episodes. What is kept as best is the search distribution's *mean*, by its
score on separate episodes: the best sample of a generation is mostly the luckiest one.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import streams
from wm_jax.artefacts import World, load_world
from wm_jax.config import Config
from wm_jax.envs.games import Game, find
from wm_jax.envs.host.pool import HostPool, open_pool
from wm_jax.evolution import Evolution, EvolutionState
from wm_jax.interrupt import Interrupted, Stop
from wm_jax.metrics import Metrics, Progress, say
from wm_jax.rollout import AgentPolicy, Played, play
from wm_jax.run import Run
from wm_jax.training import resume

PACING = {"generations", "slots", "evaluate_every", "save_every"}
"""Settings that say how far and how fast, not what is evolved."""


class Search(NamedTuple):
    """Everything that the next generation depends on.

    evolution: the strategy's own state.
    best: float32[n_params], the mean with the best evaluation so far.
    best_score: float32[], that evaluation; -inf before the first.
    """

    evolution: EvolutionState
    best: jax.Array
    best_score: jax.Array


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Evolve until `controller.generations`; returns the scores of the best and the latest mean."""
    stage, settings = run.stage("controller"), config.controller
    game = training_game(config)
    world = load_world(run, config, game, settings)
    identity = {
        "seed": config.seed,
        "game": config.game,
        "env": config.env.model_dump(exclude={"threads"}),
        "controller": settings.model_dump(exclude=PACING),
    }
    with stage.lock():
        stage.check(identity, world.parents)
        if (done := stage.finished("generations", settings.generations, world.controllers())) is not None:
            say(f"controller: evolved already ({done['generations']:,} generations)")
            return done
        evolution = _evolution(config, world)
        stage.claim(identity, world.parents, config.model_dump())
        search, latest, figures = _evolve(config, run, game, world, evolution, stop)
        tree = {"best": search.best, "latest": latest}
        record = {
            "settings": settings.model_dump(),
            "parents": world.parents,
            "actions": list(game.actions.names),
            "best_score": float(search.best_score),
        }
        digest = stage.weights.save(settings.generations, tree, record)
        summary = {
            "generations": settings.generations,
            "parameters": world.agent.controller.n_params,
            "best_score": round(float(search.best_score), 2),
            **figures,
            "weights": digest,
        }
        stage.write_summary(summary)
        return summary


def training_game(config: Config) -> Game:
    """The game with the controller's own episode length."""
    if config.controller.episode_steps is None:
        return find(config.game, config.env)
    return find(config.game, config.env.model_copy(update={"episode_steps": config.controller.episode_steps}))


def _evolution(config: Config, world: World) -> Evolution:
    settings = config.controller
    key = jax.random.key(streams.integer(config.seed, "controller", "search"))
    return Evolution(settings.strategy, world.agent.controller.n_params, settings.population, settings.sigma, key)


def _evolve(
    config: Config, run: Run, game: Game, world: World, evolution: Evolution, stop: Stop
) -> tuple[Search, jax.Array, dict[str, Any]]:
    """The search at its end, the mean it ended with, and the last generation's figures."""
    stage, settings = run.stage("controller"), config.controller
    search = Search(evolution.init(), jnp.zeros(evolution.n_params), jnp.float32(-jnp.inf))
    checkpoints = stage.checkpoints
    generation, search, figures, watch = resume(stage, checkpoints, search, settings.generations, "generation")
    pool = open_pool(game, min(settings.slots, settings.population * settings.episodes))
    try:
        with (
            Metrics(stage.path, resume_at=generation) as metrics,
            Progress("controller", settings.generations, "generation", done=generation) as progress,
        ):
            saved = generation
            while generation < settings.generations:
                began = time.monotonic()
                asked, population = evolution.ask(search.evolution)
                try:
                    played = _episodes(config, game, world, pool, population, generation, stop)
                except Interrupted:
                    # This generation will be played again from its start; those before it are kept.
                    if generation > saved:
                        checkpoints.save(generation, search, {"figures": figures, "seconds": watch.seconds()})
                    raise
                returns = played.returns.reshape(settings.population, settings.episodes)
                search = search._replace(evolution=evolution.tell(asked, returns))
                generation += 1
                figures = _figures(returns, played, time.monotonic() - began)
                figures["not_finite"] = int(search.evolution.failed)
                if generation % settings.evaluate_every == 0 or generation == settings.generations:
                    mean = evolution.mean(search.evolution)
                    search, evaluation = _evaluate_mean(config, world, pool, search, mean)
                    figures |= evaluation
                metrics.write(generation, **figures)
                progress.advance(1, mean=figures["mean"], best=figures["best"], kept=float(search.best_score))
                if generation % settings.save_every == 0 or generation == settings.generations or stop.requested:
                    checkpoints.save(generation, search, {"figures": figures, "seconds": watch.seconds()})
                    saved = generation
    finally:
        pool.close()
        checkpoints.close()
    return search, evolution.mean(search.evolution), {**figures, "seconds": watch.seconds()}


def _episodes(
    config: Config, game: Game, world: World, pool: HostPool, population: jax.Array, generation: int, stop: Stop
) -> Played:
    """One generation: candidate p plays episode e in place p * E + e."""
    settings = config.controller
    seeds = [streams.integer(config.seed, "controller", generation, e) for e in range(settings.episodes)]
    candidates = np.repeat(np.arange(settings.population), settings.episodes)
    seeds = seeds * settings.population
    policy = AgentPolicy(world.agent, world.params(population), candidates, seeds, pool.slots)
    return play(pool, seeds, policy, patience=settings.patience, stop=stop)


def _figures(returns: np.ndarray, played: Played, seconds: float) -> dict[str, Any]:
    scores = returns.mean(1)
    return {
        "mean": round(float(scores.mean()), 3),
        "best": round(float(scores.max()), 3),
        "worst": round(float(scores.min()), 3),
        "environment_steps": int(played.lengths.sum()),
        "steps_per_second": round(float(played.lengths.sum()) / seconds, 1),
    }


def _evaluate_mean(
    config: Config, world: World, pool: HostPool, search: Search, mean: jax.Array
) -> tuple[Search, dict[str, Any]]:
    """Play the distribution's mean on episodes of their own; keep it if it is the best so far."""
    settings = config.controller
    seeds = [streams.integer(config.seed, "controller", "evaluation", e) for e in range(settings.evaluate_episodes)]
    # Not `stop`: an evaluation is short, and the generation before it is done.
    policy = AgentPolicy(world.agent, world.params(mean), np.zeros(len(seeds), np.int32), seeds, pool.slots)
    returns = play(pool, seeds, policy).returns
    score = jnp.float32(returns.mean())
    if score > search.best_score:
        search = search._replace(best=mean, best_score=score)
    return search, {
        "evaluation_mean": round(float(returns.mean()), 3),
        "evaluation_error": round(float(1.96 * returns.std() / np.sqrt(len(returns))), 3),
    }
