"""The paper's V: a Gaussian auto-encoder with a floor under its KL (Ha & Schmidhuber 2018, A.1)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.schema import VanillaConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.losses import kl_to_standard_normal, moving_weights, squared_error, with_noise_patches
from wm_jax.models.vae.networks import Decoder, Dense, Encoder


class Vanilla(Vae):
    """Posterior N(mean, exp(log_var)), prior N(0, 1)."""

    config: VanillaConfig

    def __init__(self, config: VanillaConfig, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Encoder(config, rngs)
        self.mean = Dense(self.encoder.features, config.latent, rngs)
        self.log_var = Dense(self.encoder.features, config.latent, rngs)
        self.decoder = Decoder(config.latent, config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Gaussian:
        """What frames in [0, 1] say about z."""
        features = self.encoder(frames)
        return Gaussian(self.mean(features), self.log_var(features))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def loss(self, batch: Batch, update: Update) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Squared error + beta * max(KL, free_nats * Z).

        Both are sums over pixels or latents, floored per sample, then averaged over B. What moves before a background,
        where these are given, counts more (`moving_weights`). There are noise patches in training alone.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike), kl (before the floor and
          the weight).
        """
        patch_key, z_key = jax.random.split(update.key)
        target = to_float(batch.frames)
        noised = update.training and self.config.noise_patches
        seen = with_noise_patches(target, patch_key) if noised else target
        posterior = self.encode(seen)
        decoded = self.decode(posterior.sample(z_key))
        reconstruction = error = jnp.mean(squared_error(decoded, target))
        if batch.still is not None:
            weights = moving_weights(target, to_float(batch.still), self.config.moving_weight)
            error = jnp.mean(squared_error(decoded, target, weights))
        kl = kl_to_standard_normal(posterior)
        floored = jnp.mean(jnp.maximum(kl, self.config.free_nats * self.config.latent))
        loss = error + self.config.beta * floored  # Higgins et al. 2017, eq. 4, with a floor under the KL
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": jnp.mean(kl)}
