"""MIWAE: the mean of several IWAE bounds, less tight than one of all samples, but better for the encoder to learn by.

Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily Better" (arXiv 1802.04537), section 5: the more
samples a bound has, the more its gradient for the encoder is noise.

M * K samples are decoded for each frame, so an update takes nearly M * K times vanilla's.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import MiwaeConfig
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.iwae import log_mean_exp, log_weights


class Miwae(GaussianVae):
    """Prior N(0, 1)."""

    config: MiwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Minus 1/M sum_m log(1/K sum_k w_mk), averaged over B; see `log_weights` for w and the metrics."""
        groups, samples = self.config.groups, self.config.samples
        log_w, metrics = log_weights(self.encode(batch.seen), self.decode, self.config, batch, update, groups * samples)
        loss = -jnp.mean(log_mean_exp(grouped(log_w, groups)))
        return loss, {"loss": loss, **metrics}


def grouped(log_w: Float[Array, "MK B"], groups: int) -> Float[Array, "M K B"]:
    """The samples in so many groups M."""
    return log_w.reshape(groups, -1, log_w.shape[1])
