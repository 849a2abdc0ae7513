"""VampPrior: the prior is no fixed Gaussian but a mixture of posteriors, those of pictures that are learned.

Tomczak & Welling 2018, "VAE with a VampPrior" (arXiv 1705.07120).

The learned pictures are encoded in every update beside the batch: 50 of them beside 100 frames are half of the
encoder's work again.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import VampConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import log_normal, pressure
from wm_jax.utils.sizes import FRAME


class Vamp(GaussianVae):
    """Prior 1/C sum_c q(z|u_c)."""

    config: VampConfig

    def __init__(self, config: VampConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.pseudo_inputs = nnx.Param(jax.random.normal(rngs.params(), (config.components, *FRAME), jnp.float32))

    def components(self) -> Gaussian:
        """The posteriors q(z|u_c) of the learned pictures, which a sigmoid keeps in [0, 1]."""
        return self.encode(jax.nn.sigmoid(self.pseudo_inputs[...]))

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """From components chosen at random."""
        which_key, noise_key = jax.random.split(key)
        mean, log_var = self.components()
        which = jax.random.randint(which_key, (count,), 0, len(mean))
        return Gaussian(mean[which], log_var[which]).sample(noise_key)

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Beta * max(KL, free_nats * Z); a mixture's KL has no closed form, so that of each frame is of its one z."""
        log_q = jnp.sum(log_normal(z, *posterior), axis=1)
        kl = log_q - log_mixture(z, self.components())
        return pressure(kl, self.config, update.step), {"kl": jnp.mean(kl)}


def log_mixture(z: Float[Array, "B Z"], components: Gaussian) -> Float[Array, "B"]:
    """Log of 1/C sum_c N(z; component c), the density of all Z latents together, in nats."""
    mean, log_var = components
    each = jnp.sum(log_normal(z[:, None], mean[None], log_var[None]), axis=2)  # [B, C]
    return jax.nn.logsumexp(each, axis=1) - math.log(len(mean))
