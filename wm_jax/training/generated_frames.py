"""Frames for V that are driven while it trains and never stored, where the game runs on the device.

A block of episodes is played by the exploring policy, on levels of its own; its frames make some updates' batches, in
random order and each once; then the next block is played. Block b depends on the seed and on b alone, so a resumed
training sees what an undisturbed one sees.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.envs.device import start_all, step_all
from wm_jax.envs.spaces import ActionSpace
from wm_jax.envs.types import DeviceGame
from wm_jax.rollout.exploration import plan
from wm_jax.utils import streams
from wm_jax.utils.arrays import choose_rows
from wm_jax.utils.errors import UsageError

EPISODES = 64
"""Episodes of a block, side by side."""
EVERY = 2
"""Of its frames every so many are kept: neighbours show nearly the same."""


class GeneratedFrames:
    """A source of batches (`data.frames.Batches`) that never repeats itself.

    Args:
      game: as it makes training data (`DeviceGame.for_training`).
      actions: those of its actions that are played.
      batch: B.
      seed: of the training.
      steps: of an episode.
      policy, hold: as the settings of `collect`.
    """

    batch_axis = 1
    data = ()

    def __init__(
        self,
        game: DeviceGame,
        actions: ActionSpace,
        batch: int,
        seed: int,
        *,
        steps: int,
        policy: str,
        hold: float,
    ):
        self._game, self._actions, self._batch, self._seed = game, actions, batch, seed
        self._steps, self._policy, self._hold = steps // EVERY * EVERY, policy, hold
        self._updates = EPISODES * (self._steps // EVERY) // batch
        if self._updates == 0:
            raise UsageError(
                f"vae.batch {batch}: vae.frames generated drives {EPISODES * self._steps // EVERY} frames at a time; "
                "give a smaller batch, or more collect.episode_steps"
            )
        self._blocks: dict[int, jax.Array] = {}

    def references(self, step: int, count: int, room: int) -> jax.Array:
        """Frames uint8 [room, B, 64, 64, 3]; rows past `count` are unused."""
        places = range(step, step + count)
        needed = {place // self._updates for place in places}
        self._blocks = {number: self._block(number) for number in sorted(needed)}
        rows = [self._blocks[place // self._updates][place % self._updates] for place in places]
        return jnp.stack(rows + [rows[-1]] * (room - count))

    def fetch(self, data: tuple[()], reference: jax.Array) -> jax.Array:
        """uint8 [B, 64, 64, 3]."""
        return reference

    def close(self) -> None:
        """See `data.frames.Batches`."""
        self._blocks = {}

    def _block(self, number: int) -> jax.Array:
        """uint8 [updates, B, 64, 64, 3]."""
        if number in self._blocks:
            return self._blocks[number]
        # The streams' name is older than the setting's; another one would draw other frames.
        seeds = [streams.integer(self._seed, "fresh", number, episode) for episode in range(EPISODES)]
        plans = np.stack([plan(self._policy, self._actions, seed, self._steps, self._hold) for seed in seeds])
        frames = _play(self._game, self._game.params_for(seeds), self._actions.in_game(jnp.asarray(plans)))
        order = streams.generator(self._seed, "fresh", number).permutation(frames.shape[0])
        return frames[order[: self._updates * self._batch]].reshape(self._updates, self._batch, *frames.shape[1:])


@partial(jax.jit, static_argnums=0)
def _play(game: DeviceGame, params: Any, plans: jax.Array) -> jax.Array:
    """The frames that are kept [F, 64, 64, 3] of N episodes with these actions [N, T] or [N, T, A], first ones among
    them. One that has ended begins again.
    """
    count, steps, *size = plans.shape
    begun = start_all(game, params, jnp.arange(count, dtype=jnp.int32))

    def step(before: tuple[jax.Array, Any], actions: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        now = before
        for action in actions:
            frames, states, _, ended = step_all(game, params, now[1], action)
            now = choose_rows(ended, begun, (frames, states))
        return now, before[0]

    pieces = jnp.moveaxis(plans, 1, 0).reshape(steps // EVERY, EVERY, count, *size)
    frames = jax.lax.scan(step, begun, pieces)[1]
    return frames.reshape(-1, *frames.shape[2:])
