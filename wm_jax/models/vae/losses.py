"""Terms that the losses of several auto-encoders share: errors, divergences, and how the settings weigh a KL.

All are sums over pixels or latents for each frame, unless they say that they are means over the batch.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from wm_jax.config.vaes import BetaConfig, BuiltInVaeConfig, KlConfig
from wm_jax.models.latents import Classes, Either, Gaussian
from wm_jax.models.straight_through import straight_through
from wm_jax.models.vae.contract import Batch, Metrics, Scalar

LEAST_VARIANCE = 1e-6
"""The variance of a calibrated likelihood is at least this: a standard deviation of a quarter of 1/255."""
LEAST_PROBABILITY = 1e-6
"""Decoded colours are clipped to [this, 1 - this] in the cross-entropy, because a sigmoid can round to 0 or 1."""


def reconstruction_error(
    decoded: Float[Array, "B side side 3"], batch: Batch, config: BuiltInVaeConfig
) -> tuple[Scalar, Metrics]:
    """The error that an auto-encoder is trained by, and the one that it is compared by; means over the batch.

    Returns:
      The error of the settings' likelihood with the batch's weights (`frame_errors`); and the metric `reconstruction`:
      the squared error with every pixel weighted alike, whatever the settings are.
    """
    target = batch.target
    error = jnp.mean(frame_errors(decoded, target, batch.weights, config))
    return error, {"reconstruction": jnp.mean(squared_error(decoded, target))}


def frame_errors(
    decoded: Float[Array, "B side side 3"],
    target: Float[Array, "B side side 3"],
    weights: Float[Array, "B side side 1"] | None,
    config: BuiltInVaeConfig,
) -> Float[Array, "B"]:
    """Negative log likelihood of the targets up to a constant, summed over pixels and channels, each pixel weighted.

    gaussian: squared error, a variance of 1/2. laplace: absolute error, a scale of 1. logcosh: log(cosh(a e)) / a of
    the error e, with a the `sharpness`. cross_entropy: each colour in [0, 1] is taken for a probability. calibrated:
    see `calibrated`.
    """
    weigh = (lambda each: each) if weights is None else (lambda each: weights * each)
    match config.likelihood:
        case "gaussian":
            return squared_error(decoded, target, weights)
        case "laplace":
            each = jnp.abs(decoded - target)
        case "logcosh":
            each = log_cosh(config.sharpness * (decoded - target)) / config.sharpness
        case "cross_entropy":
            # The value is clipped, the gradient is not: a colour that is wrong with certainty must be able to change.
            clipped = jnp.clip(decoded, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
            p = straight_through(clipped, decoded)
            each = -(target * jnp.log(p) + (1 - target) * jnp.log1p(-p))
        case "calibrated":
            return calibrated(squared_error(decoded, target, weights), target[0].size)
    return jnp.sum(weigh(each), axis=(1, 2, 3))


def squared_error(
    frames: Float[Array, "B side side 3"],
    target: Float[Array, "B side side 3"],
    weights: Float[Array, "B side side 1"] | None = None,
) -> Float[Array, "B"]:
    """Squared error, summed over pixels and channels, each pixel weighted."""
    squares = jnp.square(frames - target)
    return jnp.sum(squares if weights is None else weights * squares, axis=(1, 2, 3))


def calibrated(squared: Float[Array, "B"], numbers: int) -> Float[Array, "B"]:
    """D/2 (log(variance) + error / (D variance) - 1): a Gaussian likelihood with the variance that fits the batch best.

    That variance is the batch's mean error per number (Rybkin et al. 2021, arXiv 2006.13202, eq. 5). Held-out figures
    are taken with the held-out batch's own variance, where the paper keeps a moving average. With weights it is the
    variance of the weighted errors.

    Args:
      squared: squared error of each frame, summed over its `numbers` D.
    """
    best = jax.lax.stop_gradient(jnp.maximum(jnp.mean(squared) / numbers, LEAST_VARIANCE))
    return 0.5 * numbers * (jnp.log(best) + squared / (numbers * best) - 1.0)


def log_cosh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(cosh(x)), also where cosh(x) would overflow."""
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2.0 * jnp.abs(x))) - math.log(2.0)


def kl_to_standard_normal(posterior: Gaussian) -> Float[Array, "B"]:
    """KL(posterior || N(0, 1)) in nats, summed over latents."""
    mean, log_var = posterior
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=1)  # Kingma & Welling 2014, appendix B


