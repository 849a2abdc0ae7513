"""IWAE: a tighter bound from several samples of z for each frame, weighted by their importance.

Burda et al. 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519).

K samples are decoded for each frame, which is encoded once, so an update takes nearly K times as long as vanilla's.
"""

import jax.numpy as jnp

from wm_jax.config.vaes import IwaeConfig
from wm_jax.models.vae.bounds import log_mean_exp, log_weights
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import GaussianVae


class Iwae(GaussianVae):
    """Prior N(0, 1)."""

    config: IwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """-L_K = -log(1/K sum_k w_k), averaged over the batch; see `log_weights` for w and the metrics."""
        posterior = self.encode(batch.encoder_input)
        log_w, metrics = log_weights(posterior, self.decode, self.config, batch, update, self.config.samples)
        loss = -jnp.mean(log_mean_exp(log_w))  # eq. 8
        return loss, {"loss": loss, **metrics}
