"""The road as a chain of strips: what a pixel near a section has to know, and how much of its footprint is road.

Tile i is the quadrilateral between sections i - 1 and i. A pixel asks for the row of the section that lies nearest, and
computes how much of its footprint the two tiles at that section cover. Coverage is that of a half-plane by a box,
clip(1/2 + distance / width).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int8, Int32

FIELD = 2000 / 6.0
"""The field reaches from -FIELD to FIELD in x and y, in u; who leaves it has lost."""
CELL = 1.0
"""Side of a cell of `Tracks.nearest`, in u. With 2 u, pixels inside of the tightest bends (where sections are 1.4 u
apart) would be given a section too far."""
SECTIONS = 400
"""Room for the sections of a track; seen are 224 to 389."""
HALF_WIDTH = 40 / 6.0
"""Of the road, in u."""
CURB = 8 / 6.0
"""Width of the red and white border of tight bends, in u."""
OUTLINE = 0.5
"""Polygons are painted with their outlines: each reaches half a window pixel farther."""
SHADES = (0.0, 2.55, 5.1)
"""How much brighter the tiles are in turns, in levels of 0..255, until a car has touched them."""

STRIP = (
    *("ahead_x", "ahead_y", "ahead_c"),  # distance ahead of section i: ahead_x x + ahead_y y + ahead_c
    *("right_x", "right_y", "right_c", "half"),  # tile i: distance to the right of its middle line; half its width
    *("next_right_x", "next_right_y", "next_right_c", "next_half"),  # tile i + 1 likewise
    *("curb", "next_curb"),  # side of the curb: 1 or -1 where it is white, 2 or -2 where it is red, 0 for none
    *("shade", "next_shade"),  # how much brighter the tiles are, in 0..255, until a car has touched them
    "next",  # the number of tile i + 1
)
"""The columns of `Tracks.strips`."""


class Camera(NamedTuple):
    """Where it is (u), where it looks, and window pixels per u: float32 [] each."""

    x: Array
    y: Array
    cos: Array
    sin: Array
    zoom: Array

    def turn(self, x: Array, y: Array) -> tuple[Array, Array]:
        """A direction of the world in the camera's system."""
        return self.cos * x + self.sin * y, self.cos * y - self.sin * x

    def world(self, x: Array, y: Array) -> tuple[Array, Array]:
        """The place in the world of a point of the camera's system."""
        return self.x + self.cos * x - self.sin * y, self.y + self.sin * x + self.cos * y


class Shares(NamedTuple):
    """What of each footprint is road, red curb and white curb; and the paved share times its brightness over the plain
    road's. All of one shape.
    """

    paved: Array
    red: Array
    white: Array
    shade: Array


def ramp(distance: Array) -> Array:
    """The share of a box on the inner side of a line, from the distance of its middle in widths of the box."""
    return jnp.clip(0.5 + distance, 0.0, 1.0)


def extent(footprint: tuple[Array, Array], right: Array, ahead: Array) -> Array:
    """The width of a footprint along unit vectors of the camera's system: of a box, by its variance."""
    return jnp.sqrt(jnp.square(right * footprint[0]) + jnp.square(ahead * footprint[1]))


