"""What auto-encoders with a Gaussian for each frame share: networks, and a loss whose penalty alone differs."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.layers import Perceptron
from wm_jax.models.vae.losses import error, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder

Scalar = Float[Array, ""]


class GaussianLayer(nnx.Module):
    """Some numbers to a Gaussian over others, such as one level of z given that above it."""

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, rngs: nnx.Rngs):
        self.both = Perceptron((inputs, *hidden, 2 * outputs), rngs)

    def __call__(self, x: Float[Array, "B I"]) -> Gaussian:
        """N(mean, exp(log_var)), both functions of the inputs."""
        return Gaussian(*jnp.split(self.both(x), 2, axis=-1))


class GaussianVae(Vae):
    """Posterior N(mean, exp(log_var))."""

    config: BuiltInVaeConfig

    def __init__(self, config: BuiltInVaeConfig, rngs: nnx.Rngs, beside: int = 0):
        """The networks.

        Args:
          beside: how many numbers the decoder is given beside z.
        """
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.mean = self.encoder.head(config.latent, rngs)
        self.log_var = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent + beside, config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Gaussian:
        """What frames in [0, 1] say about z."""
        features = self.encoder(frames)
        return Gaussian(self.mean(features), self.log_var(features))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + penalty, each summed over pixels or latents and averaged over B.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike), and the penalty's.
        """
        posterior = self.encode(batch.seen)
        z = posterior.sample(update.key)
        decoded, target = self.decode(z), batch.target
        reconstruction = jnp.mean(squared_error(decoded, target))
        penalty, metrics = self.penalty(posterior, z, update)
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + penalty
        return loss, {"loss": loss, "reconstruction": reconstruction, **metrics}

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """What keeps z near the prior; and metrics, with kl among them: the KL in nats before any weight or floor.

        Args:
          z: a sample of the posterior.
        """
        raise NotImplementedError
