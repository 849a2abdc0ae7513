"""A world whose rules are known, so that a dream of it can be held against them: a sledge on a line of ice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from wm_jax.config.vaes import VaeConfig
from wm_jax.envs.spaces import Discrete
from wm_jax.envs.types import DeviceGame
from wm_jax.models.latents import Gaussian
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Update, Vae

WIDTH, SIDE = 8, 64
"""Of the sledge, and of the picture, in pixels."""
FIRST, LAST = 0, SIDE - WIDTH
"""Where the sledge's left edge may be; beyond them the ice ends."""
FASTEST = 2
PIXELS = 4
"""That the sledge moves in a step for each unit of its speed. Its place is a multiple of this."""
NOISE = 0.25
"""Deviation of z, in pixels."""


class Sled(NamedTuple):
    """Where the sledge's left edge is, in pixels, and its speed, which no picture shows; int32[] each."""

    place: Array
    speed: Array


@dataclass(frozen=True)
class Sledge(DeviceGame):
    """A push changes the speed by one, the speed moves the sledge in the same step, and the reward is the push: -1, 0
    or 1. Where the ice ends, the game ends.
    """

    name = "Sledge"
    actions = Discrete(("left", "rest", "right"), (0, 1, 2))
    episode_steps = 12

    def params_for(self, seeds: Sequence[int]) -> Array:
        keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
        return jax.vmap(lambda key: PIXELS * jax.random.randint(key, (), 2, LAST // PIXELS - 1))(keys)

    def start(self, params: Array, place: Array) -> tuple[Array, Sled]:
        sled = Sled(params[place].astype(jnp.int32), jnp.int32(0))
        return drawn(sled.place), sled

    def step(self, params, state, action):
        sled, reward, ended = moved(state, action)
        return drawn(sled.place), sled, reward, ended


def moved(sled: Sled, action: Array) -> tuple[Sled, Array, Array]:
    """The rules: the sledge after a step, the reward, and whether the game has ended."""
    push = action.astype(jnp.int32) - 1
    speed = jnp.clip(sled.speed + push, -FASTEST, FASTEST)
    place = sled.place + PIXELS * speed
    ended = (place < FIRST) | (place > LAST)
    return Sled(jnp.clip(place, FIRST, LAST), speed), push.astype(jnp.float32), ended


def drawn(place: Array) -> Array:
    """The picture uint8[64, 64, 3]: a tall bright bar."""
    columns = jnp.arange(SIDE)
    there = (columns >= place) & (columns < place + WIDTH)
    return jnp.where(there[None, :, None], jnp.uint8(230), jnp.uint8(30)) * jnp.ones((SIDE, 1, 3), jnp.uint8)


class Ruler(Vae):
    """Made by hand, so that what a dream gets wrong is M's doing: z is the sledge's place, and a meaningless number."""

    SCALE = (LAST - FIRST) / 2

    def __init__(self, config: VaeConfig, rngs: nnx.Rngs):
        self.config = config
        self.nothing = nnx.Param(jnp.zeros(()))

    def encode(self, frames: Array) -> Gaussian:
        bright = frames[:, 0, :, 0] > 0.5
        place = jnp.argmax(bright, axis=1).astype(jnp.float32) / self.SCALE - 1
        mean = jnp.stack([place, jnp.zeros_like(place)], axis=1)
        return Gaussian(mean, jnp.full_like(mean, 2 * jnp.log(NOISE / self.SCALE)))

    def decode(self, z: Array) -> Array:
        return to_float(jax.vmap(drawn)(jnp.round(self.place(z)).astype(jnp.int32)))

    def place(self, z: Array) -> Array:
        """Where z [..., 2] says that the sledge is, in pixels."""
        return (z[..., 0] + 1) * self.SCALE

    def loss(self, batch: Batch, update: Update) -> tuple[Array, dict[str, Array]]:
        loss = jnp.square(self.nothing[...])
        return loss, {"loss": loss, "reconstruction": loss, "kl": loss}
