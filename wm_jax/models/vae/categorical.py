"""Categorical VAE: z consists of classes, whose samples Gumbel-softmax makes differentiable.

Jang, Gu and Poole 2017, "Categorical Reparameterization with Gumbel-Softmax" (arXiv 1611.01144); Maddison, Mnih and Teh
2017, "The Concrete Distribution" (arXiv 1611.00712). The KL is that of the classes themselves, in closed form: with
relaxed samples the loss is no bound on the likelihood (Jang et al., 4.2).
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32

from wm_jax.config.vaes import CategoricalConfig
from wm_jax.models.latents import Classes
from wm_jax.models.straight_through import straight_through
from wm_jax.models.vae.classes import ClassesVae, relaxed
from wm_jax.models.vae.contract import Scalar, Update
from wm_jax.utils.errors import UserError


class Categorical(ClassesVae):
    """Prior: uniform."""

    config: CategoricalConfig

    def __init__(self, config: CategoricalConfig, rngs: nnx.Rngs):
        """The networks.

        Raises:
          UserError: `latent` is not a multiple of `classes`.
        """
        groups, rest = divmod(config.latent, config.classes)
        if rest:
            raise UserError(
                f"vae.latent {config.latent}: it cannot be divided into groups of {config.classes} classes; give a "
                "multiple of vae.classes"
            )
        super().__init__(config, groups, config.classes, rngs)

    def draw(self, posterior: Classes, update: Update) -> Float[Array, "B Z"]:
        """Relaxed samples in training; one-hot ones, as M and C see them, when the loss is only measured."""
        if not update.training:
            return posterior.sample(update.key)
        z = relaxed(posterior, temperature(self.config, update.step), update.key)
        if self.config.straight_through:  # Jang et al., 2.2
            return straight_through(Classes(z.reshape(posterior.logits.shape)).mode(), z)
        return z


def temperature(config: CategoricalConfig, step: Int32[Array, ""] | int) -> Scalar:
    """max(final, first * exp(-rate * step)): Jang et al., 4.2 and 4.3."""
    decayed = config.temperature * jnp.exp(-config.anneal_rate * jnp.asarray(step, jnp.float32))
    return jnp.maximum(decayed, config.final_temperature)
