"""CIWAE: a mixture of the usual bound, by which the encoder learns well, and of IWAE's, which is tighter.

Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily Better" (arXiv 1802.04537), section 5.

K samples are decoded for each frame, so an update takes nearly K times vanilla's.
"""

import jax.numpy as jnp

from wm_jax.config.vaes import CiwaeConfig
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.iwae import log_mean_exp, log_weights


class Ciwae(GaussianVae):
    """Prior N(0, 1)."""

    config: CiwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Minus (s 1/K sum_k log w_k + (1 - s) log(1/K sum_k w_k)), averaged over B, with s the `elbo_weight` (beta in
        the paper); both bounds are of the same samples. See `log_weights` for w and the metrics.
        """
        log_w, metrics = log_weights(
            self.encode(batch.seen), self.decode, self.config, batch, update, self.config.samples
        )
        share = self.config.elbo_weight
        elbo = jnp.mean(log_w, axis=0)
        loss = -jnp.mean(share * elbo + (1 - share) * log_mean_exp(log_w))
        return loss, {"loss": loss, **metrics}
