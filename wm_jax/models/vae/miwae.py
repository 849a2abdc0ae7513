"""MIWAE: the mean of several IWAE bounds, less tight than one bound of all samples, but better for the encoder.

Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily Better" (arXiv 1802.04537): the more samples a
bound has, the more its gradient for the encoder is noise. Section 5 has this estimator.

M * K samples are decoded for each frame, so an update takes nearly M * K times as long as vanilla's.
"""

import jax.numpy as jnp

from wm_jax.config.vaes import MiwaeConfig
from wm_jax.models.vae.bounds import by_bound, log_mean_exp, log_weights
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import GaussianVae


class Miwae(GaussianVae):
    """Prior N(0, 1)."""

    config: MiwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """-1/M sum_m log(1/K sum_k w_mk), averaged over the batch; see `log_weights` for w and the metrics."""
        bounds, posterior = self.config.bounds, self.encode(batch.encoder_input)
        samples = bounds * self.config.samples
        log_w, metrics = log_weights(posterior, self.decode, self.config, batch, update, samples)
        loss = -jnp.mean(log_mean_exp(by_bound(log_w, bounds)))
        return loss, {"loss": loss, **metrics}
