"""Conditional VAE: the decoder is told the action that led to the frame, p(x | z, c), so that z need not hold it.

Sohn, Lee & Yan 2015, "Learning Structured Output Representation using Deep Conditional Generative Models" (NeurIPS),
with p(z) in place of their p(z | c). Only training knows actions: for a tenth of the frames a learned null condition
takes their place, so that the decoder can do without them (as Ho & Salimans 2022, arXiv 2207.12598, do for diffusion).

The encoder does not see c, so that M and C are given z of frames alone, by the same q(z | x) that was trained. The loss
is still a bound on the likelihood: q(z | x) is a q(z | x, c) that ignores c.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import ConditionalConfig
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.utils.errors import UserError


class Conditional(PenalisedGaussianVae):
    """Prior N(0, 1), whatever the condition is."""

    config: ConditionalConfig
    conditioned_on = "action"

    def __init__(self, config: ConditionalConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs, context=config.condition)
        self.null = nnx.Param(jnp.zeros(config.condition, jnp.float32))

    def decode(
        self, z: Float[Array, "B Z"], condition: Float[Array, "B condition"] | None = None
    ) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1].

        Args:
          condition: of each z; None for the null condition.

        Raises:
          UserError: the condition has more numbers than the setting `condition`.
        """
        return self.decoder(z, self._nulls(len(z)) if condition is None else self._padded(condition))

    def reconstruct(self, z: Float[Array, "B Z"], batch: Batch, update: Update) -> Float[Array, "B side side 3"]:
        """See `PenalisedGaussianVae`: with the batch's condition, a part of which training replaces by the null one.

        Raises:
          UserError: the condition has more numbers than the setting `condition`.
        """
        condition = self._nulls(len(z)) if batch.condition is None else self._padded(batch.condition)
        if update.training:
            dropped = jax.random.bernoulli(update.key, self.config.unconditioned, (len(z), 1))
            condition = jnp.where(dropped, self._nulls(len(z)), condition)
        return self.decoder(z, condition)

    def _nulls(self, count: int) -> Float[Array, "count condition"]:
        return jnp.broadcast_to(self.null[...][None, :], (count, self.config.condition))

    def _padded(self, condition: Float[Array, "B A"]) -> Float[Array, "B condition"]:
        """With zeros up to the size that the decoder takes."""
        given, room = condition.shape[1], self.config.condition
        if given > room:
            raise UserError(f"vae.condition {room}: an action of this game is {given} numbers; give {given}")
        return jnp.pad(condition, ((0, 0), (0, room - given)))
