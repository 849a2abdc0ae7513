"""InfoVAE: how much z says about each frame, and how near all z together are to the prior, have weights of their own.

Zhao et al. 2019, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders" (arXiv 1706.02262).
"""

from jaxtyping import Array, Float

from wm_jax.config.vaes import InfoConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Metrics, Scalar, Update
from wm_jax.models.vae.divergences import mmd
from wm_jax.models.vae.gaussian import PenalisedGaussianVae


class Info(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: InfoConfig
    extra_randomness = True

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """(1 - alpha) KL(q(z|x) || p(z)) + (alpha + lambda - 1) MMD(q(z), p(z)), the paper's InfoVAE with D = MMD.

        The KL, with its weight, floor and capacity (`losses.kl_term`), is summed over latents and the error over
        pixels, as in the paper; the MMD is the unbiased estimate. alpha 0 and lambda 1 make the ELBO, alpha 1 leaves
        only lambda MMD. The defaults weigh the KL by 1 and the MMD by 100, as WAE does. A negative alpha, such as the
        -9 of some implementations with an averaged error, makes the KL weigh more and z say less about frames.
        """
        alpha = self.config.alpha
        kl_penalty, metrics = super().penalty(posterior, z, update)
        divergence = mmd(z, self.prior(update.key, len(z)), self.config.kernel)
        penalty = (1 - alpha) * kl_penalty + (alpha + self.config.divergence - 1) * divergence
        return penalty, metrics | {"mmd": divergence}
