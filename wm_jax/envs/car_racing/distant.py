"""The road from far away: maps of how much of the ground is road, averaged beforehand.

For the first seven frames of an episode the camera is so high that one footprint holds many tiles. There a pixel looks
into a coarse map of the track instead of asking for tiles: a few numbers of the map that matches its footprint,
interpolated (Williams 1983, "Pyramidal Parametrics"). What that costs does not depend on the height.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32, Int, Int16, UInt16

from wm_jax.envs.car_racing.road import (
    CELL,
    FIELD,
    HALF_WIDTH,
    OUTLINE,
    SECTIONS,
    SHADES,
    Camera,
    Shares,
    in_view,
    shares,
)

CELLS = (2.0, 4.0)
"""Sides of the maps' cells, in u; each map is averaged from the one before."""
SIDES = (336, 168)
"""Cells along a side of each map: even, and enough for the field."""
ORIGIN = SIDES[0] * CELLS[0] / 2
"""The maps reach from -ORIGIN to ORIGIN, in u."""
BEGINS = (0, SIDES[0] ** 2, SIDES[0] ** 2 + SIDES[1] ** 2)
"""Where each map begins in `Tracks.distant`, and the end of the last one."""
COARSE_BELOW = 1.5
"""Below this zoom the second map is used."""
DRAWN_AT = 2.0
"""The zoom at which outlines are as wide as they are in the maps."""
TAPS = 2, 2
"""Places at which a pixel looks, across and down: hardly farther apart than what one look sees."""


def maps_of(
    nearest: Int16[Array, "cells cells"], strips: Float32[Array, "401 16"], colours: Float32[Array, "3 3"]
) -> UInt16[Array, "texels"]:
    """`Tracks.distant` of one track."""
    side, cell = SIDES[0], CELLS[0]
    camera = Camera(*map(jnp.float32, (0.0, 0.0, 1.0, 0.0, DRAWN_AT)))
    footprint = jnp.float32(cell), jnp.float32(cell)
    rows = in_view(strips, colours, jnp.zeros(SECTIONS, bool), camera, footprint)
    middles = (jnp.arange(side, dtype=jnp.float32) + 0.5) * cell - ORIGIN
    places = jnp.clip((middles + FIELD) / CELL, 0, nearest.shape[0] - 1).astype(jnp.int32)
    sections = nearest[places[:, None], places[None]].astype(jnp.int32)
    shape = (side, side)
    x, y = jnp.broadcast_to(middles[None], shape), jnp.broadcast_to(middles[:, None], shape)
    road = shares(rows[sections], x, y)
    fine = jnp.stack([road.paved, road.red + road.white])
    coarse = jnp.mean(fine.reshape(2, side // 2, 2, side // 2, 2), (2, 4))
    return jnp.concatenate([_packed(each).ravel() for each in (fine, coarse)])


def _packed(channels: Float32[Array, "2 side side"]) -> UInt16[Array, "side side"]:
    """Two shares in 0..1, paved and curbs, as the bytes of one number: one number is one look into memory."""
    levels = jnp.round(255.0 * jnp.clip(channels, 0.0, 1.0)).astype(jnp.uint16)
    return levels[0] | levels[1] << 8


def taps(length: Array, cell: Array, count: int) -> Float32[Array, "count"]:
    """Where along a side of a footprint, of this length, its taps lie, from its middle, in u: evenly spaced.

    So that together they vary as much as the footprint, length² / 12. One tap, a cell averaged and interpolated, has
    cell² / 4: the average's cell² / 12 and, in the mean over its places, the interpolation's cell² / 6. What is left is
    spread over the taps: `count` of them at a distance of 1 have (count² - 1) / 12.
    """
    left = jnp.maximum(jnp.square(length) / 12 - jnp.square(cell) / 4, 0.0)
    apart = jnp.sqrt(12 * left / (count**2 - 1))
    return (jnp.arange(count, dtype=jnp.float32) - (count - 1) / 2) * apart


def look(
    distant: UInt16[Array, "S texels"], track: Int[Array, ""], coarse: Array, x: Float32[Array, "*n"], y: Array
) -> tuple[Float32[Array, "*n"], Float32[Array, "*n"]]:
    """What is paved, and what curb, around points x, y (u) of the world, interpolated in one of the maps.

    Args:
      track: of the bank.
      coarse: bool [], in the second map rather than in the first.
    """
    begin, side = (jnp.where(coarse, *map(jnp.int32, pair[::-1])) for pair in (BEGINS[:2], SIDES))
    cell = jnp.where(coarse, CELLS[1], CELLS[0])
    places = [jnp.clip((each + ORIGIN) / cell - 0.5, 0.0, side.astype(jnp.float32) - 1.001) for each in (x, y)]
    (column, right), (row, down) = ((each.astype(jnp.int32), each % 1.0) for each in places)
    here = begin + row * side + column
    # In loops of its own: XLA:CPU would compute everything that it fuses with looks into memory one number at a time.
    here, right, down = lax.optimization_barrier((here, right, down))
    # (XLA itself keeps looks in bounds, also those of a camera that is nowhere.)
    texels = [distant.at[track, here + step].get(mode="promise_in_bounds") for step in (0, 1, side, side + 1)]
    texels = lax.optimization_barrier(texels)
    weights = (1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down

    def mixed(shift: int) -> Array:
        channels = [(texel >> shift & 255).astype(jnp.float32) for texel in texels]
        return sum((w * c for w, c in zip(weights, channels, strict=True)), jnp.float32(0)) * jnp.float32(1 / 255)

    return mixed(0), mixed(8)


def road_of(
    paved: Float32[Array, "*n"], curbs: Float32[Array, "*n"], zoom: Array, colours: Float32[Array, "3 3"]
) -> Shares:
    """The road of footprints of which so much is paved and curb, in the maps. Red and white of the curbs, and the three
    shades of the tiles, are mixed evenly: a footprint holds several.

    Args:
      zoom: of the camera: outlines reach the farther, the higher it is.
      colours: of the track.
    """
    wider = (HALF_WIDTH + OUTLINE / zoom) / (HALF_WIDTH + OUTLINE / DRAWN_AT)
    paved = jnp.minimum(paved * wider, 1.0 - curbs)
    shade = jnp.mean(jnp.floor(jnp.array(SHADES, jnp.float32) + colours[0, 0] % 1.0))
    return Shares(paved, 0.5 * curbs, 0.5 * curbs, paved * shade)
