"""IWAE: a tighter bound from several samples of z for each frame, weighted by their importance.

Burda et al. 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519).

K samples are decoded for each frame, which is encoded once, so an update takes nearly K times as long as vanilla's.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import BoundConfig, IwaeConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import GaussianVae
from wm_jax.models.vae.losses import error, kl_to_standard_normal, log_normal, squared_error, warm_up_factor


class Iwae(GaussianVae):
    """Prior N(0, 1)."""

    config: IwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """-L_K = -log(1/K sum_k w_k), averaged over the batch; see `log_weights` for w and the metrics."""
        posterior = self.encode(batch.encoder_input)
        log_w, metrics = log_weights(posterior, self.decode, self.config, batch, update, self.config.samples)
        loss = -jnp.mean(log_mean_exp(log_w))  # eq. 8
        return loss, {"loss": loss, **metrics}


def log_weights(
    posterior: Gaussian,
    decode: Callable[[Float[Array, "KB Z"]], Float[Array, "KB side side 3"]],
    config: BoundConfig,
    batch: Batch,
    update: Update,
    samples: int,
) -> tuple[Float[Array, "K B"], Metrics]:
    """Log w = log p(x|z) - beta (log q(z|x) - log p(z)) for samples z of the posterior q, with p(z) = N(0, 1).

    log p(x|z) is minus the error, summed over pixels, without its constants; log densities of z are summed over
    latents. With beta 1 these are the importance weights: up to a constant the mean of w over many samples is p(x).

    Args:
      samples: K.

    Returns:
      The log weights; and two metrics: reconstruction (squared error, every pixel weighted alike, averaged over the
      samples, too) and kl (KL(q(z|x) || N(0, 1)) in closed form, whatever beta is).
    """
    count = len(batch.frames)
    z = jax.vmap(posterior.sample)(jax.random.split(update.key, samples))  # [K, B, Z]
    log_q = jnp.sum(log_normal(z, posterior.mean[None], posterior.log_var[None]), axis=2)
    log_prior = jnp.sum(log_normal(z, 0.0, 0.0), axis=2)
    decoded = decode(z.reshape(samples * count, -1))
    target = jnp.tile(batch.target, (samples, 1, 1, 1))
    weights = None if batch.weights is None else jnp.tile(batch.weights, (samples, 1, 1, 1))
    log_likelihood = -error(decoded, target, weights, config).reshape(samples, count)
    beta = config.beta * warm_up_factor(update.step, config.warm_up)
    metrics = {
        "reconstruction": jnp.mean(squared_error(decoded, target)),
        "kl": jnp.mean(kl_to_standard_normal(posterior)),
    }
    return log_likelihood - beta * (log_q - log_prior), metrics


def log_mean_exp(log_w: Float[Array, "*bounds K B"]) -> Float[Array, "*bounds B"]:
    """The log of the mean over K of weights that are given by their logs, however small the weights are.

    Its gradient is each weight's share of their sum (Burda et al. 2016, eq. 14).
    """
    return jax.nn.logsumexp(log_w, axis=-2) - math.log(log_w.shape[-2])
