"""The one contract of the host environments, and everything of it that doesn't depend on who steps them.

A slot plays exactly one episode per reset or restart. `EpisodePool` keeps the books (who runs, who is in flight, who
has ended, the step limit) over an `Engine`, which only starts and steps environments: EnvPool's, Gymnasium's, or those
on the device.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_jax.envs.games import Game, announce
from wm_jax.errors import UserError
from wm_jax.spaces import Continuous

if TYPE_CHECKING:
    from wm_jax.envs.device import DeviceGame

LARGEST_SEED = 2**31 - 1


class Step(NamedTuple):
    """What B slots answered to their last action."""

    ids: NDArray[np.int32]
    """[B] slots."""
    frames: NDArray[np.uint8]
    """[B, 64, 64, 3]; the real last frame where an episode ends."""
    reward: NDArray[np.float32]
    """[B]"""
    terminated: NDArray[np.bool_]
    """[B] the game ended the episode."""
    truncated: NDArray[np.bool_]
    """[B] the step limit ended it, or the death of a worker process; never together with `terminated`."""
    lost: NDArray[np.bool_]
    """[B] it was the death of a worker process: what came of the episode says nothing about who played it."""


class HostPool(Protocol):
    """Environments that play one episode each per reset, stepped together or as they become ready."""

    slots: int

    @property
    def episode_steps(self) -> int:
        """The longest episode."""
        ...

    @property
    def environment(self) -> "DeviceGame | None":
        """The game as a function of JAX, where it is one: agents can then play it on the device."""
        ...

    @property
    def restarts(self) -> bool:
        """Can a slot begin another episode by itself (`restart`), or only all of them together (`reset`)?"""
        ...

    def reset(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Start one episode per seed, slot i with seeds[i]; returns the first frames uint8[N, 64, 64, 3]."""
        ...

    def restart(self, ids: ArrayLike, seeds: Sequence[int]) -> None:
        """Begin other episodes in slots that owe no step, without waiting; only where `restarts`.

        The next answer of each slot is its first frame, with reward 0 and no end.
        """
        ...

    def send(self, ids: ArrayLike, actions: ArrayLike) -> None:
        """Step these slots without waiting; actions int[B] positions in `Discrete.names`, or float32[B, A]."""
        ...

    def recv(self) -> Step:
        """The next slots that are ready: at least one of those in flight, about half of them if there are many.

        Raises:
          UserError: a reward is not finite, or the game failed.
        """
        ...

    def step(self, actions: ArrayLike) -> Step:
        """Step all slots and wait; ended ones ignore their action and repeat their last frame with reward 0."""
        ...

    def close(self) -> None:
        """Free the environments; the pool is of no use afterwards."""
        ...


