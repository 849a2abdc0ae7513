"""Random play, to collect the first replays: actions that depend on an episode's seed alone."""

from collections.abc import Iterator, Sequence

import numpy as np

from wm_jax.envs.spaces import ActionSpace, Continuous
from wm_jax.utils import streams


class RandomPolicy:
    """Exploration without a model. The actions of an episode depend on its seed alone: see `plan`.

    Args:
      seeds: one per episode.
      steps: longest episode.
    """

    def __init__(self, kind: str, space: ActionSpace, seeds: Sequence[int], steps: int, hold: float = 8.0):
        self._kind, self._space, self._seeds, self._steps, self._hold = kind, space, seeds, steps, hold
        self._plans: dict[int, Iterator[np.ndarray]] = {}

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """Draw every action of these episodes."""
        for slot, episode in zip(slots.tolist(), episodes.tolist(), strict=True):
            self._plans[slot] = iter(plan(self._kind, self._space, self._seeds[episode], self._steps, self._hold))

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """int32[B] or float32[B, A]."""
        return np.stack([next(self._plans[slot]) for slot in ids.tolist()])


def without_agent(policy: str) -> str:
    """How `collect.policy` draws actions where no agent is to choose them."""
    return "held" if policy == "agent" else policy


def plan(kind: str, space: ActionSpace, seed: int, steps: int, hold: float) -> np.ndarray:
    """All actions of a random episode, int32[T] or float32[T, A].

    Args:
      kind: `uniform` draws every action anew; `held` keeps an action for a geometric number of steps; `brownian` lets
        continuous actions wander (for discrete actions it is `held`).
      steps: T.
      hold: mean steps of `held`.
    """
    random = streams.generator(seed, "random policy")
    if kind == "brownian" and isinstance(space, Continuous):
        return _wander(space, random, steps)
    draws = space.draw(random, steps)
    if kind == "uniform":
        return draws
    changes = random.random(steps) < 1 / hold
    changes[0] = True
    return draws[np.maximum.accumulate(np.where(changes, np.arange(steps), 0))]


def _wander(space: Continuous, random: np.random.Generator, steps: int) -> np.ndarray:
    """Reflected Brownian motion that crosses its range in about 50 steps."""
    low, high = np.asarray(space.low), np.asarray(space.high)
    place = random.uniform(0, 1, space.size)
    moves = random.normal(0, 1 / np.sqrt(50), (steps, space.size))
    folded = np.abs((place + np.cumsum(moves, 0) + 1) % 2 - 1)
    return (low + folded * (high - low)).astype(np.float32)
