"""WAE-MMD: no noise; the codes of all frames together, not each of them, are to look like draws from the prior.

Tolstikhin et al. 2018, "Wasserstein Auto-Encoders" (arXiv 1711.01558).
"""

from jaxtyping import Array, Float

from wm_jax.config.vaes import WaeConfig
from wm_jax.models.vae.contract import Update
from wm_jax.models.vae.divergences import mmd
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.point import PointVae


class Wae(PointVae):
    """Prior N(0, 1)."""

    config: WaeConfig

    def penalty(self, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Lambda MMD(q(z), p(z)), eq. 4 and algorithm 2, without bias, as there. The metric kl is the MMD.

        The paper's cost is ours, squared error summed over pixels, so its lambda holds: 100 for faces of 64x64 pixels.
        Beside an error averaged over these 12,288 numbers, the same lambda would weigh 12,288 times as much.
        """
        divergence = mmd(z, self.prior(update.key, len(z)), self.config.kernel)
        return self.config.divergence * divergence, {"kl": divergence}
