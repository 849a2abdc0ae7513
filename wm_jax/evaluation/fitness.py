"""How candidates for C are judged: by the episodes that they play, in the game or in its dream.

All candidates of a generation play the same episodes (`controller.seeds` says otherwise). What is kept as best is the
search distribution's *mean*, by its score on separate episodes: the best sample of a generation is mostly the luckiest
one. That score is the largest of many on the same episodes, so it flatters what was kept: at the end, the kept mean is
scored once more, on episodes that never chose anything.

Whoever learns in the dream learns to cheat it, too: what is kept is chosen in the real game all the same, and what the
dream alone would have kept is remembered beside it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.distributed.progress import Progress, log
from wm_jax.envs.types import Pool
from wm_jax.evaluation.statistics import half_width, is_approximate
from wm_jax.models.controller import rounded
from wm_jax.models.dream import Dream
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.play import play, play_in_dream
from wm_jax.rollout.types import EpisodeStats
from wm_jax.run.artifacts import WorldModel
from wm_jax.run.checkpoints import digest_of
from wm_jax.run.interrupt import Stop
from wm_jax.training.evolution import Evolution, EvolutionState
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError


class DreamChoice(NamedTuple):
    """What the dream alone would keep, and what it took not to rely on it.

    best: float32[n_params], the mean with the best evaluation in the dream so far.
    best_score: float32[], that evaluation; -inf before the first.
    real_steps: int32[], of the real game, that all evaluations there have taken.
    """

    best: jax.Array
    best_score: jax.Array
    real_steps: jax.Array


class ControllerState(NamedTuple):
    """Everything that the next generation depends on.

    evolution: the strategy's own state.
    best: float32[n_params], the mean with the best evaluation so far, in the real game.
    best_score: float32[], that evaluation; -inf before the first.
    dream: of a search in the dream.
    """

    evolution: EvolutionState
    best: jax.Array
    best_score: jax.Array
    dream: DreamChoice | None = None

    @staticmethod
    def first(evolution: Evolution, mean: jax.Array | None = None, *, in_dream: bool) -> "ControllerState":
        """Before the first generation.

        Args:
          mean: float32[n_params], where the search begins (None: at zero).
        """
        nothing, none = jnp.zeros(evolution.n_params), jnp.float32(-jnp.inf)
        choice = DreamChoice(nothing, none, jnp.int32(0)) if in_dream else None
        return ControllerState(evolution.init(mean), nothing, none, choice)


Kept = TypeVar("Kept", ControllerState, DreamChoice)


@dataclass(frozen=True)
class FitnessEvaluator:
    """Judges candidates by what they play, and tells the search.

    pool: the real game, as in training.
    dream: where the search plays instead, if it does.
    """

    config: Config
    world: WorldModel
    evolution: Evolution
    pool: Pool
    dream: Dream | None = None

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
        # No patience in dreams: rewards that M expects are hardly ever exactly none.
        how: dict[str, Any] = {"in_dream": True} if self.dream is not None else {"patience": settings.patience}
        playing = rounded(population, settings.rounding)
        played = self._play(playing, candidates, seeds, steps=steps, stop=stop, **how)
        returns = played.returns.reshape(settings.population, settings.episodes)
        decay = settings.weight_decay * np.square(np.asarray(population, np.float64)).mean(1, keepdims=True)
        search = search._replace(evolution=self.evolution.tell(asked, returns - decay))
        scores = _scores(returns.mean(1))
        return search, scores | played.figures() | {"not_finite": int(search.evolution.failed)}

    def evaluate_mean(self, search: ControllerState) -> tuple[ControllerState, dict[str, Any]]:
        """Play the distribution's mean on episodes of their own; keep it if it is the best so far."""
        mean = rounded(self.evolution.mean(search.evolution), self.config.controller.rounding)
        search, played = self._compare(search, mean)
        figures = _evaluation("evaluation", played.returns)
        if search.dream is None:
            return search, figures
        dreamed = self._evaluated(mean, "evaluation in the dream", in_dream=True)
        choice = _keep_if_better(search.dream, mean, dreamed)
        figures |= _evaluation("dream", dreamed.returns) | {"real_steps": int(choice.real_steps)}
        return search._replace(dream=choice), figures

    def evaluate_start(self, search: ControllerState, mean: jax.Array) -> ControllerState:
        """Play where the search begins, which may stay the best. It is no choice of the dream's: real games may have
        chosen it, of which the dream alone knows nothing.

        Args:
          mean: float32[n_params].
        """
        return self._compare(search, rounded(mean, self.config.controller.rounding))[0]

    def confirm(self, search: ControllerState, stop: Stop) -> dict[str, Any]:
        """The score of the mean that is kept, on real episodes that neither search nor choice has seen; and of what the
        dream would have kept, on the same ones.
        """
        figures = self._confirmed(search.best, search.best_score, "the kept mean", stop)
        if search.dream is None:
            return figures
        choice = search.dream
        of_dream = self._confirmed(choice.best, choice.best_score, "what the dream alone would keep", stop)
        return {
            **figures,
            "dream_best_score": round(float(choice.best_score), 2),
            "dream_confirmed_score": of_dream["confirmed_score"],
            "dream_confirmed_error": of_dream["confirmed_error"],
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

    def _compare(self, search: ControllerState, mean: jax.Array) -> tuple[ControllerState, EpisodeStats]:
        """The search with this mean as the best if it is, and the real episodes that say so."""
        # As long as training's longest, and without patience; and without `stop`: the generation before it is done.
        played = self._evaluated(mean, "evaluation")
        search = _keep_if_better(search, mean, played)
        if search.dream is not None:
            steps = search.dream.real_steps + int(played.lengths.sum())
            search = search._replace(dream=search.dream._replace(real_steps=steps))
        return search, played

    def _confirmed(self, best: jax.Array, chosen_by: jax.Array, what: str, stop: Stop) -> dict[str, Any]:
        """Scores of a mean on the episodes of the confirmation.

        Args:
          chosen_by: its score on the episodes that chose it.
          what: the mean, for people.
        """
        settings = self.config.controller
        seeds = self._seeds("confirmation", count=settings.confirm_episodes or settings.evaluate_episodes)
        mine = processes.share(len(seeds))
        with Progress("confirmation", mine.stop - mine.start, "episode") as progress:
            played = self._play(best, np.zeros(len(seeds), np.int32), seeds, stop=stop, progress=progress)
        score, error = round(float(played.returns.mean()), 2), _error(played.returns)
        doubtful = is_approximate(len(seeds))
        spread = "" if error is None else f" +- {error:.4g}{' (approximate)' if doubtful else ''}"
        log(
            f"controller: {what} scores {score:.4g}{spread} on {len(seeds):,} episodes that never chose it "
            f"({float(chosen_by):.4g} on those that did)"
        )
        return {
            "confirmed_score": score,
            "confirmed_error": error,
            "confirmed_episodes": len(seeds),
            "confirmed_approximate": doubtful,
        }

    def _evaluated(self, mean: jax.Array, occasion: str, *, in_dream: bool = False) -> EpisodeStats:
        seeds = self._seeds(occasion, count=self.config.controller.evaluate_episodes)
        return self._play(mean, np.zeros(len(seeds), np.int32), seeds, in_dream=in_dream)

    def _seeds(self, *occasion: int | str, count: int) -> list[int]:
        return [streams.integer(self.config.seed, "controller", *occasion, episode) for episode in range(count)]

    def _play(
        self, controllers: jax.Array, candidates: np.ndarray, seeds: list[int], *, in_dream: bool = False, **how: Any
    ) -> EpisodeStats:
        """All episodes: this process plays its share, and gets the others' results; `how` is for `play`."""
        if other := processes.first_mismatch(digest_of(controllers)):
            raise UserError(
                f"controller: process {other} searches elsewhere than process 0: their processors compute differently; "
                "start them on machines of one kind"
            )
        mine = processes.share(len(seeds))
        params = self.world.params(controllers)
        slots = min(self.config.controller.slots, max(len(seeds[mine]), 1)) if in_dream else self.pool.slots
        policy = AgentPolicy(self.world.agent, params, candidates[mine], seeds[mine], slots)

        def played() -> EpisodeStats:
            if in_dream:
                assert self.dream is not None
                return play_in_dream(self.dream, seeds[mine], policy, slots, **how)
            return play(self.pool, seeds[mine], policy, **how)

        return EpisodeStats.concatenate(processes.all_gather_objects(played))


def _keep_if_better(kept: Kept, mean: jax.Array, played: EpisodeStats) -> Kept:
    """With this mean as the best one, if its score is."""
    score = jnp.float32(played.returns.mean())
    return kept._replace(best=mean, best_score=score) if score > kept.best_score else kept


def _evaluation(name: str, returns: np.ndarray) -> dict[str, Any]:
    """The figures of an evaluation's episodes."""
    return {f"{name}_mean": round(float(returns.mean()), 3), f"{name}_error": _error(returns)}


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
