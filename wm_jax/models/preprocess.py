"""The one place where stored frames become numbers that a network can read, and its pictures frames again."""

import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt8


def to_float(frames: UInt8[Array, "*lead side side 3"]) -> Float32[Array, "*lead side side 3"]:
    """From 0..255 to [0, 1]."""
    return frames.astype(jnp.float32) / jnp.float32(255)


def to_uint8(frames: Float32[Array, "*lead side side 3"]) -> UInt8[Array, "*lead side side 3"]:
    """From [0, 1] to 0..255, rounded."""
    return jnp.round(frames * 255).astype(jnp.uint8)
