"""FactorVAE: z's dimensions are kept independent by a discriminator that tells z from z with its dimensions shuffled.

Kim & Mnih 2018, "Disentangling by Factorising" (arXiv 1802.05983).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import FactorConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, two_objectives
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.layers import LogOdds
from wm_jax.models.vae.losses import discriminator_cross_entropy, warm_up_factor


def leaky_relu(x: Array) -> Array:
    """max(x, 0.2 x), the discriminator's activation."""
    return jax.nn.leaky_relu(x, 0.2)


class Factor(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: FactorConfig
    objectives = two_objectives("discriminator")

    def __init__(self, config: FactorConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        width, layers = config.discriminator_width, config.discriminator_layers
        self.discriminator = LogOdds(config.latent, width, layers, rngs, leaky_relu)  # that z is not shuffled

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """KL + gamma TC(z), eq. 2: both in nats, summed over latents, so the paper's gamma holds beside a summed error.

        beta, floor and capacity apply to the KL alone (`losses.kl_term`), the warm-up to both terms.
        """
        penalty, metrics = super().penalty(posterior, z, update)
        total_correlation = jnp.mean(self.discriminator(z))  # TC = E log(D / (1 - D)), eq. 3
        weight = self.config.total_correlation_weight * warm_up_factor(update.step, self.config.warm_up)
        penalty += weight * total_correlation
        return penalty, metrics | {"total_correlation": total_correlation}

    def discriminator_loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """The discriminator's cross-entropy. The batch itself is shuffled; algorithm 2 encodes a second batch for that.

        With it an update takes about 1.4 times as long as vanilla's: frames are encoded once more, which is an eighth
        of an update's products, and eight passes of each z through 2 million weights are as many again, in float32.
        """
        noise_key, shuffle_key = jax.random.split(update.key)
        z = jax.lax.stop_gradient(self.encode(batch.encoder_input).sample(noise_key))
        loss = discrimination(self.discriminator, z, shuffled(z, shuffle_key))
        return loss, {"discriminator_loss": loss}


def discrimination(discriminator: LogOdds, joint: Float[Array, "B Z"], independent: Float[Array, "B Z"]) -> Scalar:
    """The cross-entropy of telling samples of q(z) from samples of prod_j q(z_j), algorithm 2; log 2 by guessing."""
    return 0.5 * discriminator_cross_entropy(discriminator(joint), discriminator(independent))


def shuffled(z: Float[Array, "B Z"], key: Key[Array, ""]) -> Float[Array, "B Z"]:
    """Each dimension permuted across the batch by itself, algorithm 1: samples of prod_j q(z_j)."""
    return jax.random.permutation(key, z, axis=0, independent=True)
