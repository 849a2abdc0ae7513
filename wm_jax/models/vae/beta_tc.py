"""beta-TC-VAE: the KL is split into three parts, and the dependence of z's dimensions on each other weighs most.

Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders" (arXiv 1802.04942).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.config.vaes import BetaTcConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.losses import kl_term, kl_weight, log_density, log_normal


class BetaTc(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: BetaTcConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """Eq. 4: alpha I(x; z) + beta TC(z) + gamma sum_j KL(q(z_j) || p(z_j)), all multiplied by the setting beta.

        The paper's alpha, beta and gamma are the settings `mutual_information_weight` and so on.

        The three sum up to the KL, estimated from one sample for each frame. Floor and capacity apply to this sum: the
        estimates of its parts are off by multiples of log N, which cancel in it.

        Returns:
          The penalty, and the metrics kl, mutual_information and total_correlation, in nats. Because of these offsets
          the latter two only compare with themselves, for the same batch and data size.
        """
        config = self.config
        log_q_given_frame, log_prior = log_density(z, *posterior), log_density(z, 0.0, 0.0)
        log_q, log_q_of_each = aggregate(posterior, z, update.data_size, stratified=config.sampling == "stratified")
        kl = log_q_given_frame - log_prior
        mutual_information = log_q_given_frame - log_q
        total_correlation = log_q - log_q_of_each
        dimension_wise = log_q_of_each - log_prior
        beyond_kl = (
            (config.mutual_information_weight - 1) * mutual_information
            + (config.total_correlation_weight - 1) * total_correlation
            + (config.dimension_wise_weight - 1) * dimension_wise
        )
        metrics = {
            "kl": jnp.mean(kl),
            "mutual_information": jnp.mean(mutual_information),
            "total_correlation": jnp.mean(total_correlation),
        }
        penalty = kl_term(kl, config, update.step) + kl_weight(config, update.step) * jnp.mean(beyond_kl)
        return penalty, metrics


def aggregate(
    posterior: Gaussian, z: Float[Array, "B Z"], data_size: int, *, stratified: bool
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Estimates of log q(z) and of sum_j log q(z_j) over all N frames of the data, from a batch of B of them.

    Args:
      data_size: N; 0 where frames are generated without end. Then B stands for N: with weighted sampling this only adds
        a constant to both, but stratified sampling takes the batch for the whole data.
      stratified: minibatch-stratified sampling, else minibatch-weighted sampling (both in the paper's appendix).
    """
    batch = len(z)
    size = max(data_size, batch)
    each = log_normal(z[:, None, :], posterior.mean[None], posterior.log_var[None])  # [i, j, Z]: log q(z_i | n_j)
    shares = jnp.asarray(_log_shares(batch, size) if stratified else np.full((batch, batch), -math.log(size * batch)))
    joint = jax.nn.logsumexp(shares.astype(z.dtype) + jnp.sum(each, axis=2), axis=1)
    marginals = jax.nn.logsumexp(shares.astype(z.dtype)[:, :, None] + each, axis=1)
    return joint, jnp.sum(marginals, axis=1)


def _log_shares(batch: int, size: int) -> np.ndarray:
    """Log weights [i, j] of minibatch-stratified sampling.

    z_i's own frame weighs 1 / N, one other frame stands for all that are not in the batch, the rest weigh 1 / (B - 1).
    """
    if batch == 1:
        return np.zeros((1, 1))
    shares = np.full((batch, batch), 1 / (batch - 1))
    np.fill_diagonal(shares, 1 / size)
    stand_in = (np.arange(batch), (np.arange(batch) + 1) % batch)
    shares[stand_in] = (size - batch + 1) / (size * (batch - 1))
    return np.log(shares)
