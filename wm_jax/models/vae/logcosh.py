"""Log-cosh VAE: an error that grows by its square where it is small, by its size where it is large.

Chen et al. 2019, "Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder" (openreview.net/forum?id=rkglvsC9Ym).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import LogCoshConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import kl_to_standard_normal, pressure


class LogCosh(GaussianVae):
    """Prior N(0, 1); the error is sum log(cosh(a (x - x'))) / a, with a `sharpness` (`losses.error`)."""

    config: LogCoshConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Beta * KL, which is vanilla's."""
        kl = kl_to_standard_normal(posterior)
        return pressure(kl, self.config, update.step), {"kl": jnp.mean(kl)}
