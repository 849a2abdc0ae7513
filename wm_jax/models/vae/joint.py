"""JointVAE: z has a Gaussian part and a few groups of classes, and the KL of each part has a capacity of its own.

Dupont 2018, "Learning Disentangled Joint Continuous and Discrete Representations" (arXiv 1804.00104).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import JointConfig
from wm_jax.models.latents import Classes, Gaussian, Joint
from wm_jax.models.vae.classes import relaxed
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.layers import Dense
from wm_jax.models.vae.losses import kl_term, kl_to_standard_normal, kl_to_uniform, reconstruction_error, warm_up_factor
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.utils.errors import UserError


class JointVae(Vae):
    """z is numbers and, after them, groups of classes. Prior: N(0, 1), and uniform."""

    config: JointConfig

    def __init__(self, config: JointConfig, rngs: nnx.Rngs):
        """The networks.

        Raises:
          UserError: the classes leave nothing of `latent` for the Gaussian part.
        """
        self.config = config
        one_hot = config.groups * config.classes
        self.number_count = config.latent - one_hot
        if self.number_count < 1:
            raise UserError(
                f"vae.latent {config.latent}: {config.groups} groups (vae.groups) of {config.classes} classes "
                "(vae.classes) leave nothing of it for the Gaussian part; give more, or fewer of these"
            )
        self.encoder = make_encoder(config, rngs)
        self.mean = self.encoder.head(self.number_count, rngs)
        self.log_var = self.encoder.head(self.number_count, rngs)
        self.logits = Dense(self.encoder.features, one_hot, rngs)  # not a head: they belong to no place of a grid
        self.decoder = make_decoder(self.number_count, config, rngs, context=one_hot)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Joint:
        """The posterior q(z | x) of frames x in [0, 1]."""
        features = self.encoder(frames)
        logits = self.logits(features).reshape(len(frames), self.config.groups, self.config.classes)
        return Joint(Gaussian(self.mean(features), self.log_var(features)), Classes(logits))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z[:, : self.number_count], z[:, self.number_count :])

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Numbers from N(0, 1), and classes drawn uniformly."""
        zeros = jnp.zeros((count, self.number_count), jnp.float32)
        logits = jnp.zeros((count, self.config.groups, self.config.classes), jnp.float32)
        return Joint(Gaussian(zeros, zeros), Classes(logits)).sample(key)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + gamma |KL(q(z|x) || N(0, 1)) - C_z| + gamma |KL(q(c|x) || uniform) - C_c|, the paper's objective.

        Sums over pixels and latents, averaged over the batch. gamma is the setting `beta`. Classes are relaxed in
        training, and one-hot when the loss is only measured.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`), kl (of both parts, in nats
          before any weight or capacity) and kl_classes (of the classes alone).
        """
        posterior = self.encode(batch.encoder_input)
        z = self._relaxed(posterior, update) if update.training else posterior.sample(update.key)
        error, metrics = reconstruction_error(self.decode(z), batch, self.config)
        kl_numbers, kl_classes = kl_to_standard_normal(posterior.numbers), kl_to_uniform(posterior.classes)
        penalty = kl_term(kl_numbers, self.config, update.step, self.number_count)
        penalty += kl_term(kl_classes, self.config, update.step, self.config.groups, self.class_capacity(update.step))
        loss, kl = error + penalty, jnp.mean(kl_numbers + kl_classes)
        return loss, {"loss": loss, **metrics, "kl": kl, "kl_classes": jnp.mean(kl_classes)}

    def class_capacity(self, step: Int32[Array, ""] | int) -> Scalar:
        """The classes' capacity C_c in nats: it rises with the updates, but not above their largest KL, G log C."""
        rising = self.config.class_capacity * warm_up_factor(step, self.config.capacity_steps)
        return jnp.minimum(rising, self.config.groups * math.log(self.config.classes))

    def _relaxed(self, posterior: Joint, update: Update) -> Array:
        """A sample with relaxed classes."""
        numbers_key, classes_key = jax.random.split(update.key)
        classes = relaxed(posterior.classes, self.config.temperature, classes_key)
        return jnp.concatenate([posterior.numbers.sample(numbers_key), classes], axis=1)
