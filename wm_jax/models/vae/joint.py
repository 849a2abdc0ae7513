"""JointVAE: z is Gaussian but for a few choices between classes, and each part is held to a capacity of its own.

Dupont 2018, "Learning Disentangled Joint Continuous and Discrete Representations" (arXiv 1804.00104).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import JointConfig
from wm_jax.models.latents import Classes, Gaussian, Joint
from wm_jax.models.vae.categorical import relaxed
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.losses import error, kl_to_standard_normal, kl_to_uniform, pressure, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.utils.errors import UserError


class JointVae(Vae):
    """Prior: N(0, 1), and all classes alike."""

    config: JointConfig

    def __init__(self, config: JointConfig, rngs: nnx.Rngs):
        self.config = config
        self.choices = config.groups * config.classes
        self.numbers = config.latent - self.choices
        if self.numbers < 1:
            raise UserError(
                f"vae.latent {config.latent}: {config.groups} choices (vae.groups) between {config.classes} classes "
                "(vae.classes) leave nothing of it for the Gaussian part; give more, or fewer of these"
            )
        self.encoder = make_encoder(config, rngs)
        self.mean = self.encoder.head(self.numbers, rngs)
        self.log_var = self.encoder.head(self.numbers, rngs)
        self.logits = self.encoder.head(self.choices, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Joint:
        """What frames in [0, 1] say about z."""
        features = self.encoder(frames)
        logits = self.logits(features).reshape(len(frames), self.config.groups, self.config.classes)
        return Joint(Gaussian(self.mean(features), self.log_var(features)), Classes(logits))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Numbers from N(0, 1), and classes drawn uniformly."""
        zeros = jnp.zeros((count, self.numbers), jnp.float32)
        logits = jnp.zeros((count, self.config.groups, self.config.classes), jnp.float32)
        return Joint(Gaussian(zeros, zeros), Classes(logits)).sample(key)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + gamma |KL(q(z) || N(0, 1)) - C_z| + gamma |KL(q(c) || uniform) - C_c|, the paper's objective.

        Sums over pixels and latents; means over B. Choices are relaxed in training; for figures they are real ones.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike), kl, of both parts in nats
          before any weight, and kl_of_choices, what of it is that of the classes.
        """
        posterior = self.encode(batch.seen)
        z = self._relaxed(posterior, update) if update.training else posterior.sample(update.key)
        decoded, target = self.decode(z), batch.target
        numbers, choices = kl_to_standard_normal(posterior.numbers), kl_to_uniform(posterior.choices)
        penalty = pressure(numbers, self.config, update.step, self.numbers)
        penalty += pressure(choices, self._of_choices, update.step, self.config.groups)
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + penalty
        return loss, {
            "loss": loss,
            "reconstruction": jnp.mean(squared_error(decoded, target)),
            "kl": jnp.mean(numbers + choices),
            "kl_of_choices": jnp.mean(choices),
        }

    def _relaxed(self, posterior: Joint, update: Update) -> Array:
        """A sample whose choices are relaxed, for training."""
        ours, theirs = jax.random.split(update.key)
        choices = relaxed(posterior.choices, self.config.temperature, theirs)
        return jnp.concatenate([posterior.numbers.sample(ours), choices], axis=1)

    @property
    def _of_choices(self) -> JointConfig:
        """The settings with the capacity of the choices: no more than they can hold, G log C."""
        config = self.config
        most = config.groups * math.log(config.classes)
        capacity = None if config.capacity is None else min(config.class_capacity, most)
        return config.model_copy(update={"capacity": capacity})
