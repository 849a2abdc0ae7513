"""beta-TC-VAE: the KL taken apart, so that z's dimensions are kept independent without losing what they say of frames.

Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders" (arXiv 1802.04942).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.config.vaes import BetaTcConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import log_normal, pressure, risen


class BetaTc(GaussianVae):
    """Prior N(0, 1)."""

    config: BetaTcConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Eq. 4: alpha I(z; n) + beta TC(z) + gamma sum_j KL(q(z_j) || p(z_j)); their sum is the KL, sampled.

        Floor and capacity are of that sum: estimates of its parts are off by multiples of log N, which cancel in it.
        """
        config = self.config
        log_q_given_frame = jnp.sum(log_normal(z, *posterior), axis=1)
        log_prior = jnp.sum(log_normal(z, 0.0, 0.0), axis=1)
        log_q, log_q_of_each = aggregate(posterior, z, update.data_size, stratified=config.sampling == "stratified")
        kl = log_q_given_frame - log_prior
        information = log_q_given_frame - log_q
        correlation = log_q - log_q_of_each
        own = log_q_of_each - log_prior
        beyond = (
            (config.mutual_information - 1) * information
            + (config.total_correlation - 1) * correlation
            + (config.dimension_wise - 1) * own
        )
        penalty = pressure(kl, config, update.step) + config.beta * risen(update.step, config.warm_up) * jnp.mean(
            beyond
        )
        metrics = {
            "kl": jnp.mean(kl),
            "mutual_information": jnp.mean(information),
            "total_correlation": jnp.mean(correlation),
        }
        return penalty, metrics


def aggregate(
    posterior: Gaussian, z: Float[Array, "B Z"], data_size: int, *, stratified: bool
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Estimates of log q(z) and of sum_j log q(z_j) over all N frames of the data, from a batch of B of them.

    Args:
      data_size: N; 0 where frames have no end: then B stands for it, which changes both by a constant alone.
      stratified: the estimate of appendix C.2, else that of minibatch-weighted sampling (C.1, eq. S5).
    """
    batch = len(z)
    size = max(data_size, batch)
    each = log_normal(z[:, None, :], posterior.mean[None], posterior.log_var[None])  # [i, j, Z]: log q(z_i | n_j)
    shares = jnp.asarray(_shares(batch, size) if stratified else np.full((batch, batch), -math.log(size * batch)))
    together = jax.nn.logsumexp(shares.astype(z.dtype) + jnp.sum(each, axis=2), axis=1)
    apart = jax.nn.logsumexp(shares.astype(z.dtype)[:, :, None] + each, axis=1)
    return together, jnp.sum(apart, axis=1)


def _shares(batch: int, size: int) -> np.ndarray:
    """Log weights [i, j] of minibatch-stratified sampling: the frame's own, one that stands for others, the rest."""
    if batch == 1:
        return np.zeros((1, 1))
    shares = np.full((batch, batch), 1 / (batch - 1))
    np.fill_diagonal(shares, 1 / size)
    stands = (np.arange(batch), (np.arange(batch) + 1) % batch)
    shares[stands] = (size - batch + 1) / (size * (batch - 1))
    return np.log(shares)
