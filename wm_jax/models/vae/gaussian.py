"""What auto-encoders with a Gaussian posterior share: the networks; and for most of them, the form of the loss."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import BuiltInVaeConfig, KlConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.layers import Perceptron
from wm_jax.models.vae.losses import kl_term, kl_to_standard_normal, reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder


class GaussianLayer(nnx.Module):
    """A small network to a diagonal Gaussian, such as one level of z given the level above."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, rngs: nnx.Rngs):
        self.mean_and_log_var = Perceptron((inputs, *hidden, 2 * outputs), rngs)

    def __call__(self, x: Float[Array, "B I"]) -> Gaussian:
        """N(mean, exp(log_var)), both functions of the inputs."""
        return Gaussian(*jnp.split(self.mean_and_log_var(x), 2, axis=-1))


class GaussianVae(Vae):
    """Posterior N(mean, exp(log_var)); the loss is the subclass's."""

    config: BuiltInVaeConfig

    def __init__(self, config: BuiltInVaeConfig, rngs: nnx.Rngs, context: int = 0):
        """The networks.

        Args:
          context: numbers that the decoder is given beside z.
        """
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.mean = self.encoder.head(config.latent, rngs)
        self.log_var = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs, context)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Gaussian:
        """The posterior q(z | x) of frames x in [0, 1]."""
        features = self.encoder(frames)
        return Gaussian(self.mean(features), self.log_var(features))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)


class PenalisedGaussianVae(GaussianVae):
    """A Gaussian auto-encoder whose loss is an error plus a penalty: as it stands, the paper's V.

    Subclasses replace what is special about them: the penalty, the error (`distance`), or how z is decoded
    (`reconstruct`).
    """

    config: KlConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + penalty, each summed over pixels or latents and averaged over the batch.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`) and the penalty's.
        """
        z_key, penalty_key, decoding_key = jax.random.split(update.key, 3)
        posterior = self.encode(batch.encoder_input)
        z = posterior.sample(z_key)
        decoded = self.reconstruct(z, batch, update._replace(key=decoding_key))
        error, error_metrics = self.distance(decoded, batch)
        penalty, penalty_metrics = self.penalty(posterior, z, update._replace(key=penalty_key))
        loss = error + penalty
        return loss, {"loss": loss, **error_metrics, **penalty_metrics}

    def reconstruct(self, z: Float[Array, "B Z"], batch: Batch, update: Update) -> Float[Array, "B side side 3"]:
        """The frames that are decoded from a sample z, in [0, 1]."""
        return self.decode(z)

    def distance(self, decoded: Float[Array, "B side side 3"], batch: Batch) -> tuple[Scalar, Metrics]:
        """The error of decoded frames in [0, 1]; and metrics, among them reconstruction."""
        return reconstruction_error(decoded, batch, self.config)

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """What keeps z near the prior: beta * max(KL, free_nats * Z) (`losses.kl_term`); and metrics.

        Args:
          z: a sample of the posterior.

        Returns:
          The penalty, and metrics, among them kl: in nats, before any weight or floor.
        """
        kl = kl_to_standard_normal(posterior)
        return kl_term(kl, self.config, update.step), {"kl": jnp.mean(kl)}
