"""WAE-MMD: no noise; all z together, not those of each frame, are kept near the prior.

Tolstikhin et al. 2018, "Wasserstein Auto-Encoders" (arXiv 1711.01558).
"""

from jaxtyping import Array, Float

from wm_jax.config.vaes import WaeConfig
from wm_jax.models.vae.contract import Metrics, Scalar, Update
from wm_jax.models.vae.divergences import mmd
from wm_jax.models.vae.point import PenalisedPointVae


class Wae(PenalisedPointVae):
    """Prior N(0, 1)."""

    config: WaeConfig

    def penalty(self, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """The penalty lambda MMD(q(z), p(z)), eq. 4 and algorithm 2, by the unbiased estimate as there.

        The metric kl is the MMD. The paper's lambda for faces of 64x64 pixels is 100 beside a summed squared error, as
        ours is; but its code has colours in [-1, 1], so its errors are 4 times as large.
        """
        divergence = mmd(z, self.prior(update.key, len(z)), self.config.kernel)
        return self.config.divergence_weight * divergence, {"kl": divergence}
