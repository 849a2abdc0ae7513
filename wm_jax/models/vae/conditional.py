"""Conditional VAE: the decoder is told the action that led to the frame, p(x | z, c), so that z need not hold it.

Sohn, Lee & Yan 2015, "Learning Structured Output Representation using Deep Conditional Generative Models" (NeurIPS),
with p(z) for their p(z | c). Only training knows actions: a learned null condition, in place of a tenth of them,
teaches the decoder to do without (as Ho & Salimans 2022, arXiv 2207.12598, do for diffusion).

The encoder does not see c: M and C are given z of frames alone, by the same q(z | x) that was trained. The bound holds
with it as with q(z | x, c), of which it is the special case that leaves c unused.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import ConditionalConfig
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import error, kl_to_standard_normal, pressure, squared_error
from wm_jax.utils.errors import UserError


class Conditional(GaussianVae):
    """Prior N(0, 1), whatever the condition."""

    config: ConditionalConfig
    conditioned_on = "action"

    def __init__(self, config: ConditionalConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs, beside=config.condition)
        self.null = nnx.Param(jnp.zeros(config.condition, jnp.float32))

    def decode(
        self, z: Float[Array, "B Z"], condition: Float[Array, "B K"] | None = None
    ) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1].

        Args:
          condition: of each; None for the null condition.
        """
        return self._decode(z, self._nulls(len(z)) if condition is None else self._padded(condition))

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error of p(x | z, c) + KL(q(z | x) || N(0, 1)), each summed over pixels or latents and averaged over B.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike) and kl (in nats before any
          weight or floor).
        """
        z_key, null_key = jax.random.split(update.key)
        posterior = self.encode(batch.seen)
        z = posterior.sample(z_key)
        condition = self._nulls(len(z)) if batch.condition is None else self._padded(batch.condition)
        if update.training:
            dropped = jax.random.bernoulli(null_key, self.config.unconditioned, (len(z), 1))
            condition = jnp.where(dropped, self._nulls(len(z)), condition)
        decoded, target = self._decode(z, condition), batch.target
        kl = kl_to_standard_normal(posterior)
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + pressure(kl, self.config, update.step)
        return loss, {"loss": loss, "reconstruction": jnp.mean(squared_error(decoded, target)), "kl": jnp.mean(kl)}

    def _decode(self, z: Float[Array, "B Z"], condition: Float[Array, "B K"]) -> Float[Array, "B side side 3"]:
        return self.decoder(jnp.concatenate([z, condition], axis=1))

    def _nulls(self, count: int) -> Float[Array, "count K"]:
        return jnp.broadcast_to(self.null[...][None, :], (count, self.config.condition))

    def _padded(self, condition: Float[Array, "B A"]) -> Float[Array, "B K"]:
        """With zeros up to the size that the decoder takes."""
        given, room = condition.shape[1], self.config.condition
        if given > room:
            raise UserError(f"vae.condition {room}: an action of this game is {given} numbers; give {given}")
        return jnp.pad(condition, ((0, 0), (0, room - given)))
