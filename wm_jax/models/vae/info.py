"""InfoVAE: how much a frame's z may tell, and how near all z together come to the prior, weighed apart.

Zhao et al. 2019, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders" (arXiv 1706.02262).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import InfoConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Update
from wm_jax.models.vae.divergences import mmd
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import kl_to_standard_normal, pressure


class Info(GaussianVae):
    """Prior N(0, 1)."""

    config: InfoConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """(1 - alpha) KL(q(z|x) || p(z)) + (alpha + lambda - 1) MMD(q(z), p(z)), the paper's InfoVAE with D = MMD.

        KL summed over latents, as there beside log p(x|z), which is a sum over pixels, as our error is; the MMD without
        bias. alpha 0 and lambda 1 make the ELBO, alpha 1 leaves nothing but lambda MMD. Beside an error averaged over
        its 12,288 numbers, the same coefficients would weigh 12,288 times as much.
        """
        alpha, kl = self.config.alpha, kl_to_standard_normal(posterior)
        prior_key = jax.random.fold_in(update.key, 1)  # `update.key` itself drew the noise in z
        divergence = mmd(z, self.prior(prior_key, len(z)), self.config.kernel)
        of_each = (1 - alpha) * pressure(kl, self.config, update.step)
        of_all = (alpha + self.config.divergence - 1) * divergence
        return of_each + of_all, {"kl": jnp.mean(kl), "mmd": divergence}
