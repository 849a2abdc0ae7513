"""PIWAE: the decoder is trained by the tightest bound, of all samples, the encoder by one with a less noisy gradient.

Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily Better" (arXiv 1802.04537), section 5.

M * K samples are decoded for each frame, once for each of the two, so an update takes up to 2 * M * K times as long as
vanilla's.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from wm_jax.config.vaes import PiwaeConfig
from wm_jax.models.vae.bounds import by_bound, log_mean_exp, log_weights
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import GaussianVae


class Piwae(GaussianVae):
    """Prior N(0, 1)."""

    config: PiwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """-log(1/(MK) sum_mk w_mk), averaged over the batch: the decoder has IWAE's gradient, the rest MIWAE's.

        Returns:
          The loss; the metrics of `log_weights`; and encoder_loss, which is -1/M sum_m log(1/K sum_k w_mk).
        """
        bounds, samples = self.config.bounds, self.config.bounds * self.config.samples
        posterior = self.encode(batch.encoder_input)
        fixed_posterior = jax.lax.stop_gradient(posterior)
        log_w, metrics = log_weights(fixed_posterior, self.decode, self.config, batch, update, samples)
        decoder_loss = -jnp.mean(log_mean_exp(log_w))
        graphdef, variables = nnx.split(self.decoder)
        fixed_decoder = nnx.merge(graphdef, jax.lax.stop_gradient(variables))
        log_w, _ = log_weights(posterior, fixed_decoder, self.config, batch, update, samples)
        encoder_loss = -jnp.mean(log_mean_exp(by_bound(log_w, bounds)))
        # The second part is 0, but has the encoder's gradient.
        loss = decoder_loss + (encoder_loss - jax.lax.stop_gradient(encoder_loss))
        return loss, {"loss": loss, "encoder_loss": encoder_loss, **metrics}
