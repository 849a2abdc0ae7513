"""VAE/GAN: reconstructions are compared by the features of a discriminator that tells decoded frames from real ones.

Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric" (arXiv 1512.09300).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import VaeGanConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, two_objectives
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.layers import ConvStack, Dense
from wm_jax.models.vae.losses import discriminator_cross_entropy

CHANNELS = (16, 32, 64)
"""Of the discriminator, whatever the width of the other networks is."""
LEAST_SQUARE = 1e-6
"""Is added to the mean square that features are divided by, which may be 0."""


class VaeGan(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: VaeGanConfig
    objectives = two_objectives("discriminator")

    def __init__(self, config: VaeGanConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.discriminator = FrameDiscriminator(config, rngs)

    def distance(self, decoded: Float[Array, "B side side 3"], batch: Batch) -> tuple[Scalar, Metrics]:
        """The distance feature_weight * L_like + pixel_weight * error (algorithm 1).

        L_like is half the squared error of the discriminator's features, summed over them. The paper has no pixel
        error; but at first the features are random, and what they miss is lost.
        """
        pixel_error, metrics = super().distance(decoded, batch)
        difference = self.discriminator.features(decoded) - self.discriminator.features(batch.target)
        feature_error = 0.5 * jnp.mean(jnp.sum(jnp.square(difference), axis=1))
        distance = self.config.feature_weight * feature_error + self.config.pixel_weight * pixel_error
        return distance, metrics | {"features": feature_error}

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """The KL's term + adversary_weight * deceiving (algorithm 1).

        deceiving is -log D of frames that are decoded from z and from samples of the prior. It is used in place of
        their log(1 - D), for its gradients where D is sure, and trains the decoder alone. The paper weighs L_like by
        gamma for the decoder instead; adversary_weight is 1 / gamma, which is the same for Adam.
        """
        penalty, metrics = super().penalty(posterior, z, update)
        of_prior = self.prior(update.key, len(z))
        log_odds = [self.discriminator(self.decode(each)) for each in (jax.lax.stop_gradient(z), of_prior)]
        deceiving = -jnp.mean(jax.nn.log_sigmoid(log_odds[0]) + jax.nn.log_sigmoid(log_odds[1]))
        return penalty + self.config.adversary_weight * deceiving, metrics | {"deceiving": deceiving}

    def discriminator_loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """-log D(x) - log(1 - D(decoded z)) - log(1 - D(decoded sample of the prior)), averages (algorithm 1)."""
        z_key, prior_key = jax.random.split(update.key)
        z = jax.lax.stop_gradient(self.encode(batch.encoder_input).sample(z_key))
        of_prior = self.prior(prior_key, len(z))
        real, decoded, generated = (
            self.discriminator(frames) for frames in (batch.target, self.decode(z), self.decode(of_prior))
        )
        loss = discriminator_cross_entropy(real, decoded, generated)
        return loss, {"discriminator_loss": loss}


class FrameDiscriminator(nnx.Module):
    """Frames to the log odds that they are real: three k4 s2 convolutions with ReLU, whose outputs are the features."""

    def __init__(self, config: VaeGanConfig, rngs: nnx.Rngs):
        self.convolutions = ConvStack(CHANNELS, config, rngs)
        self.last = Dense(self.convolutions.features, 1, rngs)

    def features(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B F"]:
        """The features of frames in [0, 1], divided by their root mean square.

        The paper does not divide. Without this their error would grow as D becomes sure.
        """
        features = self.convolutions(frames)
        return features * jax.lax.rsqrt(jnp.mean(jnp.square(features), axis=1, keepdims=True) + LEAST_SQUARE)

    def __call__(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B"]:
        """The log odds of each frame."""
        return self.last(self.features(frames))[:, 0]
