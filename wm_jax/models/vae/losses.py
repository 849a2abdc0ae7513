"""Terms that the losses of several auto-encoders share. Every term is a sum over pixels or latents, per sample."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from wm_jax.models.latents import Gaussian
from wm_jax.utils.moving_pixels import MOVED

PATCHES = ((5, 10), (15, 20), (25, 30), (34, 39), (44, 49), (54, 59))
"""Rows, and columns, of the noise patches: first and one past the last."""

SOFT = 0.02
"""Below a squared difference of about this, pixels count by their difference again: much of it is noise."""


def squared_error(
    frames: Float[Array, "B side side 3"],
    target: Float[Array, "B side side 3"],
    weights: Float[Array, "B side side 1"] | None = None,
) -> Float[Array, "B"]:
    """Summed over pixels and colours, each pixel by its weight."""
    error = jnp.square(frames - target)
    return jnp.sum(error if weights is None else weights * error, axis=(1, 2, 3))


def background(around: UInt8[Array, "B 5 side side 3"]) -> UInt8[Array, "B side side 3"]:
    """The median of five frames, by minima and maxima alone: sorting takes far longer."""
    a, b, c, d, e = (around[:, i] for i in range(5))
    # The lowest and the highest of the first four are no median of five; it is that of the other two and the fifth.
    low = jnp.maximum(jnp.minimum(a, b), jnp.minimum(c, d))
    high = jnp.minimum(jnp.maximum(a, b), jnp.maximum(c, d))
    return jnp.maximum(jnp.minimum(low, high), jnp.minimum(jnp.maximum(low, high), e))


def moving_weights(
    target: Float[Array, "B side side 3"], still: Float[Array, "B side side 3"], weight: float
) -> Float[Array, "B side side 1"]:
    """What the error of each pixel counts: 1, and more where the pixel moves, that is, differs from its background.

    weight / (d^2 + SOFT), with d the largest difference of a channel: to lose a moving pixel costs about `weight`,
    however much or little it stands out. Grey lines in the snow then count as white ones at night.
    """
    difference = jnp.max(jnp.abs(target - still), axis=-1, keepdims=True)
    return jnp.where(difference > MOVED, 1 + weight / (jnp.square(difference) + SOFT), 1.0)


def kl_to_standard_normal(posterior: Gaussian) -> Float[Array, "B"]:
    """KL(posterior || N(0, 1)) in nats, summed over latents."""
    mean, log_var = posterior
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_var) - 1 - log_var, axis=1)  # Kingma & Welling 2014, appendix B


def with_noise_patches(frames: Float[Array, "B side side 3"], key: Key[Array, ""]) -> Float[Array, "B side side 3"]:
    """Frames in [0, 1] with a 6x6 grid of 5-pixel squares replaced by uniform random colours."""
    line = np.zeros(frames.shape[1], bool)
    for first, end in PATCHES:
        line[first:end] = True
    mask = jnp.asarray(line[:, None] & line[None, :])[None, :, :, None]
    return jnp.where(mask, jax.random.uniform(key, frames.shape, frames.dtype), frames)
