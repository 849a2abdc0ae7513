"""What auto-encoders without noise share: networks, and a loss whose penalty alone differs."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.models.latents import Point
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.losses import error, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder


class PointVae(Vae):
    """One z for each frame; only all of them together are held against the prior."""

    config: BuiltInVaeConfig

    def __init__(self, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.z = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Point:
        """The z of frames in [0, 1]."""
        return Point(self.z(self.encoder(frames)))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error, summed over pixels and averaged over B, + penalty.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike), and the penalty's.
        """
        z = self.encode(batch.seen).mode()
        decoded, target = self.decode(z), batch.target
        reconstruction = jnp.mean(squared_error(decoded, target))
        penalty, metrics = self.penalty(z, update)
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + penalty
        return loss, {"loss": loss, "reconstruction": reconstruction, **metrics}

    def penalty(self, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """What keeps the codes of a batch together near the prior; and metrics, with kl among them.

        There is no KL of a point: kl is the divergence in its place, before its weight.
        """
        raise NotImplementedError
