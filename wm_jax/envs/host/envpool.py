"""EnvPool behind the pool contract: CarRacing, Atari and Procgen stepped by C++ threads.

What EnvPool does that the contract doesn't allow, and how it is hidden here:

- seeds are fixed when a pool is made, so every start makes a new pool, and single slots can't restart;
- it resets by itself: the action after an episode's end is ignored and answers with the next episode's first frame.
  `EpisodePool` never steps an ended slot, so this is never seen;
- `recv` waits for exactly `batch_size` environments and would hang when fewer are in flight. `batch_size - 1` spare
  environments, which no caller knows of, are sent along then, and what they answer is dropped;
- its limits on the length of an episode would look like terminations or truncations that aren't ours: they are lifted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_jax.envs.host import qt
from wm_jax.envs.host.resize import require, shrink
from wm_jax.envs.types import LARGEST_SEED, Game, Step
from wm_jax.utils.errors import UserError
from wm_jax.utils.process import cores
from wm_jax.utils.sizes import FRAME

# Environments per EnvPool `recv`. A call costs some 20 microseconds, which matters beside Procgen's steps of 50 only;
# a filler costs a whole step, which matters for the others.
_BATCH = {"carracing": 2, "atari": 2, "procgen": 8}

# EnvPool must never end an episode by its own limit: the limit is ours, so that truncation is told from termination.
_NO_LIMIT = 2**30


class EnvPoolEngine:
    """An `Engine` that owns one EnvPool pool per start."""

    restart = device_game = None

    def __init__(self, game: Game, *, test_levels: bool, workers: int = 0):
        qt.preload()
        try:
            import envpool
        except ImportError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"env.backend envpool: EnvPool can't be loaded ({reason}); install it") from None
        self._make: Any = envpool.make
        self._game = game
        threads = workers or game.env.threads or cores()
        self._options = {**_options(game, test_levels), "num_threads": threads, "max_episode_steps": _NO_LIMIT}
        self._idle = game.actions.nothing(max(_BATCH.values()))
        self._pool: Any = None

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Engine`."""
        count = len(seeds)
        self._batch = min(_BATCH[self._game.family], max(1, count // 2))
        self._slots = count
        total = count + self._batch - 1
        self.close()
        self._pool = self._make(
            self._game.envpool_id,
            env_type="gymnasium",
            num_envs=total,
            batch_size=self._batch,
            seed=[*seeds, *seeds[: total - count]],
            **self._options,
        )
        self._flying = np.ones(total, bool)
        self._pool.async_reset()
        frames = np.empty((count, *FRAME), np.uint8)
        while self._flying[:count].any():
            step = self._recv_raw()
            frames[step.ids] = step.frames
        return frames

    def send(self, ids: NDArray[np.int32], actions: NDArray) -> None:
        """See `Engine`."""
        self._flying[ids] = True
        self._pool.send(actions, ids)

    def recv(self, most: int) -> Step:
        """See `Engine`."""
        parts = [self._recv_raw()]
        count = len(parts[0].ids)
        # More in the same go, as long as that needs no spares.
        while count == 0 or (count + self._batch <= most and self._flying[: self._slots].sum() >= self._batch):
            parts.append(self._recv_raw())
            count += len(parts[-1].ids)
        return Step(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def close(self) -> None:
        """See `Engine`."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _recv_raw(self) -> Step:
        """One EnvPool `recv` without what spares answered, so possibly empty."""
        missing = self._batch - int(self._flying.sum())
        if missing > 0:
            spares = self._slots + np.flatnonzero(~self._flying[self._slots :])[:missing].astype(np.int32)
            self.send(spares, self._idle[:missing])
        screens, reward, terminated, truncated, info = self._pool.recv()
        if self._game.family == "atari":
            screens = screens.transpose(0, 2, 3, 1)
        ids = info["env_id"].astype(np.int32)
        require(screens, (len(ids), *self._game.screen, 3), f"{self._game.name}: EnvPool's {self._game.envpool_id}")
        self._flying[ids] = False
        if (ids >= self._slots).any():
            known = ids < self._slots
            ids, screens = ids[known], screens[known]
            reward, terminated, truncated = reward[known], terminated[known], truncated[known]
        frames, lost = shrink(screens, self._game.crop), np.zeros(len(ids), bool)
        return Step(ids, frames, reward.astype(np.float32), terminated, truncated, lost)


def _options(game: Game, test_levels: bool) -> dict[str, Any]:
    """EnvPool's settings that make its game the one that Gymnasium or Procgen would play."""
    env = game.env
    if game.family == "procgen":
        first = env.test_first_level if test_levels else env.first_level
        last = env.first_level + env.levels if env.levels else env.test_first_level
        last = LARGEST_SEED if test_levels else last
        return {"start_level": first, "num_levels": last - first, "channel_first": False}
    if game.family == "atari":
        # Two differences to ALE/X-v5 remain: EnvPool shows, pixel by pixel, the brighter of the last two emulator
        # frames (ALE shows the last one), and begins with one no-op (noop_max 0 would crash it).
        return {
            "stack_num": 1,
            "gray_scale": False,
            "img_height": game.screen[0],
            "img_width": game.screen[1],
            "frame_skip": env.frame_skip,
            "repeat_action_probability": env.sticky,
            "use_fire_reset": False,
            "noop_max": 1,
        }
    return {}
