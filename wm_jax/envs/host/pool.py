"""Whatever of the contract of pools doesn't depend on who steps their environments.

A slot plays exactly one episode per reset or restart. `EpisodePool` keeps the books (who runs, who is in flight, who
has ended, the step limit) over an `Engine`, which only starts and steps environments: EnvPool's, Gymnasium's, or those
on the device.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_jax.envs.types import LARGEST_SEED, DeviceGame, Engine, Game, Step
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME


class EpisodePool:
    """The contract of `Pool` over an engine."""

    def __init__(self, game: Game, slots: int, engine: Engine):
        self.game = game
        self.slots = slots
        self._engine = engine
        self._started(np.zeros((0, *FRAME), np.uint8))

    def _started(self, frames: NDArray[np.uint8]) -> None:
        count = len(frames)
        self._seeds = np.zeros(count, np.int64)
        self._running = np.ones(count, bool)
        self._flying = np.zeros(count, bool)
        self._steps = np.zeros(count, np.int64)
        self._last = Step(
            np.arange(count, dtype=np.int32),
            frames.copy(),
            np.zeros(count, np.float32),
            *np.zeros((3, count), bool),
        )

    def reset(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Pool`. Raises ValueError for too many seeds, or seeds outside 0..2**31-1."""
        if not 0 < len(seeds) <= self.slots:
            raise ValueError(f"{len(seeds)} seeds for a pool of {self.slots} slots")
        seeds = _seeds(seeds)
        frames = self._engine.start(seeds)
        self._started(frames)
        self._seeds[:] = seeds
        return frames

    @property
    def episode_steps(self) -> int:
        """See `Pool`."""
        return self.game.episode_steps

    @property
    def device_game(self) -> DeviceGame | None:
        """See `Pool`."""
        return self._engine.device_game

    @property
    def restarts(self) -> bool:
        """See `Pool`."""
        return self._engine.restart is not None

    def restart(self, ids: ArrayLike, seeds: Sequence[int]) -> None:
        """See `Pool`. Raises ValueError for slots that owe a step, and where slots can't restart."""
        ids = self._distinct(ids)
        if self._engine.restart is None:
            raise ValueError(f"slots of {self.game.name} can't restart here; reset all of them")
        if len(seeds) != len(ids):
            raise ValueError(f"{len(seeds)} seeds for {len(ids)} slots")
        self._refuse(ids, self._flying, "still owes a step")
        seeds = _seeds(seeds)
        self._engine.restart(ids, seeds)
        self._seeds[ids] = seeds
        self._running[ids] = self._flying[ids] = True
        self._steps[ids] = -1  # the first frame comes like a step, but is none

    def send(self, ids: ArrayLike, actions: ArrayLike) -> None:
        """See `Pool`. Raises UserError for unplayable actions, ValueError for slots that can't be stepped now."""
        ids = self._distinct(ids)
        if len(ids) == 0:
            return
        self._refuse(ids, ~self._running, "has ended its episode")
        self._refuse(ids, self._flying, "still owes a step")
        played = self._playable(actions, len(ids))
        self._flying[ids] = True
        self._engine.send(ids, played)

    def recv(self) -> Step:
        """See `Pool`. Raises ValueError when nothing is in flight, instead of waiting for ever."""
        if not self._flying.any():
            raise ValueError("recv without a slot in flight: send first")
        # Half of them: while the caller thinks about these, the other half is being stepped.
        return self._receive((int(self._flying.sum()) + 1) // 2)

    def step(self, actions: ArrayLike) -> Step:
        """See `Pool`. Actions of all slots of the last reset: int[N] or float32[N, A]."""
        actions = np.asarray(actions)
        if len(actions) != len(self._running):
            raise ValueError(f"{len(actions)} actions for {len(self._running)} slots")
        self._last.reward[:] = 0
        going = np.flatnonzero(self._running)
        self.send(going, actions[going])
        while self._flying.any():
            self._receive(len(going))
        return Step._make(field.copy() for field in self._last)

    def close(self) -> None:
        """See `Pool`."""
        self._engine.close()

    def _distinct(self, ids: ArrayLike) -> NDArray[np.int32]:
        ids = np.asarray(ids, np.int32)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self._running) or len(np.unique(ids)) != len(ids)):
            raise ValueError(f"slots must be distinct and in 0..{len(self._running) - 1}, got {ids.tolist()}")
        return ids

    @staticmethod
    def _refuse(ids: NDArray[np.int32], mask: NDArray[np.bool_], state: str) -> None:
        if mask[ids].any():
            raise ValueError(f"slot {ids[mask[ids]][0]} {state}")

    def _receive(self, most: int) -> Step:
        """Up to `most` answers, entered in the books."""
        step = self._engine.recv(most)
        ids = step.ids
        self._flying[ids] = False
        self._steps[ids] += 1
        self._refuse_rewards(step)
        truncated = (step.truncated | (self._steps[ids] >= self.game.episode_steps)) & ~step.terminated
        step = step._replace(truncated=truncated)
        self._running[ids] = ~(step.terminated | truncated)
        for kept, new in zip(self._last[1:], step[1:], strict=True):
            kept[ids] = new
        return step

    def _refuse_rewards(self, step: Step) -> None:
        """See that the rewards are numbers: sums, models and records of them would be none either."""
        broken = ~np.isfinite(step.reward)
        if broken.any():
            slot, reward = step.ids[broken][0], step.reward[broken][0]
            raise UserError(
                f"{self.game.name}: the reward of step {self._steps[slot]} of the episode of seed {self._seeds[slot]} "
                f"is {reward}, no finite float32 number; mend the environment"
            )

    def _playable(self, actions: ArrayLike, count: int) -> NDArray:
        """The actions as the game takes them; see `ActionSpace.checked`."""
        # NaN slips through comparisons inside games: it once made a near-perfect score.
        if np.issubdtype(np.asarray(actions).dtype, np.floating) and not np.isfinite(actions).all():
            raise UserError(
                f"{self.game.name}: an action is not finite (NaN or infinity); the policy that made it is broken"
            )
        return self.game.actions.checked(actions, count)


def _seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds, if games take them."""
    seeds = [int(seed) for seed in seeds]
    if seeds and (min(seeds) < 0 or max(seeds) > LARGEST_SEED):
        raise ValueError(f"seeds must lie in 0..{LARGEST_SEED}, got {min(seeds)}..{max(seeds)}")
    return seeds