class Engine(Protocol):
    """Starts and steps environments; keeps no episode books and never checks its arguments."""

    @property
    def environment(self) -> "DeviceGame | None":
        """See `HostPool`."""
        ...

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Start slot i with seeds[i], forgetting everything that was in flight; the first frames [N, 64, 64, 3]."""
        ...

    @property
    def restart(self) -> Callable[[NDArray[np.int32], Sequence[int]], None] | None:
        """Start these slots again with other seeds, their first frames to be received like steps; None: it can't."""
        ...

    def send(self, ids: NDArray[np.int32], actions: NDArray) -> None:
        """Step these slots; actions int32[B] as the game counts them, or float32[B, A]."""
        ...

    def recv(self, most: int) -> Step:
        """The first of the slots in flight that are ready: at least 1, about `most`.

        An episode that can't go on through no fault of its own, because the process that played it has died, ends here:
        truncated and lost, with the frame that it showed last and reward 0. A slot that was to begin one does begin it.
        """
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class EpisodePool:
    """The contract of `HostPool` over an engine."""

    def __init__(self, game: Game, slots: int, engine: Engine):
        self.game = game
        self.slots = slots
        self._engine = engine
        self._started(np.zeros((0, 64, 64, 3), np.uint8))

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
        """See `HostPool`. Raises ValueError for too many seeds, or seeds outside 0..2**31-1."""
        if not 0 < len(seeds) <= self.slots:
            raise ValueError(f"{len(seeds)} seeds for a pool of {self.slots} slots")
        seeds = _seeds(seeds)
        frames = self._engine.start(seeds)
        self._started(frames)
        self._seeds[:] = seeds
        return frames

    @property
    def episode_steps(self) -> int:
        """See `HostPool`."""
        return self.game.episode_steps

    @property
    def environment(self) -> "DeviceGame | None":
        """See `HostPool`."""
        return self._engine.environment

    @property
    def restarts(self) -> bool:
        """See `HostPool`."""
        return self._engine.restart is not None

    def restart(self, ids: ArrayLike, seeds: Sequence[int]) -> None:
        """See `HostPool`. Raises ValueError for slots that owe a step, and where slots can't restart."""
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
        """See `HostPool`. Raises UserError for unplayable actions, ValueError for slots that can't be stepped now."""
        ids = self._distinct(ids)
        if len(ids) == 0:
            return
        self._refuse(ids, ~self._running, "has ended its episode")
        self._refuse(ids, self._flying, "still owes a step")
        played = self._playable(actions, len(ids))
        self._flying[ids] = True
        self._engine.send(ids, played)

    def recv(self) -> Step:
        """See `HostPool`. Raises ValueError when nothing is in flight, instead of waiting for ever."""
        if not self._flying.any():
            raise ValueError("recv without a slot in flight: send first")
        # Half of them: while the caller thinks about these, the other half is being stepped.
        return self._receive((int(self._flying.sum()) + 1) // 2)

    def step(self, actions: ArrayLike) -> Step:
        """See `HostPool`. Actions of all slots of the last reset: int[N] or float32[N, A]."""
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
        """See `HostPool`."""
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
        """The actions as the game takes them: int32[B] indices, or float32[B, A] within the bounds."""
        space = self.game.actions
        if isinstance(space, Continuous):
            moves = np.asarray(actions, np.float32)
            if moves.shape != (count, space.size):
                raise ValueError(f"actions {moves.shape}, expected {(count, space.size)}")
            # NaN slips through comparisons inside games: it once made a near-perfect score.
            if not np.isfinite(moves).all():
                raise UserError(
                    f"{self.game.name}: an action is not finite (NaN or infinity); the policy that made it is broken"
                )
            return np.clip(moves, np.array(space.low, np.float32), np.array(space.high, np.float32))
        choices = np.asarray(actions)
        if np.issubdtype(choices.dtype, np.floating) and not np.isfinite(choices).all():
            raise UserError(f"{self.game.name}: an action is not finite; the policy that made it is broken")
        if choices.shape != (count,) or not np.issubdtype(choices.dtype, np.integer):
            raise ValueError(f"actions {choices.dtype}{choices.shape}, expected integers {(count,)}")
        if choices.min() < 0 or choices.max() >= space.size:
            raise ValueError(f"actions must lie in 0..{space.size - 1}, got {choices.min()}..{choices.max()}")
        return np.asarray(space.indices, np.int32)[choices]


def _seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds, if games take them."""
    seeds = [int(seed) for seed in seeds]
    if seeds and (min(seeds) < 0 or max(seeds) > LARGEST_SEED):
        raise ValueError(f"seeds must lie in 0..{LARGEST_SEED}, got {min(seeds)}..{max(seeds)}")
    return seeds


def open_pool(game: Game, slots: int, *, official: bool = False, workers: int = 0, anywhere: bool = False) -> HostPool:
    """Open `slots` environments of a game.

    Args:
      game: from `games.find`.
      slots: most episodes side by side.
      official: the game that scores are published for, instead of the training one: Gymnasium's CarRacing-v3;
        ALE/X-v5 (frame skip 4, sticky actions 0.25, full-screen RGB); Procgen on its unseen test levels.
      anywhere: begin episodes somewhere on the track, where the game runs on the device, and of Atari by Gymnasium at
        any time of a game in which nobody acts; elsewhere, and in the official game, ignored.
      workers: threads (EnvPool) or processes (Gymnasium) (0: `env.threads`, and one per core if that is 0 too).
    """
    announce(game)
    if game.env.backend == "device" and not official:
        from wm_jax.envs.car_racing import CarRacing
        from wm_jax.envs.device import DeviceEngine, DeviceGame

        return EpisodePool(game, slots, DeviceEngine(DeviceGame(CarRacing(), anywhere)))
    # Imported late: EnvPool takes a second to import and isn't needed for Gymnasium games, nor the other way round.
    if game.envpool_id is None or game.env.backend == "gymnasium" or (official and game.gymnasium_id is not None):
        from wm_jax.envs.host.gymnasium import open_engine

        return EpisodePool(game, slots, open_engine(game, slots, official=official, workers=workers, anywhere=anywhere))
    from wm_jax.envs.host.envpool import EnvPoolEngine

    return EpisodePool(game, slots, EnvPoolEngine(game, test_levels=official, workers=workers))
