"""FactorVAE: z's dimensions are kept independent by a discriminator that tells z from z with its dimensions shuffled.

Kim & Mnih 2018, "Disentangling by Factorising" (arXiv 1802.05983).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import FactorConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Objective, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.layers import Perceptron
from wm_jax.models.vae.losses import kl_to_standard_normal, pressure

DISCRIMINATOR = nnx.PathContains("discriminator")


def leaky_relu(x: Array) -> Array:
    """With a slope of 0.2 below 0."""
    return jax.nn.leaky_relu(x, 0.2)


class Discriminator(Perceptron):
    """The log odds log(D(z) / (1 - D(z))) that z is one, and not put together from several."""

    def __init__(self, config: FactorConfig, rngs: nnx.Rngs):
        sizes = (config.latent, *[config.discriminator_width] * config.discriminator_layers, 1)
        super().__init__(sizes, rngs, leaky_relu)

    def __call__(self, z: Float[Array, "B Z"]) -> Float[Array, "B"]:
        """For each z."""
        return super().__call__(z)[:, 0]


class Factor(GaussianVae):
    """Prior N(0, 1)."""

    config: FactorConfig
    objectives = (
        Objective("loss", nnx.All(nnx.Param, nnx.Not(DISCRIMINATOR))),
        Objective("discriminator_loss", nnx.All(nnx.Param, DISCRIMINATOR)),
    )

    def __init__(self, config: FactorConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.discriminator = Discriminator(config, rngs)

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """KL + gamma TC(z), eq. 2: both in nats, summed over latents, so the paper's gamma holds beside a sum."""
        kl = kl_to_standard_normal(posterior)
        correlation = jnp.mean(self.discriminator(z))  # TC = E log(D / (1 - D)), eq. 3
        penalty = pressure(kl, self.config, update.step) + self.config.total_correlation * correlation
        return penalty, {"kl": jnp.mean(kl), "total_correlation": correlation}

    def discriminator_loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """What telling them apart costs. The batch itself is shuffled, where algorithm 2 encodes a second one.

        An update is about 1.4 of vanilla's: frames are encoded once more, an eighth of its products, and eight passes
        of each z through 2 million weights are as many again, in float32.
        """
        noise_key, shuffle_key = jax.random.split(update.key)
        z = self.encode(batch.seen).sample(noise_key)
        loss = discrimination(self.discriminator, z, shuffled(z, shuffle_key))
        return loss, {"discriminator": loss}


def discrimination(discriminator: Discriminator, joint: Float[Array, "B Z"], shuffled: Float[Array, "B Z"]) -> Scalar:
    """Cross-entropy of telling draws from q(z) from draws from prod_j q(z_j), algorithm 2; log(2) where it can't."""
    right = jax.nn.log_sigmoid(discriminator(joint)) + jax.nn.log_sigmoid(-discriminator(shuffled))
    return -0.5 * jnp.mean(right)


def shuffled(z: Float[Array, "B Z"], key: Key[Array, ""]) -> Float[Array, "B Z"]:
    """Each dimension by a permutation of its own across the batch, algorithm 1: draws from prod_j q(z_j)."""
    return jax.random.permutation(key, z, axis=0, independent=True)
