"""DIP-VAE: the covariance of z over all frames is to be that of the prior, so that its dimensions are uncorrelated.

Kumar et al. 2018, "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations" (arXiv
1711.00848).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import DipConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import kl_to_standard_normal, pressure


class Dip(GaussianVae):
    """Prior N(0, 1)."""

    config: DipConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """KL + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2, eqs. 6 and 7, C the covariance.

        C is a mean over the batch and its entries are summed, beside an error summed over pixels, as in the paper: its
        weights hold. It has lambda_d = 10 lambda_od for I, and lambda_d = lambda_od for II, where posteriors that say
        nothing have the variance of 1, too: large weights keep V from learning anything.
        """
        config, kl = self.config, kl_to_standard_normal(posterior)
        apart = jnp.square(covariance(posterior, config.version == "II") - jnp.eye(config.latent, dtype=z.dtype))
        diagonal = jnp.trace(apart)
        off_diagonal = jnp.sum(apart) - diagonal
        penalty = pressure(kl, config, update.step) + config.off_diagonal * off_diagonal + config.diagonal * diagonal
        return penalty, {"kl": jnp.mean(kl), "off_diagonal": off_diagonal, "diagonal": diagonal}


def covariance(posterior: Gaussian, of_z: bool) -> Float[Array, "Z Z"]:
    """Cov[mean(x)] over the frames of a batch, divided by B; and E[variance(x)] added, that of z itself (eq. 5)."""
    mean, log_var = (jnp.asarray(part) for part in posterior)
    apart = mean - jnp.mean(mean, axis=0, keepdims=True)
    of_means = apart.T @ apart / len(mean)
    return of_means + jnp.diag(jnp.mean(jnp.exp(log_var), axis=0)) if of_z else of_means
