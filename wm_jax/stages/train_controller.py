"""train_controller: C evolves on the game, V and M fixed.

All candidates of a generation play the same episodes (`controller.seeds` says otherwise). What is kept as best is the
search distribution's *mean*, by its score on separate episodes: the best sample of a generation is mostly the luckiest
one. That score is the largest of many on the same episodes, so it flatters what was kept: at the end, the kept mean is
scored once more, on episodes that never chose anything.

Several processes (`distributed/processes.py`) play a share of the episodes each, on host environments and devices of
their own. All get all returns and tell them to their own copies of the search, which therefore stay the same, bit for
bit.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.distributed.progress import Progress, log
from wm_jax.envs.games import find, random_start_in
from wm_jax.envs.make import open_pool
from wm_jax.envs.types import Game, Pool
from wm_jax.evaluation.statistics import half_width, is_approximate
from wm_jax.models.controller import rounded, with_gas
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.play import play
from wm_jax.rollout.types import EpisodeStats
from wm_jax.run.artifacts import WorldModel, load_world
from wm_jax.run.checkpoints import digest_of
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.metrics import Metrics
from wm_jax.training.evolution import Evolution, EvolutionState
from wm_jax.training.loop import resume
from wm_jax.utils import streams
from wm_jax.utils.errors import UsageError, UserError

SHOWN = {"mean": "mean", "best": "best", "network": "network_share", "environments": "environments_share"}
"""The figures of a generation in the progress line, by the names that they bear there; the last two are those of host
environments."""


class ControllerState(NamedTuple):
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
        "env": config.env.fixed(),
        "controller": settings.fixed(),
    }
    with stage.lock():
        stage.check(identity, world.parents)
        if (done := stage.finished("generations", settings.generations, world.controllers())) is not None:
            log(f"controller: evolved already ({done['generations']:,} generations)")
            return done
        evolution = _evolution(config, world)
        stage.claim(identity, world.parents, config.model_dump())
        stage.note(config.model_dump())
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


def accept(config: Config) -> None:
    """Refuse settings that don't fit each other or the game, before anything is played.

    Raises:
      UsageError: the first of them.
    """
    settings = config.controller
    if settings.seeds == "paired" and settings.population % 2:
        raise UsageError(
            f"--controller.population {settings.population}: --controller.seeds paired needs an even number; give one, "
            "or other seeds"
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
    config: Config, run: Run, game: Game, world: WorldModel, evolution: Evolution, stop: Stop
) -> tuple[ControllerState, jax.Array, dict[str, Any]]:
    """The search at its end, the mean it ended with, and the figures of the last generation and of what is kept."""
    stage, settings = run.stage("controller"), config.controller
    start = ControllerState(evolution.init(), jnp.zeros(evolution.n_params), jnp.float32(-jnp.inf))
    begun = resume(stage, start, settings.generations, "generation")
    generation, search, figures, evaluated = begun.count, begun.state, begun.figures, begun.reported
    saved = generation
    checkpoints, mine = stage.checkpoints, processes.share(settings.population * settings.episodes)
    slots = min(settings.slots, max(1, mine.stop - mine.start))
    with (
        contextlib.closing(open_pool(game, slots, random_start=settings.random_start)) as pool,
        Metrics(stage.path, resume_at=generation) as metrics,
        Progress("controller", settings.generations, "generation", done=generation) as progress,
    ):
        arena = FitnessEvaluator(config, world, evolution, pool)
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


@dataclass(frozen=True)
class FitnessEvaluator:
    """Where candidates play."""

    config: Config
    world: WorldModel
    evolution: Evolution
    pool: Pool

    def play_generation(
        self, search: ControllerState, generation: int, stop: Stop
    ) -> tuple[ControllerState, dict[str, Any]]:
        """Ask, play, tell: candidate p plays episode e in place p * E + e.

        The search is told of the candidates as it asked for them; they play as they are kept, rounded. Weight decay is
        the search's business alone: the figures are scores.
        """
        settings = self.config.controller
        asked, population = self.evolution.ask(search.evolution)
        candidates = np.repeat(np.arange(settings.population), settings.episodes)
        seeds = self.episode_seeds(generation)
        steps = settings.short_steps if generation < settings.short_generations else 0
        playing = rounded(population, settings.rounding)
        played = self._play(playing, candidates, seeds, steps=steps, patience=settings.patience, stop=stop)
        returns = played.returns.reshape(settings.population, settings.episodes)
        decay = settings.weight_decay * np.square(np.asarray(population, np.float64)).mean(1, keepdims=True)
        search = search._replace(evolution=self.evolution.tell(asked, returns - decay))
        scores = _scores(returns.mean(1))
        return search, scores | played.figures() | {"not_finite": int(search.evolution.failed)}

    def evaluate_mean(self, search: ControllerState) -> tuple[ControllerState, dict[str, Any]]:
        """Play the distribution's mean on episodes of their own; keep it if it is the best so far."""
        settings = self.config.controller
        mean = rounded(self.evolution.mean(search.evolution), settings.rounding)
        seeds = self._seeds("evaluation", count=settings.evaluate_episodes)
        # As long as training's longest, and without patience; and without `stop`: the generation before it is done.
        returns = self._play(mean, np.zeros(len(seeds), np.int32), seeds).returns
        score = jnp.float32(returns.mean())
        if score > search.best_score:
            search = search._replace(best=mean, best_score=score)
        return search, {"evaluation_mean": round(float(returns.mean()), 3), "evaluation_error": _error(returns)}

    def confirm(self, search: ControllerState, stop: Stop) -> dict[str, Any]:
        """The score of the mean that is kept, on episodes that neither search nor choice has seen."""
        settings = self.config.controller
        seeds = self._seeds("confirmation", count=settings.confirm_episodes or settings.evaluate_episodes)
        mine = processes.share(len(seeds))
        with Progress("confirmation", mine.stop - mine.start, "episode") as progress:
            played = self._play(search.best, np.zeros(len(seeds), np.int32), seeds, stop=stop, progress=progress)
        score, error = round(float(played.returns.mean()), 2), _error(played.returns)
        doubtful = is_approximate(len(seeds))
        spread = "" if error is None else f" +- {error:.4g}{' (approximate)' if doubtful else ''}"
        log(
            f"controller: the kept mean scores {score:.4g}{spread} on {len(seeds):,} episodes that never chose it "
            f"({float(search.best_score):.4g} on those that did)"
        )
        return {
            "confirmed_score": score,
            "confirmed_error": error,
            "confirmed_episodes": len(seeds),
            "confirmed_approximate": doubtful,
        }

    def episode_seeds(self, generation: int) -> list[int]:
        """Seeds of a generation's episodes: candidate p's episode e in place p * E + e."""
        settings = self.config.controller
        population, episodes = settings.population, settings.episodes
        if settings.seeds == "shared":
            return self._seeds(generation, count=episodes) * population
        different = population // 2 if settings.seeds == "paired" else population
        seeds = [self._seeds(generation, "candidate", p, count=episodes) for p in range(different)]
        return [seed for p in range(population) for seed in seeds[p % different]]

    def _seeds(self, *occasion: int | str, count: int) -> list[int]:
        return [streams.integer(self.config.seed, "controller", *occasion, episode) for episode in range(count)]

    def _play(self, controllers: jax.Array, candidates: np.ndarray, seeds: list[int], **how: Any) -> EpisodeStats:
        """All episodes: this process plays its share, and gets the others' results; `how` is for `play`."""
        if other := processes.first_mismatch(digest_of(controllers)):
            raise UserError(
                f"controller: process {other} searches elsewhere than process 0: their processors compute differently; "
                "start them on machines of one kind"
            )
        mine = processes.share(len(seeds))
        params = self.world.params(controllers)
        policy = AgentPolicy(self.world.agent, params, candidates[mine], seeds[mine], self.pool.slots)
        shares = processes.all_gather_objects(lambda: play(self.pool, seeds[mine], policy, **how))
        return EpisodeStats.concatenate(shares)


def _error(returns: np.ndarray) -> float | None:
    """Half the width of the 95 % interval of their mean."""
    error = half_width(returns)
    return None if error is None else round(error, 3)


def _scores(scores: np.ndarray) -> dict[str, Any]:
    """Of the population, from one score a candidate."""
    return {
        "mean": round(float(scores.mean()), 3),
        "best": round(float(scores.max()), 3),
        "worst": round(float(scores.min()), 3),
    }
