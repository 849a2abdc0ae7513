"""What auto-encoders whose z consists of choices between classes share: networks, prior, and the form of the loss."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import KlConfig
from wm_jax.models.latents import Classes, LatentKind
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.losses import error, kl_to_uniform, pressure, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder


class ClassesVae(Vae):
    """Posterior: G independent choices between C classes. Prior: all classes alike."""

    config: KlConfig

    def __init__(self, config: KlConfig, groups: int, classes: int, rngs: nnx.Rngs):
        self.config, self.groups, self.classes = config, groups, classes
        self.encoder = make_encoder(config, rngs)
        self.logits = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)

    @property
    def latent_kind(self) -> LatentKind:
        """See `Vae`."""
        return LatentKind(self.config.latent, (self.groups, self.classes))

    def encode(self, frames: Float[Array, "B side side 3"]) -> Classes:
        """What frames in [0, 1] say about z."""
        return Classes(self.logits(self.encoder(frames)).reshape(len(frames), self.groups, self.classes))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def embed(self, target: Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """See `Vae`: one-hot."""
        return jax.nn.one_hot(target, self.classes, dtype=jnp.float32).reshape(len(target), -1)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Classes drawn uniformly."""
        return Classes(jnp.zeros((count, self.groups, self.classes), jnp.float32)).sample(key)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + penalty, each summed over pixels or choices and averaged over B.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike), and kl, in nats before any
          weight or floor.
        """
        posterior = self.encode(batch.seen)
        decoded, target = self.decode(self.draw(posterior, update)), batch.target
        kl = kl_to_uniform(posterior)
        penalty = pressure(kl, self.config, update.step, self.floors)
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + penalty
        reconstruction = jnp.mean(squared_error(decoded, target))
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": jnp.mean(kl)}

    @property
    def floors(self) -> int:
        """How many times `free_nats` a frame's KL may be without a gradient."""
        return self.groups

    def draw(self, posterior: Classes, update: Update) -> Float[Array, "B Z"]:
        """What is to be decoded."""
        return posterior.sample(update.key)
