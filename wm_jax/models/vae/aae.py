"""Adversarial auto-encoder: codes without noise, whose distribution a discriminator holds near the prior.

Makhzani et al. 2016, "Adversarial Autoencoders" (arXiv 1511.05644).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import AaeConfig
from wm_jax.models.vae.contract import Batch, Objective, Update
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.layers import Perceptron
from wm_jax.models.vae.point import PointVae

JUDGED_BY = nnx.PathContains("discriminator")


class Aae(PointVae):
    """Prior N(0, 1)."""

    config: AaeConfig
    objectives = (
        Objective("loss", nnx.All(nnx.Param, nnx.Not(JUDGED_BY))),
        Objective("discriminator_loss", nnx.All(nnx.Param, JUDGED_BY)),
    )

    def __init__(self, config: AaeConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.discriminator = CodeDiscriminator(config.latent, config.discriminator, rngs)

    def penalty(self, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Adversary * (-log D(z)), one number of each frame, averaged over B.

        There is no KL of a frame's code. The metric kl is of all codes together, KL(q(z) || p(z)), as the discriminator
        sees it: the best one says log p(z) / q(z). It is an estimate, which may be negative.
        """
        log_odds = self.discriminator(z)  # that z is of the prior
        deceiving = -jax.nn.log_sigmoid(log_odds)  # for log(1 - D): gradients even where D is sure (Goodfellow 2014)
        return self.config.adversary * jnp.mean(deceiving), {"kl": -jnp.mean(log_odds)}

    def discriminator_loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """-log D(z of the prior) - log(1 - D(z of a frame)), means over B."""
        of_frames = self.encode(batch.seen).mode()
        of_prior = self.prior(update.key, len(of_frames))
        loss = -jnp.mean(
            jax.nn.log_sigmoid(self.discriminator(of_prior)) + jax.nn.log_sigmoid(-self.discriminator(of_frames))
        )
        return loss, {"discriminator_loss": loss}


class CodeDiscriminator(Perceptron):
    """Codes to the log odds that they are drawn from the prior: two hidden layers with ReLU (appendix A)."""

    def __init__(self, latent: int, hidden: int, rngs: nnx.Rngs):
        super().__init__((latent, hidden, hidden, 1), rngs, jax.nn.relu)

    def __call__(self, z: Float[Array, "B Z"]) -> Float[Array, "B"]:
        """Log odds."""
        return super().__call__(z)[:, 0]
