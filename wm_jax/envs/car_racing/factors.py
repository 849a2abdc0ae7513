"""The state of a car in numbers that a person would name, for probes of what a latent holds."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.envs.car_racing.state import CarState
from wm_jax.envs.car_racing.track import Tracks

AHEAD = 8
"""Sections (28 u) between the two whose angles make the bend: about as far as the frame shows the road."""


def factors(tracks: Tracks, car: CarState) -> dict[str, Float[Array, ""]]:
    """Of one car: speeds in u/s, angles in rad, positive to the left, and the distance from the road's middle in u,
    positive to the right of it.
    """
    sine, cosine = jnp.sin(car.angle), jnp.cos(car.angle)
    x, y = car.velocity
    points, angles = tracks.points[car.track], tracks.angles[car.track]
    apart = car.centre[None] - points
    here = jnp.argmin(jnp.square(apart).sum(1))
    across = jnp.stack([jnp.cos(angles[here]), jnp.sin(angles[here])])
    ahead = (here + AHEAD) % tracks.count[car.track]
    return {
        "speed": cosine * y - sine * x,
        "sideways speed": cosine * x + sine * y,
        "turn rate": car.rate,
        "steering angle": car.joint_angles[:2].mean(),
        "distance from the middle": apart[here] @ across,
        "heading": _wrapped(car.angle - angles[here]),
        "bend ahead": _wrapped(angles[ahead] - angles[here]),
    }


def _wrapped(angle: Array) -> Array:
    """The same direction, in -pi..pi."""
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
