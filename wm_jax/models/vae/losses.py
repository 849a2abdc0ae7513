"""Terms that the losses of several auto-encoders share. Every term is a sum over pixels or latents, per frame."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from wm_jax.config.vaes import BuiltInVaeConfig, KlConfig
from wm_jax.models.latents import Classes, Either, Gaussian

LEAST_VARIANCE = 1e-6
"""Of a calibrated likelihood: an error of a fourth of a level of 255 on average."""
LEAST_PROBABILITY = 1e-6
"""What cross-entropy takes a colour to be at least, and at most one less: a sigmoid may give 0 or 1."""


def error(
    decoded: Float[Array, "B side side 3"],
    target: Float[Array, "B side side 3"],
    weights: Float[Array, "B side side 1"] | None,
    config: BuiltInVaeConfig,
) -> Float[Array, "B"]:
    """How unlikely the targets are, summed over pixels and colours, each pixel by its weight; constants are left out.

    gaussian: squared error, the negative log likelihood of a variance of 1/2. laplace: absolute error, likewise with a
    scale of 1. logcosh: log(cosh(a e)) / a. cross_entropy: of a colour in [0, 1] as a probability.
    calibrated: D/2 log(variance), where the variance is that of the whole batch, which is its best value (Rybkin et al.
    2021, eq. 5): each frame's share of it by its own error, so that the mean over the batch is the batch's.
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
            p = jnp.clip(decoded, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
            each = -(target * jnp.log(p) + (1 - target) * jnp.log1p(-p))
        case "calibrated":
            return calibrated(squared_error(decoded, target, weights), target[0].size)
    return jnp.sum(weigh(each), axis=(1, 2, 3))


def squared_error(
    frames: Float[Array, "B side side 3"],
    target: Float[Array, "B side side 3"],
    weights: Float[Array, "B side side 1"] | None = None,
) -> Float[Array, "B"]:
    """Summed over pixels and colours, each pixel by its weight."""
    apart = jnp.square(frames - target)
    return jnp.sum(apart if weights is None else weights * apart, axis=(1, 2, 3))


def calibrated(squared: Float[Array, "B"], numbers: int) -> Float[Array, "B"]:
    """D/2 (log(variance) + error / variance - 1), with the variance that makes its mean over the batch the smallest.

    Args:
      squared: summed squared errors, of so many `numbers` D each.
    """
    best = jax.lax.stop_gradient(jnp.maximum(jnp.mean(squared) / numbers, LEAST_VARIANCE))
    return 0.5 * numbers * (jnp.log(best) + squared / (numbers * best) - 1.0)


def log_cosh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(cosh(x)), also where cosh(x) is out of range."""
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2.0 * jnp.abs(x))) - math.log(2.0)


def kl_to_standard_normal(posterior: Gaussian) -> Float[Array, "B"]:
    """KL(posterior || N(0, 1)) in nats, summed over latents."""
    mean, log_var = posterior
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=1)  # Kingma & Welling 2014, appendix B


def kl_to_uniform(posterior: Classes) -> Float[Array, "B"]:
    """KL(posterior || all classes alike) in nats, summed over choices: log C - entropy of each, at most log C."""
    log_q = jax.nn.log_softmax(jnp.asarray(posterior.logits), axis=-1)
    return jnp.sum(jnp.exp(log_q) * (log_q + math.log(log_q.shape[-1])), axis=(1, 2))


def kl_between(q: Gaussian, p: Gaussian) -> Float[Array, "B"]:
    """KL(q || p) in nats, summed over latents."""
    apart = jnp.square(jnp.asarray(q.mean) - p.mean) * jnp.exp(-p.log_var)
    narrower = jnp.asarray(p.log_var) - q.log_var
    return 0.5 * jnp.sum(narrower + jnp.exp(-narrower) + apart - 1, axis=1)


def log_normal(
    z: Float[Array, "*#lead Z"], mean: Float[Either, "*#lead Z"] | float, log_var: Float[Either, "*#lead Z"] | float
) -> Float[Array, "*#lead Z"]:
    """Log density of each number under N(mean, exp(log_var)), in nats."""
    mean, log_var = jnp.asarray(mean), jnp.asarray(log_var)
    return -0.5 * (math.log(2.0 * math.pi) + log_var + jnp.square(z - mean) * jnp.exp(-log_var))


def pressure(
    kl: Float[Array, "B"], config: KlConfig, step: Int32[Array, ""] | int, parts: int | None = None
) -> Float[Array, ""]:
    """What the KL costs, by the settings: beta * max(KL, free_nats * Z), floored per frame; or with a capacity
    beta * |mean KL - C(step)| (Burgess et al. 2018, eq. 8). beta and C may rise from 0 with the updates.

    With free_nats 0 there is no floor: a KL that is estimated from a sample may be below 0, and right on average.

    Args:
      parts: what free_nats counts in place of the Z latents.
    """
    if config.capacity is not None:
        aim = config.capacity * risen(step, config.capacity_steps)
        cost = jnp.abs(jnp.mean(kl) - aim)
    else:
        floor = config.free_nats * (config.latent if parts is None else parts)
        cost = jnp.mean(jnp.maximum(kl, floor) if floor else kl)
    return config.beta * risen(step, config.warm_up) * cost  # Higgins et al. 2017, eq. 4


def risen(step: Int32[Array, ""] | int, steps: int) -> Float[Array, ""]:
    """The part of a weight that is in force after so many updates: rising from 0 to 1 in so many `steps`."""
    return jnp.minimum(jnp.asarray(step, jnp.float32) / steps, 1.0) if steps else jnp.float32(1.0)
