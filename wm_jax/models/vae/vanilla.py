"""The paper's V: a Gaussian auto-encoder with a floor under its KL (Ha & Schmidhuber 2018, A.1).

Kingma & Welling 2014, eq. 10, with squared error; beta as in Higgins et al. 2017.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import VanillaConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import kl_to_standard_normal, pressure


class Vanilla(GaussianVae):
    """Prior N(0, 1)."""

    config: VanillaConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Beta * max(KL, free_nats * Z)."""
        kl = kl_to_standard_normal(posterior)
        return pressure(kl, self.config, update.step), {"kl": jnp.mean(kl)}
