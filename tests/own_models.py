"""An auto-encoder of codes and a memory that looks back, as users bring them: the package knows of neither."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from wm_jax.config.vaes import VaeConfig
from wm_jax.models.latents import Codes, LatentKind
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Update, Vae

PIXELS, GROUPS = 8 * 8 * 3, 4


class TinyVq(Vae):
    """Every eighth pixel to four codes out of one book, straight through (van den Oord et al. 2017), and back."""

    def __init__(self, config: VaeConfig, rngs: nnx.Rngs, codes: int = 16):
        self.config, self.codes = config, codes
        self.inner = nnx.Linear(PIXELS, config.latent, rngs=rngs)
        self.outer = nnx.Linear(config.latent, PIXELS, rngs=rngs)
        self.book = nnx.Param(jax.random.normal(rngs.params(), (codes, config.latent // GROUPS), jnp.float32))

    @property
    def latent_kind(self) -> LatentKind:
        return LatentKind(self.config.latent, (GROUPS, self.codes))

    def _project(self, frames: Array) -> Array:
        with jax.numpy_rank_promotion("allow"):
            return self.inner(frames[:, ::8, ::8].reshape(len(frames), PIXELS))

    def encode(self, frames: Array) -> Codes:
        return self._nearest(self._project(frames))

    def _nearest(self, projected: Array) -> Codes:
        parts = projected.reshape(len(projected), GROUPS, 1, -1)
        indices = jnp.argmin(jnp.sum(jnp.square(parts - self.book[...][None, None]), -1), -1).astype(jnp.int32)
        return Codes(indices, self.book[...][indices].reshape(projected.shape))

    def decode(self, z: Array) -> Array:
        with jax.numpy_rank_promotion("allow"):
            small = jax.nn.sigmoid(self.outer(z)).reshape(len(z), 8, 8, 3)
        return jnp.repeat(jnp.repeat(small, 8, 1), 8, 2)

    def embed(self, target: Array) -> Array:
        return self.book[...][target].reshape(len(target), -1)

    def loss(self, batch: Batch, update: Update) -> tuple[Array, dict[str, Array]]:
        real = to_float(batch.frames)
        projected = self._project(real)
        vectors = self._nearest(projected).mode()
        through = projected + jax.lax.stop_gradient(vectors - projected)
        error = jnp.mean(jnp.sum(jnp.square(self.decode(through) - real), (1, 2, 3)))
        book = jnp.mean(jnp.square(vectors - jax.lax.stop_gradient(projected)))
        commitment = jnp.mean(jnp.square(projected - jax.lax.stop_gradient(vectors)))
        loss = error + book + 0.25 * commitment
        return loss, {"loss": loss, "reconstruction": error, "kl": commitment}


class Seen(NamedTuple):
    """The last inputs [n, reach, I], how many there have been [n], and the output [n, H]: a cache."""

    inputs: Array
    count: Array
    output: Array


class Attention(nnx.Module):
    """One head of causal attention over the last `reach` inputs of an episode."""

    def __init__(self, inputs: int, hidden: int, fast: bool, rngs: nnx.Rngs, reach: int = 4):
        self.inputs, self.hidden, self.reach = inputs, hidden, reach
        make = nnx.initializers.lecun_normal()
        self.query, self.key, self.value = (nnx.Param(make(rngs.params(), (inputs, hidden))) for _ in range(3))
        self.place = nnx.Param(0.1 * jax.random.normal(rngs.params(), (reach, hidden)))
        self.out = nnx.Param(make(rngs.params(), (hidden, hidden)))

    def init_carry(self, n: int) -> Seen:
        return Seen(jnp.zeros((n, self.reach, self.inputs)), jnp.zeros(n, jnp.int32), jnp.zeros((n, self.hidden)))

    @jax.numpy_rank_promotion("allow")
    def step(self, carry: Seen, x: Array) -> Seen:
        inputs = jnp.concatenate([carry.inputs[:, 1:], x[:, None]], 1)
        count = carry.count + 1
        return Seen(inputs, count, self._attend(inputs, count))

    @jax.numpy_rank_promotion("allow")
    def _attend(self, inputs: Array, count: Array) -> Array:
        """What the last of the inputs [..., reach, I] makes of those that there have been."""
        keys = inputs @ self.key[...] + self.place[...].reshape((1,) * (inputs.ndim - 2) + self.place[...].shape)
        scores = jnp.einsum("...h,...rh->...r", inputs[..., -1, :] @ self.query[...], keys) / self.hidden**0.5
        there = jnp.arange(self.reach) >= self.reach - count[..., None]
        weights = jax.nn.softmax(jnp.where(there, scores, -jnp.inf), -1)
        return jnp.tanh(jnp.einsum("...r,...rh->...h", weights, inputs @ self.value[...]) @ self.out[...])

    @jax.numpy_rank_promotion("allow")
    def unroll(self, carry: Seen, x: Array, is_first: Array) -> tuple[Seen, Array]:
        """All steps at once, each over its own window."""
        time = jnp.arange(len(x), dtype=jnp.int32)[:, None]
        begun = jax.lax.cummax(jnp.where(is_first, time, -1))
        count = jnp.where(begun >= 0, time - begun, carry.count[None] + time) + 1
        row = jnp.concatenate([jnp.moveaxis(carry.inputs, 1, 0), x])
        windows = jnp.moveaxis(row[time + jnp.arange(1, self.reach + 1)[None]], 1, 2)
        # What lies before an episode is as it is in a cache that has just begun.
        there = jnp.arange(self.reach) >= self.reach - count[..., None]
        windows = jnp.where(there[..., None], windows, 0.0)
        output = self._attend(windows, count)
        return Seen(windows[-1], count[-1], output[-1]), output

    def visible(self, carry: Seen) -> tuple[Array, ...]:
        return (carry.output,)
