"""Vectors [..., 2] of the plane, and the game's way of counting angles.

Angles run counter-clockwise; what has angle 0 looks along (0, 1) and has its right side along (1, 0).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float32


def ahead(angle: Float32[Array, "*n"]) -> Float32[Array, "*n 2"]:
    """Unit vectors in the direction in which something of this angle looks."""
    return jnp.stack([-jnp.sin(angle), jnp.cos(angle)], -1)


def right(angle: Float32[Array, "*n"]) -> Float32[Array, "*n 2"]:
    """Unit vectors to the right of it."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


def left_of(vectors: Float32[Array, "*n 2"]) -> Float32[Array, "*n 2"]:
    """The vectors turned by a quarter to the left: velocities of what turns by 1 rad/s around the origin."""
    return jnp.stack([-vectors[..., 1], vectors[..., 0]], -1)


def dot(a: Float32[Array, "*a 2"], b: Float32[Array, "*b 2"]) -> Float32[Array, "*n"]:
    """Inner products; the shapes are broadcast."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def cross(a: Float32[Array, "*a 2"], b: Float32[Array, "*b 2"]) -> Float32[Array, "*n"]:
    """Outer products, positive where b is to the left of a; the shapes are broadcast."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
