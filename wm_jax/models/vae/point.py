"""What auto-encoders without noise share: the networks; and for most of them, the form of the loss."""

from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.models.latents import Point
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.losses import reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder


class PointVae(Vae):
    """A frame is encoded to one z, without noise; the loss is the subclass's."""

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


class PenalisedPointVae(PointVae):
    """An auto-encoder without noise that compares all z of a batch with samples of the prior."""

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error, summed over pixels and averaged over the batch, + penalty.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`) and the penalty's.
        """
        z = self.encode(batch.encoder_input).mode()
        error, error_metrics = reconstruction_error(self.decode(z), batch, self.config)
        penalty, penalty_metrics = self.penalty(z, update)
        loss = error + penalty
        return loss, {"loss": loss, **error_metrics, **penalty_metrics}

    def penalty(self, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """What keeps the distribution of all z near the prior; and metrics, among them kl.

        A single point has no KL: kl is the divergence that is used in its place, before its weight.
        """
        raise NotImplementedError
