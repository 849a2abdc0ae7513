"""What auto-encoders of classes share: the networks, the prior, the form of the loss, and relaxed classes.

z consists of G groups of C numbers; each group is the one-hot vector of one of C classes.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import KlConfig
from wm_jax.models.latents import Classes, LatentKind
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.losses import kl_term, kl_to_uniform, reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.models.vae.places import require_whole_parts


class ClassesVae(Vae):
    """Posterior: G independent groups, each a distribution over C classes. Prior: uniform."""

    config: KlConfig

    def __init__(self, config: KlConfig, groups: int, classes: int, rngs: nnx.Rngs):
        """The networks.

        Raises:
          UserError: a group would lie across two parts of z, a place's and the frame's.
        """
        require_whole_parts(config, classes, "a group (vae.classes)")
        self.config, self.groups, self.classes = config, groups, classes
        self.encoder = make_encoder(config, rngs)
        self.logits = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)

    @property
    def latent_kind(self) -> LatentKind:
        """See `Vae`."""
        return LatentKind(self.config.latent, (self.groups, self.classes))

    def encode(self, frames: Float[Array, "B side side 3"]) -> Classes:
        """The posterior q(z | x) of frames x in [0, 1]."""
        return Classes(self.logits(self.encoder(frames)).reshape(len(frames), self.groups, self.classes))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def embed(self, target: Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """See `Vae`: one-hot vectors."""
        return jax.nn.one_hot(target, self.classes, dtype=jnp.float32).reshape(len(target), -1)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples of the uniform distribution."""
        return Classes(jnp.zeros((count, self.groups, self.classes), jnp.float32)).sample(key)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + the KL's term (`losses.kl_term`), each summed over pixels or groups and averaged over the batch.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`) and kl, in nats before any
          weight or floor.
        """
        posterior = self.encode(batch.encoder_input)
        error, metrics = reconstruction_error(self.decode(self.draw(posterior, update)), batch, self.config)
        kl = kl_to_uniform(posterior)
        loss = error + kl_term(kl, self.config, update.step, self.kl_parts)
        return loss, {"loss": loss, **metrics, "kl": jnp.mean(kl)}

    @property
    def kl_parts(self) -> int:
        """How many parts of a frame's KL have `free_nats` each: the groups."""
        return self.groups

    def draw(self, posterior: Classes, update: Update) -> Float[Array, "B Z"]:
        """The z that the loss decodes: a sample, with the straight-through gradient of `Classes.sample`."""
        return posterior.sample(update.key)


def relaxed(posterior: Classes, temperature: float | Scalar, key: Key[Array, ""]) -> Float[Array, "B Z"]:
    """Samples between the classes, which become one-hot as the temperature goes to 0.

    Gumbel-softmax: Jang et al. 2017 (arXiv 1611.01144), eq. 2.
    """
    logits = jnp.asarray(posterior.logits)
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return jax.nn.softmax((jax.nn.log_softmax(logits) + noise) / temperature, axis=-1).reshape(len(logits), -1)
