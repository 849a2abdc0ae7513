"""InfoVAE: how much z says about each frame, and how near all z together are to the prior, have weights of their own.

Zhao et al. 2019, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders" (arXiv 1706.02262).
"""

from jaxtyping import Array, Float

from wm_jax.config.vaes import InfoConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Metrics, Scalar, Update
from wm_jax.models.vae.divergences import mmd
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.losses import warm_up_factor


class Info(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: InfoConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """(1 - alpha) KL(q(z|x) || p(z)) + (alpha + lambda - 1) MMD(q(z), p(z)), the paper's InfoVAE with D = MMD.

        The KL is summed over latents and the error over pixels, as in the paper; the MMD is the unbiased estimate.
        beta, floor and capacity apply to the KL alone (`losses.kl_term`), the warm-up to both.

        alpha 0 and lambda 1 make the ELBO, alpha 1 leaves only lambda MMD. The defaults weigh the KL by 1 and the MMD
        by 100, as WAE does. A negative alpha, such as the -9 of some implementations with an averaged error, makes the
        KL weigh more, so that z says less about frames.
        """
        alpha = self.config.alpha
        kl_penalty, metrics = super().penalty(posterior, z, update)
        divergence = mmd(z, self.prior(update.key, len(z)), self.config.kernel)
        weight = (alpha + self.config.divergence_weight - 1) * warm_up_factor(update.step, self.config.warm_up)
        return (1 - alpha) * kl_penalty + weight * divergence, metrics | {"mmd": divergence}
