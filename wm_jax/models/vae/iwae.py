"""IWAE: a tighter bound, from several samples of z for each frame, each as important as it makes the frame likely.

Burda et al. 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519).

K samples are decoded for each frame and it is encoded once, so an update takes nearly K times vanilla's.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.config.vaes import BoundConfig, IwaeConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import error, kl_to_standard_normal, log_normal, risen, squared_error


class Iwae(GaussianVae):
    """Prior N(0, 1)."""

    config: IwaeConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Minus the bound L_K = log(1/K sum_k w_k), averaged over B; see `log_weights` for w and the metrics."""
        posterior = self.encode(batch.seen)
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
) -> tuple[Float[Array, "K B"], dict[str, Scalar]]:
    """Log w = log p(x|z) - beta (log q(z|x) - log p(z)) of samples z of the posterior q, with p(z) = N(0, 1).

    log p(x|z) is minus the error, summed over pixels, without its constants; densities of z are summed over latents.
    With beta 1 these are the importance weights of z, and their mean over many samples is p(x), but for a constant.

    Args:
      samples: K.

    Returns:
      The log weights, and two metrics: reconstruction (squared error, every pixel alike, the mean over the samples) and
      kl (of q(z|x) from N(0, 1), in closed form, whatever beta is).
    """
    count = len(batch.frames)
    z = jax.vmap(posterior.sample)(jax.random.split(update.key, samples))  # [K, B, Z]
    log_q = jnp.sum(log_normal(z, posterior.mean[None], posterior.log_var[None]), axis=2)
    log_prior = jnp.sum(log_normal(z, 0.0, 0.0), axis=2)
    decoded = decode(z.reshape(samples * count, -1))
    target = jnp.tile(batch.target, (samples, 1, 1, 1))
    weights = None if batch.weights is None else jnp.tile(batch.weights, (samples, 1, 1, 1))
    log_likelihood = -error(decoded, target, weights, config).reshape(samples, count)
    beta = config.beta * risen(update.step, config.warm_up)
    metrics = {
        "reconstruction": jnp.mean(squared_error(decoded, target)),
        "kl": jnp.mean(kl_to_standard_normal(posterior)),
    }
    return log_likelihood - beta * (log_q - log_prior), metrics


def log_mean_exp(log_w: Float[Array, "*groups K B"]) -> Float[Array, "*groups B"]:
    """Log of the mean over K of weights given by their logarithms, however small they are.

    Its gradient is each weight's share of their sum (Burda et al. 2016, eq. 14).
    """
    return jax.nn.logsumexp(log_w, axis=-2) - math.log(log_w.shape[-2])
