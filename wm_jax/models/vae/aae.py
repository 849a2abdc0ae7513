"""Adversarial auto-encoder: z without noise, whose distribution a discriminator keeps near the prior.

Makhzani et al. 2016, "Adversarial Autoencoders" (arXiv 1511.05644).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import AaeConfig
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, two_objectives
from wm_jax.models.vae.layers import LogOdds
from wm_jax.models.vae.losses import discriminator_cross_entropy
from wm_jax.models.vae.point import PenalisedPointVae


class Aae(PenalisedPointVae):
    """Prior N(0, 1)."""

    config: AaeConfig
    objectives = two_objectives("discriminator")

    def __init__(self, config: AaeConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        width, layers = config.discriminator_width, config.discriminator_layers
        self.discriminator = LogOdds(config.latent, width, layers, rngs)  # appendix A

    def penalty(self, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """The mean of -log D(z), times adversary_weight, where D is the probability that z comes from the prior.

        One z has no KL. The metric kl is KL(q(z) || p(z)) of all z together, as the discriminator sees it: the best one
        has the log odds log p(z) / q(z). It is an estimate, which may be negative.
        """
        log_odds = self.discriminator(z)
        # -log D in place of log(1 - D), for its gradients where D is sure (Goodfellow et al. 2014, section 3).
        deceiving = -jax.nn.log_sigmoid(log_odds)
        return self.config.adversary_weight * jnp.mean(deceiving), {"kl": -jnp.mean(log_odds)}

    def discriminator_loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """-log D(z of the prior) - log(1 - D(z of a frame)), averaged over the batch."""
        of_frames = jax.lax.stop_gradient(self.encode(batch.encoder_input).mode())
        of_prior = self.prior(update.key, len(of_frames))
        loss = discriminator_cross_entropy(self.discriminator(of_prior), self.discriminator(of_frames))
        return loss, {"discriminator_loss": loss}