def kl_to_uniform(posterior: Classes) -> Float[Array, "B"]:
    """KL(posterior || uniform) in nats, summed over categorical variables: log C - entropy for each, at most log C."""
    log_q = jax.nn.log_softmax(jnp.asarray(posterior.logits), axis=-1)
    return jnp.sum(jnp.exp(log_q) * (log_q + math.log(log_q.shape[-1])), axis=(1, 2))


def kl_between(q: Gaussian, p: Gaussian) -> Float[Array, "B"]:
    """KL(q || p) in nats, summed over latents."""
    distance = jnp.square(jnp.asarray(q.mean) - p.mean) * jnp.exp(-p.log_var)
    log_ratio = jnp.asarray(p.log_var) - q.log_var
    return 0.5 * jnp.sum(log_ratio + jnp.exp(-log_ratio) + distance - 1, axis=1)


def log_normal(
    z: Float[Array, "*#lead Z"], mean: Float[Either, "*#lead Z"] | float, log_var: Float[Either, "*#lead Z"] | float
) -> Float[Array, "*#lead Z"]:
    """Log density of each number under N(mean, exp(log_var)), in nats."""
    mean, log_var = jnp.asarray(mean), jnp.asarray(log_var)
    return -0.5 * (math.log(2.0 * math.pi) + log_var + jnp.square(z - mean) * jnp.exp(-log_var))


def log_density(
    z: Float[Array, "*#lead Z"], mean: Float[Either, "*#lead Z"] | float, log_var: Float[Either, "*#lead Z"] | float
) -> Float[Array, "*#lead"]:
    """Log density of all Z latents together under the diagonal Gaussian N(mean, exp(log_var)), in nats."""
    return jnp.sum(log_normal(z, mean, log_var), axis=-1)


def discriminator_cross_entropy(first: Float[Array, "B"], *others: Float[Array, "B"]) -> Scalar:
    """The cross-entropy -log D(first) - sum log(1 - D(other)), a mean over the batch (Goodfellow et al. 2014, eq. 1).

    Args:
      first, others: a discriminator's log odds that samples are of the first source, for samples of this source and of
        the others.
    """
    log_likelihood = jax.nn.log_sigmoid(first) + sum(jax.nn.log_sigmoid(-other) for other in others)
    return -jnp.mean(log_likelihood)


def kl_weight(config: BetaConfig, step: Int32[Array, ""] | int) -> Scalar:
    """Beta as it is after `step` updates: it rises from 0 in `warm_up` updates."""
    return config.beta * warm_up_factor(step, config.warm_up)


def kl_term(
    kl: Float[Array, "B"],
    config: KlConfig,
    step: Int32[Array, ""] | int,
    kl_parts: int | None = None,
    capacity: Scalar | None = None,
) -> Scalar:
    """The term of the loss that a KL makes by the settings; a mean over the batch.

    It is beta * max(KL, free_nats * Z), with the maximum taken for each frame; or with a capacity C
    beta * |mean KL - C| (Burgess et al. 2018, arXiv 1804.03599, eq. 8). beta rises from 0 in `warm_up` updates, C in
    `capacity_steps`.

    Args:
      kl: of each frame in nats. A KL that is estimated from a sample may be negative: without a floor it counts as it
        is, since only so its mean is right.
      kl_parts: how many parts of the KL have free_nats each, if not the Z latents.
      capacity: C in this update, if not the settings'.
    """
    if config.capacity is not None:
        if capacity is None:
            capacity = config.capacity * warm_up_factor(step, config.capacity_steps)
        cost = jnp.abs(jnp.mean(kl) - capacity)
    else:
        floor = config.free_nats * (config.latent if kl_parts is None else kl_parts)
        cost = jnp.mean(jnp.maximum(kl, floor) if floor else kl)
    return kl_weight(config, step) * cost  # Higgins et al. 2017, eq. 4


def warm_up_factor(step: Int32[Array, ""] | int, steps: int) -> Scalar:
    """A factor that rises linearly from 0 to 1 in so many `steps`, after `step` updates; 1 where steps is 0."""
    return jnp.minimum(jnp.asarray(step, jnp.float32) / steps, 1.0) if steps else jnp.float32(1.0)
