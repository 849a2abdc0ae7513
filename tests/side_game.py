"""A game whose pictures have two factors, and whose best play is known: say on which side a square is."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from wm_jax.envs.spaces import Discrete
from wm_jax.envs.types import DeviceGame

ROWS, COLUMNS, SQUARE = (0, 22, 44), (0, 14, 30, 44), 20
"""Where the square's upper left corner may be, and its side, in pixels."""


@dataclass(frozen=True)
class Sides(DeviceGame):
    """A square jumps to any row and column after every step; 1 for the action that names the half it was in, else 0."""

    name = "Sides"
    actions = Discrete(("left", "right"), (0, 1))
    episode_steps = 20

    def params_for(self, seeds: Sequence[int]) -> jax.Array:
        return jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))

    def start(self, params: jax.Array, place: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return self._jump(params[place])

    def step(self, params, state, action):
        key, column = state
        right = (action == 1) == (column >= len(COLUMNS) // 2)
        return *self._jump(key), right.astype(jnp.float32), jnp.bool_(False)

    def factors(self, params, state):
        return {"column": jnp.array(COLUMNS, jnp.float32)[state[1]]}

    def _jump(self, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The picture of a square somewhere, and the state."""
        key, *own = jax.random.split(key, 3)
        row, column = (jax.random.randint(k, (), 0, len(each)) for k, each in zip(own, (ROWS, COLUMNS), strict=True))
        square = jnp.broadcast_to(jnp.array((255, 160, 32), jnp.uint8), (SQUARE, SQUARE, 3))
        corner = jnp.array(ROWS)[row], jnp.array(COLUMNS)[column], 0
        return jax.lax.dynamic_update_slice(jnp.full((64, 64, 3), 40, jnp.uint8), square, corner), (key, column)
