"""PIWAE: the decoder learns by the tightest bound of all samples, the encoder by one with a less noisy gradient.

Rainforth et al. 2018, "Tighter Variational Bounds are Not Necessarily Better" (arXiv 1802.04537), section 5.

M * K samples are decoded for each frame, once for either, so an update takes up to 2 * M * K times vanilla's.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from wm_jax.config.vaes import PiwaeConfig
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.iwae import log_mean_exp, log_weights
from wm_jax.models.vae.miwae import grouped


class Piwae(GaussianVae):
    """Prior N(0, 1)."""

    config: PiwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Minus log(1/(MK) sum_mk w_mk), averaged over B: IWAE's gradient for the decoder, MIWAE's for all else.

        Returns:
          The loss; the metrics of `log_weights`; and `encoder_loss`, minus 1/M sum_m log(1/K sum_k w_mk).
        """
        groups, samples = self.config.groups, self.config.groups * self.config.samples
        posterior, fixed = self.encode(batch.seen), jax.lax.stop_gradient
        log_w, metrics = log_weights(fixed(posterior), self.decode, self.config, batch, update, samples)
        decoder_loss = -jnp.mean(log_mean_exp(log_w))
        graphdef, variables = nnx.split(self.decoder)
        log_w, _ = log_weights(posterior, nnx.merge(graphdef, fixed(variables)), self.config, batch, update, samples)
        encoder_loss = -jnp.mean(log_mean_exp(grouped(log_w, groups)))
        loss = decoder_loss + encoder_loss - fixed(encoder_loss)
        return loss, {"loss": loss, "encoder_loss": encoder_loss, **metrics}
