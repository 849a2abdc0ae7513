"""Which tiles of the road the wheels of a car touch: what gives them grip, and what is rewarded.

Box2D asks this of every wheel and every tile whose boxes overlap. Here the map of nearest sections leads to the few
tiles in question, and separating axes answer for all wheels at once.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from wm_jax.envs.car_racing.plane import ahead, dot, left_of, right
from wm_jax.envs.car_racing.road import HALF_WIDTH
from wm_jax.envs.car_racing.track import NOWHERE, Tracks, nearest_section

HALF_TYRE, RADIUS = 0.28, 0.54
"""Half a wheel's width and half its length, which is its radius, in u (`car_dynamics.WHEEL_W`, `WHEEL_R`)."""
SKIN = 0.02
"""Polygons as near as this touch, in u: twice Box2D's `b2_polygonRadius`."""
BEHIND, AHEAD = 3, 4
"""Tiles that a wheel can touch: from -BEHIND to AHEAD of the section nearest to the car's middle.

Wheels reach 2.7 u. Most tiles are within that at the inner edge of the tightest bend, 4.6 u from its centre: 35 degrees
to each side, 2.0 sections of 0.31 rad. The map may name a section that is 0.7 u farther, 0.6 there, and the middle can
be half a section away: 3.1. (Of 1.4 million contacts of random cars, none was beyond -2 and 3.) The other strand of a
hairpin is out of reach: on 1,500 tracks no two are nearer than 21 u, and 18.7 u is where a car could touch both."""


def touch(
    tracks: Tracks, track: Int32[Array, ""], wheels: Float32[Array, "4 2"], headings: Float32[Array, "4"]
) -> tuple[Int32[Array, "8"], Bool[Array, "4 8"]]:
    """The tiles that come into question for a car, and which of its wheels touch which of them.

    Where two corners face each other Box2D's distance is larger than the largest separation, by less than SKIN: there
    tiles are touched a hundredth of a unit too early.

    Args:
      wheels: their centres, in u.
      headings: their angles.
    """
    centre = jnp.mean(wheels, 0)
    nearest = nearest_section(tracks, track, centre[0], centre[1])
    # One section more than tiles: tile i lies between sections i - 1 and i.
    sections = (nearest + jnp.arange(-BEHIND - 1, AHEAD + 1, dtype=jnp.int32)) % tracks.count[track]
    # Relative to the car: the field's size would cost float32 two digits.
    middles = (tracks.points[track, sections] - centre[None])[None]
    angles = tracks.angles[track, sections][None]
    halves = HALF_WIDTH * right(angles)
    largest = _separations((wheels - centre[None])[:, None], headings[:, None], middles, halves, ahead(angles))
    return sections[1:], (largest < SKIN) & (nearest != NOWHERE)


def _separations(at: Array, headings: Array, middles: Array, halves: Array, forward: Array) -> Array:
    """Largest separation [4, K] of 4 wheels from the tiles between K + 1 sections, over all axes.

    Args:
      at: the wheels' centres [4, 1, 2]; headings: [4, 1].
      middles: of the sections [1, K + 1, 2]; halves: from there to the right edge; forward: unit vectors of the road.
    """
    across, along = right(headings), ahead(headings)

    def outside(normals: Array, points: Array) -> Array:
        """How far wheels are outside of the lines through some points with normals of length 1."""
        reach = HALF_TYRE * jnp.abs(dot(normals, across)) + RADIUS * jnp.abs(dot(normals, along))
        return dot(normals, at - points) - reach

    lefts, rights = middles - halves, middles + halves
    separations = [
        outside(forward[:, 1:], middles[:, 1:]),
        outside(-forward[:, :-1], middles[:, :-1]),
        outside(_rightward(rights[:, 1:] - rights[:, :-1]), rights[:, 1:]),
        outside(_rightward(lefts[:, :-1] - lefts[:, 1:]), lefts[:, 1:]),
    ]
    for axis, half in ((across, HALF_TYRE), (along, RADIUS)):
        left, right_ = dot(axis, lefts - at), dot(axis, rights - at)
        low, high = jnp.minimum(left, right_), jnp.maximum(left, right_)
        separations += [jnp.minimum(low[:, 1:], low[:, :-1]) - half, -jnp.maximum(high[:, 1:], high[:, :-1]) - half]
    return jnp.max(jnp.stack(separations), 0)


def _rightward(ways: Array) -> Array:
    """Unit vectors to the right of ways [..., 2]."""
    return -left_of(ways) / jnp.sqrt(dot(ways, ways))[..., None]
