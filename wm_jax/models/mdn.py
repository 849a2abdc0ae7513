"""Mixture density outputs: what M says about the next latent, in log space throughout.

Bishop 1994, "Mixture Density Networks"; Graves 2013 (arXiv 1308.0850) for the recurrent form; Ha & Schmidhuber 2018,
appendix A.2: one mixture of K Gaussians *per latent dimension*, so that dimensions are independent given the state.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
MIN_LOG_STD = -7.0
"""Floor of log_std (a standard deviation of 0.0009). Without it the density of a latent that never changes, as of an
auto-encoder without noise, grows without bound and training ends in NaN. A component that has come to lie below can
still widen (see `log_prob`)."""


class Mixture(NamedTuple):
    """One mixture of K Gaussians for each of Z latent dimensions, which lie last: loops over them fill whole vectors.

    log_weights: normalised: their exponentials sum to 1 over K.
    mean: of each Gaussian.
    log_std: natural logarithm of the standard deviation, at least `MIN_LOG_STD`.
    """

    log_weights: Float[Array, "*lead K Z"]
    mean: Float[Array, "*lead K Z"]
    log_std: Float[Array, "*lead K Z"]


def split(raw: Float[Array, "*lead 3*{mixtures}*{latent}"], latent: int, mixtures: int) -> Mixture:
    """Read a mixture out of a dense layer's outputs: logits, means, log deviations, in this order."""
    parts = raw.reshape(*raw.shape[:-1], 3, mixtures, latent)
    logits, mean, log_std = (parts[..., i, :, :] for i in range(3))
    return Mixture(jax.nn.log_softmax(logits, axis=-2), mean, _floored(log_std))


@jax.custom_jvp
def _floored(log_std: Array) -> Array:
    """At least `MIN_LOG_STD`; derivatives pass as if there were no floor."""
    return jnp.maximum(log_std, MIN_LOG_STD)


@_floored.defjvp
def _floored_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _floored(*primals), tangents[0]


def log_prob(mixture: Mixture, target: Float[Array, "*lead Z"]) -> Float[Array, "*lead"]:
    """Log density of target in nats, summed over the Z dimensions.

    A deviation at its floor has a gradient where a wider one would be likelier, and none where a narrower one would:
    cut off altogether, the component could never widen by itself; let through altogether, what lies behind the floor
    would sink without bound.
    """
    log_weights, mean, log_std = mixture
    distance = target[..., None, :] - mean
    held = (log_std <= MIN_LOG_STD) & (jnp.abs(distance) <= math.exp(MIN_LOG_STD))
    log_std = jnp.where(held, jax.lax.stop_gradient(log_std), log_std)
    score = distance * jnp.exp(-log_std)
    components = log_weights - 0.5 * jnp.square(score) - log_std - LOG_SQRT_TWO_PI
    return jax.nn.logsumexp(components, axis=-2).sum(axis=-1)


def sample(
    mixture: Mixture, key: Key[Array, ""], temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, "*lead Z"]:
    """Draw z from the mixture.

    Args:
      temperature: tau > 0, the paper's knob for how uncertain the dream is: it divides the log weights and
        multiplies the standard deviations by sqrt(tau). Towards 0 the draw becomes the mean of the likeliest
        component; large values make the components equally likely and wide.
    """
    log_weights, mean, log_std = mixture
    component_key, noise_key = jax.random.split(key)
    component = jax.random.categorical(component_key, log_weights / temperature, axis=-2)[..., None, :]
    chosen_mean, chosen_log_std = (
        jnp.take_along_axis(values, component, axis=-2).squeeze(-2) for values in (mean, log_std)
    )
    noise = jax.random.normal(noise_key, chosen_mean.shape, chosen_mean.dtype)
    return chosen_mean + jnp.exp(chosen_log_std) * jnp.sqrt(temperature) * noise
