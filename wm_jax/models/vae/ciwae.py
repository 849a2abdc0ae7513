"""CIWAE: a mixture of the usual bound, whose gradient trains the encoder well, and the tighter one of IWAE.

Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily Better" (arXiv 1802.04537), section 5.

K samples are decoded for each frame, so an update takes nearly K times as long as vanilla's.
"""

import jax.numpy as jnp

from wm_jax.config.vaes import CiwaeConfig
from wm_jax.models.vae.bounds import log_mean_exp, log_weights
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import GaussianVae


class Ciwae(GaussianVae):
    """Prior N(0, 1)."""

    config: CiwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """-(s 1/K sum_k log w_k + (1 - s) log(1/K sum_k w_k)), averaged over the batch.

        s is the setting `elbo_weight` (beta in the paper); both bounds use the same samples. See `log_weights` for w
        and the metrics.
        """
        posterior = self.encode(batch.encoder_input)
        log_w, metrics = log_weights(posterior, self.decode, self.config, batch, update, self.config.samples)
        share = self.config.elbo_weight
        elbo = jnp.mean(log_w, axis=0)
        loss = -jnp.mean(share * elbo + (1 - share) * log_mean_exp(log_w))
        return loss, {"loss": loss, **metrics}
