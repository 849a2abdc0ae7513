"""DIP-VAE: z's covariance over all frames is kept near the identity, so that its dimensions are uncorrelated.

Kumar et al. 2018, "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations" (arXiv
1711.00848).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import DipConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.losses import warm_up_factor

DIAGONAL = {"I": 10.0, "II": 1.0}
"""The paper's lambda_d / lambda_od for each version."""


class Dip(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: DipConfig

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """KL + lambda_od sum_{i != j} C_ij^2 + lambda_d sum_i (C_ii - 1)^2, eqs. 6 and 7, with the covariance C.

        C is a mean over the batch and its entries are summed, beside an error summed over pixels, as in the paper: its
        weights hold. beta, floor and capacity apply to the KL alone (`losses.kl_term`), the warm-up to all terms. In
        II, a posterior equal to the prior has a variance of 1 already: large weights let V ignore the frames.

        Chance alone makes the sum of squared covariances about Z (Z - 1) / B: 10 for 32 latents and batches of 100
        frames.
        """
        config = self.config
        diagonal_weight = config.diagonal_weight
        if diagonal_weight is None:
            diagonal_weight = DIAGONAL[config.version] * config.off_diagonal_weight
        penalty, metrics = super().penalty(posterior, z, update)
        squares = jnp.square(covariance(posterior, config.version == "II") - jnp.eye(config.latent, dtype=z.dtype))
        diagonal = jnp.trace(squares)
        off_diagonal = jnp.sum(squares) - diagonal
        factor = warm_up_factor(update.step, config.warm_up)
        penalty += factor * (config.off_diagonal_weight * off_diagonal + diagonal_weight * diagonal)
        return penalty, metrics | {"off_diagonal": off_diagonal, "diagonal": diagonal}


def covariance(posterior: Gaussian, of_z: bool) -> Float[Array, "Z Z"]:
    """The covariance over the B frames of a batch, divided by B.

    Args:
      of_z: of z itself, which is Cov[mean(x)] + E[variance(x)] (eq. 5); else of the posteriors' means alone.
    """
    mean, log_var = (jnp.asarray(part) for part in posterior)
    centred = mean - jnp.mean(mean, axis=0, keepdims=True)
    of_means = centred.T @ centred / len(mean)
    return of_means + jnp.diag(jnp.mean(jnp.exp(log_var), axis=0)) if of_z else of_means
