"""A game of one's own as a function of JAX: a white square looks for a red one. No file of the package knows of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wm_jax.envs.spaces import Discrete
from wm_jax.envs.types import DeviceGame

MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))


@dataclass(frozen=True)
class Grid(DeviceGame):
    """Squares of 8 x 8 pixels; each step costs 0.1, the red square pays 1 and ends the game."""

    side: int = 8
    name = "Grid"
    actions = Discrete(("left", "right", "up", "down"), (0, 1, 2, 3))
    episode_steps = 30
    solved = 0.5

    def params_for(self, seeds: Sequence[int]) -> jax.Array:
        return jnp.array([[seed % self.side, seed // self.side % self.side] for seed in seeds], jnp.int32)

    def start(self, params: jax.Array, place: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        state = jnp.full(2, self.side // 2, jnp.int32), params[place]
        return self._draw(*state), state

    def step(self, params, state, action):
        at = jnp.clip(state[0] + jnp.array(MOVES, jnp.int32)[action], 0, self.side - 1)
        found = jnp.all(at == state[1])
        return self._draw(at, state[1]), (at, state[1]), jnp.where(found, 1.0, -0.1).astype(jnp.float32), found

    def _draw(self, at: jax.Array, goal: jax.Array) -> jax.Array:
        frame = jnp.zeros((64, 64, 3), jnp.uint8)
        for place, colour in ((goal, (255, 0, 0)), (at, (255, 255, 255))):
            square = jnp.broadcast_to(jnp.array(colour, jnp.uint8), (8, 8, 3))
            frame = jax.lax.dynamic_update_slice(frame, square, (8 * place[0], 8 * place[1], 0))
        return frame
