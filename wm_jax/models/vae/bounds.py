"""Importance weights, which auto-encoders share that draw several z for each frame."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import BoundConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Metrics, Update
from wm_jax.models.vae.losses import frame_errors, kl_to_standard_normal, kl_weight, log_density, squared_error


def log_weights(
    posterior: Gaussian,
    decode: Callable[[Float[Array, "KB Z"]], Float[Array, "KB side side 3"]],
    config: BoundConfig,
    batch: Batch,
    update: Update,
    samples: int,
) -> tuple[Float[Array, "K B"], Metrics]:
    """The logs of w = p(x|z) (p(z) / q(z|x))^beta for samples z of the posterior q, with p(z) = N(0, 1).

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
    log_q = log_density(z, posterior.mean[None], posterior.log_var[None])
    log_prior = log_density(z, 0.0, 0.0)
    decoded = decode(z.reshape(samples * count, -1))
    target = jnp.tile(batch.target, (samples, 1, 1, 1))
    weights = None if batch.weights is None else jnp.tile(batch.weights, (samples, 1, 1, 1))
    log_likelihood = -frame_errors(decoded, target, weights, config).reshape(samples, count)
    metrics = {
        "reconstruction": jnp.mean(squared_error(decoded, target)),
        "kl": jnp.mean(kl_to_standard_normal(posterior)),
    }
    return log_likelihood - kl_weight(config, update.step) * (log_q - log_prior), metrics


def log_mean_exp(log_w: Float[Array, "*bounds K B"]) -> Float[Array, "*bounds B"]:
    """The log of the mean over K of weights that are given by their logs, however small the weights are.

    Its gradient is each weight's share of their sum (Burda et al. 2016, eq. 14).
    """
    return jax.nn.logsumexp(log_w, axis=-2) - math.log(log_w.shape[-2])


def by_bound(log_w: Float[Array, "MK B"], bounds: int) -> Float[Array, "M K B"]:
    """The samples shared out among M bounds."""
    return log_w.reshape(bounds, -1, log_w.shape[1])
