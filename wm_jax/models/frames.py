"""The one place where stored frames become numbers that a network can read."""

import jax
import jax.numpy as jnp


def to_float(frames: jax.Array) -> jax.Array:
    """uint8 [..., 64, 64, 3] to float32 in [0, 1] of the same shape."""
    return frames.astype(jnp.float32) / jnp.float32(255)
