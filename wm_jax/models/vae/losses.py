"""Terms that the losses of several auto-encoders share. Every term is a sum over pixels or latents, per sample."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

PATCHES = ((5, 10), (15, 20), (25, 30), (34, 39), (44, 49), (54, 59))
"""Rows, and columns, of the noise patches: first and one past the last."""


class Posterior(NamedTuple):
    """A diagonal Gaussian over z."""

    mean: Float[Array, "B Z"]
    log_var: Float[Array, "B Z"]


def draw(posterior: Posterior, key: Key[Array, ""]) -> Float[Array, "B Z"]:
    """Sample z, reparameterised (Kingma & Welling 2014)."""
    noise = jax.random.normal(key, posterior.mean.shape, posterior.mean.dtype)
    return posterior.mean + noise * jnp.exp(posterior.log_var / 2)


def squared_error(frames: Float[Array, "B 64 64 3"], target: Float[Array, "B 64 64 3"]) -> Float[Array, "B"]:
    """Summed over pixels and colours."""
    return jnp.sum(jnp.square(frames - target), axis=(1, 2, 3))


def kl_to_standard_normal(posterior: Posterior) -> Float[Array, "B"]:
    """KL(posterior || N(0, 1)) in nats, summed over latents."""
    mean, log_var = posterior
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=1)


def with_noise_patches(frames: Float[Array, "B 64 64 3"], key: Key[Array, ""]) -> Float[Array, "B 64 64 3"]:
    """Frames in [0, 1] with a 6x6 grid of 5-pixel squares replaced by uniform random colours."""
    line = np.zeros(frames.shape[1], bool)
    for first, end in PATCHES:
        line[first:end] = True
    mask = jnp.asarray(line[:, None] & line[None, :])[None, :, :, None]
    return jnp.where(mask, jax.random.uniform(key, frames.shape, frames.dtype), frames)
