"""Adversarial auto-encoder: codes without noise, whose distribution a discriminator holds near the prior.

Makhzani et al. 2016, "Adversarial Autoencoders" (arXiv 1511.05644).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import AaeConfig
from wm_jax.models.latents import Point
from wm_jax.models.vae.contract import Batch, Objective, Update, Vae
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.layers import Dense
from wm_jax.models.vae.losses import error, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder

JUDGED_BY = nnx.PathContains("discriminator")


class Aae(Vae):
    """Prior N(0, 1)."""

    config: AaeConfig
    objectives = (
        Objective("loss", nnx.All(nnx.Param, nnx.Not(JUDGED_BY))),
        Objective("discriminator_loss", nnx.All(nnx.Param, JUDGED_BY)),
    )

    def __init__(self, config: AaeConfig, rngs: nnx.Rngs):
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.code = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)
        self.discriminator = CodeDiscriminator(config.latent, config.discriminator, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Point:
        """The codes of frames in [0, 1]."""
        return Point(self.code(self.encoder(frames)))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + adversary * (-log D(z)): summed over pixels, and one number, of each frame; means over B.

        There is no KL of a frame's code. The metric kl is of all codes together, KL(q(z) || p(z)), as the discriminator
        sees it: the best one says log p(z) / q(z). It is an estimate, which may be negative.
        """
        config, z = self.config, self.encode(batch.seen).mode()
        decoded, target = self.decode(z), batch.target
        log_odds = self.discriminator(z)  # that z is of the prior
        deceiving = -jax.nn.log_sigmoid(log_odds)  # for log(1 - D): gradients even where D is sure (Goodfellow 2014)
        loss = jnp.mean(error(decoded, target, batch.weights, config) + config.adversary * deceiving)
        reconstruction = jnp.mean(squared_error(decoded, target))
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": -jnp.mean(log_odds)}

    def discriminator_loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """-log D(z of the prior) - log(1 - D(z of a frame)), means over B."""
        of_frames = self.encode(batch.seen).mode()
        of_prior = self.prior(update.key, len(of_frames))
        loss = -jnp.mean(
            jax.nn.log_sigmoid(self.discriminator(of_prior)) + jax.nn.log_sigmoid(-self.discriminator(of_frames))
        )
        return loss, {"discriminator_loss": loss}


class CodeDiscriminator(nnx.Module):
    """Codes to the log odds that they are drawn from the prior: two hidden layers with ReLU (appendix A)."""

    def __init__(self, latent: int, hidden: int, rngs: nnx.Rngs):
        self.layers = nnx.List(Dense(inputs, hidden, rngs) for inputs in (latent, hidden))
        self.last = Dense(hidden, 1, rngs)

    def __call__(self, z: Float[Array, "B Z"]) -> Float[Array, "B"]:
        """Log odds."""
        for layer in self.layers:
            z = jax.nn.relu(layer(z))
        return self.last(z)[:, 0]
