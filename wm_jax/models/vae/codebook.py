"""A codebook of vectors, and how training moves them to where the encoder's outputs are.

Moving averages: van den Oord et al. 2017, "Neural Discrete Representation Learning" (arXiv 1711.00937), appendix A.1.
Restarts: Dhariwal et al. 2020, "Jukebox" (arXiv 2005.00341), section 3.1.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import VqConfig
from wm_jax.models.variables import Buffer

SCALE = 0.5
"""Standard deviation of fresh vectors: about that of a fresh encoder's outputs."""
DEAD = 0.01
"""A vector that is chosen less often than this share of the average is dead."""


class Codebook(nnx.Module):
    """The vectors, of S numbers each: they are learned + placed.

    Attributes:
      learned: what gradients change; None where moving averages take their place.
      placed: what `observe` changes: the averages themselves, or how far restarts have moved the vectors.
      counts: how often each vector is chosen in an update, a moving average.
    """

    def __init__(self, config: VqConfig, size: int, rngs: nnx.Rngs):
        self.config = config
        vectors = SCALE * jax.random.normal(rngs.params(), (config.codes, size), jnp.float32)
        by_gradient = config.codebook == "learned"
        self.learned = nnx.Param(vectors) if by_gradient else None
        self.placed = Buffer(jnp.zeros_like(vectors) if by_gradient else vectors)
        self.counts = Buffer(jnp.ones(config.codes, jnp.float32))

    @property
    def vectors(self) -> Float[Array, "codes S"]:
        """The vectors."""
        return self.placed[...] if self.learned is None else self.learned[...] + self.placed[...]

    def nearest(self, parts: Float[Array, "N S"]) -> Int32[Array, "N"]:
        """The index of the vector that is nearest to each part: eq. 1."""
        vectors = self.vectors
        products = jnp.matmul(parts, vectors.T, precision="highest")
        return jnp.argmin(jnp.sum(jnp.square(vectors), axis=1)[None, :] - 2 * products, axis=1).astype(jnp.int32)

    def in_use(self) -> Float[Array, "codes"]:
        """1 for the vectors that are not dead, 0 for the others."""
        counts = self.counts[...]
        return (counts >= DEAD * jnp.mean(counts)).astype(jnp.float32)

    def observe(self, parts: Float[Array, "N S"], chosen: Int32[Array, "N"], key: Key[Array, ""]) -> None:
        """Update moving averages by a training batch, and restart dead vectors, where the settings ask for them.

        Args:
          parts: of the encoder's outputs.
          chosen: `nearest` of the parts.
          key: to draw the parts that restarted vectors are set to.
        """
        parts, before = jax.lax.stop_gradient((parts, self.vectors))
        decay, vectors = self.config.decay, before
        one_hot = jax.nn.one_hot(chosen, len(before), dtype=parts.dtype)
        chosen_now = jnp.sum(one_hot, axis=0)
        counts = decay * self.counts[...] + (1 - decay) * chosen_now  # eq. 6
        if self.learned is None:
            # Eq. 7 and 8 with m = N e inserted, so that a vector that is no longer chosen stays where it is, not 0 / 0.
            change = jnp.matmul(one_hot.T, parts, precision="highest") - chosen_now[:, None] * vectors
            vectors = vectors + (1 - decay) * change / jnp.maximum(counts, 1e-20)[:, None]
        if self.config.restarts:
            mean = jnp.mean(counts)
            dead = counts < DEAD * mean
            drawn = parts[jax.random.randint(key, (len(before),), 0, len(parts))]
            vectors = jnp.where(dead[:, None], drawn, vectors)
            counts = jnp.where(dead, mean, counts)
        self.placed[...] = self.placed[...] + (vectors - before)
        self.counts[...] = counts