def strips_of(
    points: Float32[Array, "400 2"], angles: Float32[Array, "400"], curbs: Int8[Array, "400"], count: Int32[Array, ""]
) -> Float32[Array, "401 16"]:
    """`Tracks.strips` of one track; see `Tracks` for the arguments."""
    here = jnp.arange(SECTIONS, dtype=jnp.int32)
    before, after = jnp.where(here == 0, count - 1, here - 1), jnp.where(here == count - 1, 0, here + 1)
    ahead = jnp.stack([-jnp.sin(angles), jnp.cos(angles)], -1)
    # The quadrilateral's sides are nearly parallel (a tile turns by 0.31 at most, and next tiles turn alike): its
    # middle line and half its width, measured across, say where they are within a twentieth of a pixel.
    along = points - points[before]
    along = along / jnp.sqrt(jnp.sum(jnp.square(along), -1, keepdims=True) + 1e-12)
    right = jnp.stack([along[:, 1], -along[:, 0]], -1)
    turns = jnp.stack([angles, angles[before]]) - jnp.arctan2(right[:, 1], right[:, 0])[None]
    half = HALF_WIDTH * jnp.mean(jnp.cos(turns), 0)
    tile = jnp.concatenate([right, -jnp.sum(right * points, -1, keepdims=True), half[:, None]], -1)
    curb = curbs.astype(jnp.float32) * (1.0 + (here % 2).astype(jnp.float32))
    shade = jnp.array(SHADES, jnp.float32)[here % len(SHADES)]
    pairs = [jnp.stack([each, each[after]], -1) for each in (curb, shade)]
    rows = [ahead, -jnp.sum(ahead * points, -1, keepdims=True), tile, tile[after], *pairs, after[:, None]]
    strips = jnp.concatenate([each.astype(jnp.float32) for each in rows], -1)
    nowhere = {"ahead_y": 1.0, "right_x": 1.0, "next_right_x": 1.0, "half": -1e6, "next_half": -1e6, "next": SECTIONS}
    return jnp.concatenate([strips, jnp.array([[nowhere.get(column, 0.0) for column in STRIP]], jnp.float32)])


def in_view(
    strips: Float32[Array, "401 16"],
    colours: Float32[Array, "3 3"],
    visited: Bool[Array, "400"],
    camera: Camera,
    footprint: tuple[Array, Array],
) -> Float32[Array, "401 16"]:
    """`Tracks.strips` of one track as a picture needs them: lines in the camera's system, distances in footprints,
    shades as they are now; and in the place of `next` the width of a curb.

    Args:
      colours: of the track.
      visited: the tiles that have lost their shade.
      footprint: sides of a sample's, in u.
    """
    strip = dict(zip(STRIP, strips.T, strict=True))

    def line(name: str) -> tuple[Array, Array, Array]:
        x, y, c = (strip[f"{name}_{part}"] for part in "xyc")
        return (*camera.turn(x, y), x * camera.x + y * camera.y + c)

    ahead, right, next_right = line("ahead"), line("right"), line("next_right")
    along, across = (1.0 / extent(footprint, *each[:2]) for each in (ahead, right))
    halves = [(strip[name] + OUTLINE / camera.zoom) * across for name in ("half", "next_half")]
    fraction = colours[0, 0] % 1.0
    visited = jnp.concatenate([visited, jnp.zeros(1, bool)])
    shades = [
        jnp.where(where, 0.0, jnp.floor(strip[name] + fraction))
        for name, where in (("shade", visited), ("next_shade", visited[strip["next"].astype(jnp.int32)]))
    ]
    columns = [part * along for part in ahead]
    columns += [*(part * across for part in right), halves[0], *(part * across for part in next_right), halves[1]]
    return jnp.stack([*columns, strip["curb"], strip["next_curb"], *shades, CURB * across], -1)


def shares(rows: Float32[Array, "*shape 16"], x: Array, y: Array) -> Shares:
    """The road at points x, y [*shape] of the camera's system, from the rows of `in_view` there."""
    strip = dict(zip(STRIP, jnp.moveaxis(rows, -1, 0), strict=True))

    def line(name: str) -> Array:
        return strip[f"{name}_x"] * x + strip[f"{name}_y"] * y + strip[f"{name}_c"]

    def tile(prefix: str, share: Array) -> Shares:
        right, half, curb = line(prefix + "right"), strip[prefix + "half"], strip[prefix + "curb"]
        paved = share * ramp(half - jnp.abs(right))
        inside = half - jnp.sign(curb) * right
        kerb = jnp.where(curb != 0, share * (ramp(inside + strip["next"]) - ramp(inside)), 0.0)
        white = jnp.where(jnp.abs(curb) == 1, kerb, 0.0)
        return Shares(paved, kerb - white, white, paved * strip[prefix + "shade"])

    # The two tiles share the footprint where the section cuts it.
    ahead = ramp(line("ahead"))
    return jax.tree.map(jnp.add, tile("", 1.0 - ahead), tile("next_", ahead))
