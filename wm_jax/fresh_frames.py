"""Frames for V that are driven while it trains and never stored, where the game runs on the device.

A block of episodes is played by the exploring policy, on tracks of its own; its frames make some updates' batches, in
random order and each once; then the next block is played. Block b depends on the seed and on b alone, so a resumed
training sees what an undisturbed one sees.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax import streams
from wm_jax.envs.car_racing.endless import draw_tracks
from wm_jax.envs.device_game import sections_of, start_all, step_all
from wm_jax.errors import UsageError
from wm_jax.rollout import plan
from wm_jax.spaces import ActionSpace

if TYPE_CHECKING:
    from wm_jax.envs.car_racing import CarRacing

CARS = 64
"""Episodes of a block, side by side."""
EVERY = 2
"""Of its frames every so many are kept: neighbours show nearly the same."""


class FreshFrames:
    """A source of batches (`data.frames.Batches`) that never repeats itself.

    Args:
      env: the game.
      actions: what its actions are.
      batch: B.
      seed: of the training.
      steps: of an episode.
      policy, hold, anywhere: as the settings of `collect`.
    """

    batch_axis = 1
    data = ()

    def __init__(
        self,
        env: "CarRacing",
        actions: ActionSpace,
        batch: int,
        seed: int,
        *,
        steps: int,
        policy: str,
        hold: float,
        anywhere: bool,
    ):
        self._env, self._actions, self._batch, self._seed = env, actions, batch, seed
        self._steps, self._policy, self._hold, self._anywhere = steps // EVERY * EVERY, policy, hold, anywhere
        self._updates = CARS * (self._steps // EVERY) // batch
        if self._updates == 0:
            raise UsageError(
                f"--vae.batch {batch}: --vae.frames fresh drives {CARS * self._steps // EVERY} frames at a time; "
                "give a smaller batch, or more --collect.episode_steps"
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
        seeds = [streams.integer(self._seed, "fresh", number, car) for car in range(CARS)]
        plans = np.stack([plan(self._policy, self._actions, seed, self._steps, self._hold) for seed in seeds])
        from wm_jax.envs.car_racing import Params  # late, see there

        params, places = Params(tracks=draw_tracks(jax.random.key(seeds[0]), CARS)), np.arange(CARS, dtype=np.int32)
        sections = sections_of(params, places, seeds) if self._anywhere else np.zeros_like(places)
        frames = _drive(self._env, params, places, sections, jnp.asarray(plans))
        order = streams.generator(self._seed, "fresh", number).permutation(frames.shape[0])
        return frames[order[: self._updates * self._batch]].reshape(self._updates, self._batch, *frames.shape[1:])


@partial(jax.jit, static_argnums=0)
def _drive(env: "CarRacing", params: Any, places: jax.Array, sections: jax.Array, plans: jax.Array) -> jax.Array:
    """The frames that are kept [F, 64, 64, 3] of episodes with these actions [N, T, A], first ones among them.

    Lost games drive on.
    """

    def step(before: tuple[jax.Array, Any], actions: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        frames, states = before
        for action in actions:
            frames, states, _, _ = step_all(env, params, states, action)
        return (frames, states), before[0]

    count, steps = plans.shape[:2]
    pieces = jnp.moveaxis(plans, 1, 0).reshape(steps // EVERY, EVERY, count, -1)
    frames = jax.lax.scan(step, start_all(env, params, places, sections), pieces)[1]
    return frames.reshape(-1, *frames.shape[2:])
