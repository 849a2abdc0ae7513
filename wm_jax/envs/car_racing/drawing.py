"""The pictures of CarRacing-v3, drawn by the device: what Gymnasium shows, and the World Models' frame made from it.

Gymnasium paints polygons into a window and averages it down to a picture (`raster.py`). All of this is linear but for
the painting, so each pixel is a mean over a part of the window, its footprint. Here every pixel asks, by
`Tracks.nearest`, which section of the road lies near, computes how much of its footprint is road (`road.py`), and mixes
the colours. While the camera comes down, in the first third of a second, a footprint holds several tiles: then a pixel
is made from several samples, or, from still higher, from maps of the road (`distant.py`). The car, always at the same
place, is drawn apart, in finer samples of a small patch.

Everything happens in two systems: the world's (u, angles counter-clockwise) and the camera's, with the car at its
origin, x to the right and y ahead: window column = 500 + zoom x, row = 600 - zoom y.

There are two formulations of the same arithmetic, one in JAX for accelerators, here, and one in C for CPU
(`kernels/native/scene.c`).
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8

from wm_jax.envs.car_racing import distant
from wm_jax.envs.car_racing.raster import FRAME, MIDDLE, OBSERVATION, Raster, Vector, raster
from wm_jax.envs.car_racing.road import (
    CELL,
    CURB,
    FIELD,
    HALF_WIDTH,
    OUTLINE,
    SECTIONS,
    SHADES,
    Camera,
    Shares,
    extent,
    in_view,
    ramp,
    shares,
)
from wm_jax.envs.car_racing.track import CELLS, Tracks, nearest_section
from wm_jax.kernels import native

LOST_LEVELS = 2.0
"""What pygame's smoothscale loses in fixed point: 102 becomes 100, 255 becomes 253; black stays."""
PATCH = 100 / 6.0
"""Side of a patch of darker grass, in u; they lie two apart."""
DISTANT, CLOSE = 3.0, 6.0
"""Zooms. Below the latter a pixel is made from several samples, whose footprints stay below the length of a tile; below
the former from maps (`distant.py`)."""
SAMPLES = 2
"""In either direction, between the two."""
PARTS, LEAST_ROWS = 32, 2
"""Of a batch, such a part is drawn anew at once, where that is needed, and so many rows at least: one that is alone in
its batch may be rounded otherwise."""
_UNIT = 0.02
"""Gymnasium's shapes of the car are given in this many u."""
_HULL = (
    ((-60, 130), (-60, 110), (60, 110), (60, 130)),
    ((-15, 120), (-20, 20), (20, 20), (15, 120)),
    ((25, 20), (-25, 20), (-50, -10), (-50, -40), (-20, -90), (20, -90), (50, -40), (50, -10)),
    ((-50, -120), (50, -120), (50, -90), (-50, -90)),
)
"""Convex polygons, counter-clockwise."""
_WHEELS = np.array([(-55, 80), (55, 80), (-55, -82), (55, -82)], np.float32) * _UNIT
_TYRE = 14 * _UNIT, 27 * _UNIT
"""Half its width, and its radius."""
_STRIPE = 1.2
"""Of the tyre's turn, in radians, that its grey stripe takes."""


class Shot(NamedTuple):
    """What the camera sees of a game: where the car is, and how it stands. See `shot`."""

    track: Int32[Array, "*B"]
    """Of the bank."""
    visited: Bool[Array, "*B 400"]
    """The tiles that a wheel has touched: they have lost their shade."""
    numbers: Float32[Array, "*B 21"]
    """x, y (u), cosine and sine of the angle, zoom; of the four wheels: cosines and sines of the angles to the hull,
    and where the stripe begins and ends, ahead of the axle (u)."""


def shot(
    track: Int32[Array, ""],
    visited: Bool[Array, "400"],
    position: Float32[Array, "2"],
    angle: Float32[Array, ""],
    joints: Float32[Array, "4"],
    phases: Float32[Array, "4"],
    time: Float32[Array, ""],
) -> Shot:
    """What the camera sees.

    Args:
      position, angle: of the hull's origin, in u and radians.
      joints, phases: of the wheels: angle to the hull, and turned by the road, in radians.
      time: seconds since the track was made.
    """
    # A stripe's ends, seen from above; an end on the lower side is hidden, and the stripe goes to the tyre's edge.
    turned = jnp.stack([phases, phases + _STRIPE])
    below, ends = jnp.sin(turned) > 0, jnp.cos(turned)
    ends = _TYRE[1] * jnp.where(below, jnp.sign(ends), ends)
    hidden = jnp.all(below, 0)
    low, high = jnp.where(hidden, 1e6, jnp.min(ends, 0)), jnp.where(hidden, -1e6, jnp.max(ends, 0))
    camera = jnp.stack([*position, jnp.cos(angle), jnp.sin(angle), zoom_at(time)])
    return Shot(track, visited, jnp.concatenate([camera, jnp.cos(joints), jnp.sin(joints), low, high]))


def zoom_at(time: Float[Array, "*lead"]) -> Float[Array, "*lead"]:
    """Window pixels per u: the camera comes near during the first second."""
    return 0.6 * jnp.maximum(1.0 - time, 0.0) + 16.2 * jnp.minimum(time, 1.0)


def frame(tracks: Tracks, shot: Shot) -> UInt8[Array, "64 64 3"]:
    """What V sees."""
    return picture(tracks, shot, FRAME)


def observation(tracks: Tracks, shot: Shot, bar: UInt8[Array, "12 96 3"]) -> UInt8[Array, "96 96 3"]:
    """What Gymnasium shows, with the bar of instruments at the bottom."""
    return jnp.concatenate([picture(tracks, shot, OBSERVATION), bar])


def picture(tracks: Tracks, shot: Shot, width: int, *, fast: bool = True) -> UInt8[Array, "H W 3"]:
    """The field, the road and the car; `vmap` over shots draws many.

    Args:
      width: FRAME for 64 x 64, OBSERVATION for 84 x 96.
      fast: in C, where that can be had.
    """
    shots = Shot(*(field[None] for field in shot))
    return _many(width, in_c=fast and native.available())(tracks, shots)[0]


@cache
def _many(width: int, *, in_c: bool) -> Callable[[Tracks, Shot], Array]:
    """(tracks, shots [B]) -> uint8 [B, H, W, 3]. Under `vmap` all pictures are drawn in one call."""
    grid, formulation = raster(width), _in_c if in_c else _in_jax

    @custom_vmap
    def draw(tracks: Tracks, shots: Shot) -> Array:
        return formulation(tracks, shots, grid)

    @draw.def_vmap
    def _mapped(size: int, mapped: Any, tracks: Any, shots: Any) -> tuple[Array, bool]:
        def spread(field: Array, batched: bool) -> Array:
            return field if batched else jnp.broadcast_to(field, (size, *field.shape))

        several = Shot(*map(spread, shots, mapped[1]))
        if any(mapped[0]):  # banks of tracks are large, and several of them unusual
            banks = Tracks(*map(spread, tracks, mapped[0]))
            return lax.map(lambda each: draw(*each), (banks, several)), True
        pictures = draw(tracks, Shot(*(field.reshape(-1, *field.shape[2:]) for field in several)))
        return pictures.reshape(size, -1, *pictures.shape[1:]), True

    return draw


# ---- In JAX ----


def _in_jax(tracks: Tracks, shots: Shot, grid: Raster) -> UInt8[Array, "B H W 3"]:
    """B pictures. The ground is drawn as if all cameras were near, then anew where they are not: there it costs more,
    and every row pays for itself alone.
    """
    zoom = shots.numbers[:, 4]
    levels = jax.vmap(lambda shot: _ground(tracks, shot, grid, 1))(shots)
    for above, below, ground in ((DISTANT, CLOSE, partial(_ground, side=SAMPLES)), (-jnp.inf, DISTANT, _ground_afar)):
        draw = partial(_each, ground, tracks, grid)
        levels = _redrawn(levels, (above <= zoom) & (zoom < below), draw, shots)
    cameras = jax.vmap(lambda levels, shot: _with_car(levels, Camera(*shot.numbers[:5]), _wheels(shot), grid))
    levels = cameras(levels, shots)
    return jnp.moveaxis(jnp.round(jnp.maximum(levels - LOST_LEVELS, 0.0)).astype(jnp.uint8), 1, -1)


def _each(ground: Callable[..., Array], tracks: Tracks, grid: Raster, shots: Shot) -> Float32[Array, "B 3 H W"]:
    return jax.vmap(lambda shot: ground(tracks, shot, grid))(shots)


def _redrawn(
    levels: Float32[Array, "B 3 H W"], chosen: Bool[Array, "B"], draw: Callable[[Shot], Array], shots: Shot
) -> Float32[Array, "B 3 H W"]:
    """With the chosen rows drawn by `draw`, some at a time: as often as it takes for those that there are."""
    rows = len(chosen)
    at_once = min(rows, max(LEAST_ROWS, rows // PARTS))
    count = jnp.sum(chosen, dtype=jnp.int32)
    order = jnp.nonzero(chosen, size=-(-rows // at_once) * at_once, fill_value=rows)[0].astype(jnp.int32)

    def some(i: Array, levels: Array) -> Array:
        places = lax.dynamic_slice_in_dim(order, i * at_once, at_once)
        drawn = draw(jax.tree.map(lambda field: field.at[places].get(mode="clip"), shots))
        return levels.at[places].set(drawn, mode="drop")

    return lax.fori_loop(0, -(-count // at_once), some, levels)


def _wheels(shot: Shot) -> Float32[Array, "4 4"]:
    return shot.numbers[5:].reshape(4, 4)


def _ground(tracks: Tracks, shot: Shot, grid: Raster, side: int) -> Float32[Array, "3 H W"]:
    """Field, grass and road, each pixel from side x side samples."""
    camera, colours = Camera(*shot.numbers[:5]), tracks.colours[shot.track]
    share = 1.0 / side
    footprint = grid.width * share / camera.zoom, grid.height * share / camera.zoom
    strips = in_view(tracks.strips[shot.track], colours, shot.visited, camera, footprint)

    def sample(right: Array, down: Array) -> Array:
        x, y = _points(grid, camera, right * grid.width, down * grid.height)
        world = camera.world(x, y)
        road = shares(strips[nearest_section(tracks, shot.track, *world)], x, y)
        return _colours(colours, camera, road, footprint, *world)

    middles = (jnp.arange(side, dtype=jnp.float32) + 0.5) * share - 0.5
    return _mean(sample, middles, middles)


def _ground_afar(tracks: Tracks, shot: Shot, grid: Raster) -> Float32[Array, "3 H W"]:
    """The same, each pixel from a few places of a map."""
    camera, colours = Camera(*shot.numbers[:5]), tracks.colours[shot.track]
    coarse = camera.zoom < distant.COARSE_BELOW
    cell = jnp.where(coarse, distant.CELLS[1], distant.CELLS[0])
    footprint = grid.width / camera.zoom, grid.height / camera.zoom
    right, down = (
        distant.taps(*each) * camera.zoom for each in zip(footprint, (cell, cell), distant.TAPS, strict=True)
    )

    def look(right: Array, down: Array) -> tuple[Array, Array]:
        return distant.look(tracks.distant, shot.track, coarse, *camera.world(*_points(grid, camera, right, down)))

    paved, curbs = _mean(look, right, down)
    road = distant.road_of(paved, curbs, camera.zoom, colours)
    return _colours(colours, camera, road, footprint, *camera.world(*_points(grid, camera, 0.0, 0.0)))


def _mean(sample: Callable[[Array, Array], Any], right: Float32[Array, "across"], down: Float32[Array, "along"]) -> Any:
    """Of what is found at all combinations of these distances from the middles of the pixels."""
    if len(right) == len(down) == 1:
        return sample(right[0], down[0])
    places = (each.ravel() for each in jnp.meshgrid(right, down))
    return jax.tree.map(lambda found: jnp.mean(found, 0), jax.vmap(sample)(*places))


def _points(grid: Raster, camera: Camera, right: Array | float, down: Array | float) -> tuple[Array, Array]:
    """A point of each footprint, [H, W] x and y in the camera's system.

    Args:
      right, down: from the middle, in window pixels.
    """
    shape = (len(grid.rows), len(grid.columns))
    x = (jnp.asarray(grid.columns) - MIDDLE[0] + right) / camera.zoom
    y = (MIDDLE[1] - jnp.asarray(grid.rows) - down) / camera.zoom
    return jnp.broadcast_to(x[None], shape), jnp.broadcast_to(y[:, None], shape)


def _colours(
    colours: Array, camera: Camera, road: Shares, footprint: tuple[Array, Array], world_x: Array, world_y: Array
) -> Float32[Array, "3 H W"]:
    """Of samples at points [H, W] of the world.

    Args:
      colours: of the track.
      road: what of the samples' footprints is road.
      footprint: their sides in the camera's system, in u.
    """
    outline = OUTLINE / camera.zoom
    extents = extent(footprint, camera.cos, -camera.sin), extent(footprint, camera.sin, camera.cos)
    on_field, on_patch = (first * second for first, second in zip(
        _grass(world_x, extents[0], outline), _grass(world_y, extents[1], outline), strict=True
    ))  # fmt: skip
    bare = on_field * (1.0 - road.paved - road.red - road.white)
    curbs = road.white + road.red, road.white, road.white
    channels = []
    for (plain, ground, patch), curb in zip(colours.T, curbs, strict=True):
        grass = bare * (ground + (patch - ground) * on_patch)
        channels.append(grass + jnp.floor(plain) * road.paved + road.shade + 255.0 * curb)
    return jnp.stack(channels)


def _grass(along: Array, width: Array, outline: Array) -> tuple[Array, Array]:
    """Along one axis of the world: the shares of footprints on the field, and on the stripes of darker grass."""
    middle = jnp.mod(along + PATCH / 2, 2 * PATCH) - PATCH
    return ramp((FIELD - jnp.abs(along)) / width), ramp((PATCH / 2 + outline - jnp.abs(middle)) / width)


def _with_car(levels: Array, camera: Camera, wheels: Float32[Array, "4 4"], grid: Raster) -> Float32[Array, "3 H W"]:
    """The picture with wheels and hull over the ground."""
    x = ((jnp.asarray(grid.sample_columns) - MIDDLE[0]) / camera.zoom)[None]
    y = ((MIDDLE[1] - jnp.asarray(grid.sample_rows)) / camera.zoom)[:, None]
    outline, sample = OUTLINE / camera.zoom, grid.sample / camera.zoom
    cos, sin, low, high = (each[:, None, None] for each in wheels)
    dx, dy = x[None] - _WHEELS[:, 0, None, None], y[None] - _WHEELS[:, 1, None, None]
    right, ahead = cos * dx + sin * dy, cos * dy - sin * dx
    beside = _TYRE[0] - jnp.abs(right)
    tyres = jnp.minimum(beside, _TYRE[1] - jnp.abs(ahead))
    stripes = jnp.minimum(beside, jnp.minimum(ahead - low, high - ahead))
    edges = _edges()[..., None, None]
    hull = jnp.min(edges[:, :, 0] * x[None, None] + edges[:, :, 1] * y[None, None] + edges[:, :, 2], 1)
    hull, tyres, stripes = (ramp((jnp.max(inside, 0) + outline) / sample) for inside in (hull, tyres, stripes))
    masks = jnp.stack([jnp.maximum(hull, tyres), hull, jnp.minimum(stripes, 1.0 - hull)])
    covered, red, grey = jnp.einsum("is,cst,jt->cij", grid.row_weights, masks, grid.column_weights)
    colour = jnp.stack([204.0 * red + 77.0 * grey, 77.0 * grey, 77.0 * grey])
    return levels.at[:, *grid.car].set(levels[:, *grid.car] * (1.0 - covered)[None] + colour)


def _edges() -> Vector:
    """Of the hull, [polygons, 8, 3]: x, y, c of distances to the inside; those that are missing have all inside."""
    edges = np.tile(np.array([0, 0, 1e6], np.float32), (len(_HULL), 8, 1))
    for polygon, rows in zip(_HULL, edges, strict=True):
        corners = np.array(polygon) * _UNIT
        along = np.roll(corners, -1, 0) - corners
        inwards = np.stack([-along[:, 1], along[:, 0]], 1) / np.hypot(*along.T)[:, None]
        rows[: len(corners)] = np.column_stack([inwards, -(inwards * corners).sum(1)])
    return edges


# ---- In C ----

_READ = ("nearest", "strips", "distant", "colours")
"""What C reads of `Tracks`."""


def _in_c(tracks: Tracks, shots: Shot, grid: Raster) -> UInt8[Array, "B H W 3"]:
    """B pictures, in one call."""
    constants = (FIELD, CELL, PATCH, OUTLINE, CURB, LOST_LEVELS, *MIDDLE, grid.width, grid.height, grid.sample)
    constants += (DISTANT, CLOSE, SAMPLES, distant.COARSE_BELOW, *distant.CELLS, *distant.SIDES, HALF_WIDTH)
    constants += (distant.DRAWN_AT, *SHADES, *distant.TAPS)
    vectors = [np.array(constants), grid.columns, grid.rows, _edges(), grid.sample_columns, grid.sample_rows]
    vectors += [grid.column_weights, grid.row_weights, np.array([*_WHEELS.flat, *_TYRE])]
    count, size = tracks.count.shape[0], (shots.track.shape[0], len(grid.rows), len(grid.columns), 3)
    arrays = shots._asdict() | {name: getattr(tracks, name) for name in _READ}
    shapes = {"track": size[:1], "visited": (size[0], SECTIONS), "numbers": (size[0], 21)}
    shapes |= {"nearest": (count, CELLS, CELLS), "strips": (count, SECTIONS + 1, 16), "colours": (count, 3, 3)}
    shapes |= {"distant": (count, distant.BEGINS[-1])}
    kinds = {"track": jnp.int32, "visited": bool, "nearest": jnp.int16, "distant": jnp.uint16}
    native.require("scene", arrays, shapes, kinds)
    return native.call(
        "scene",
        jax.ShapeDtypeStruct(size, jnp.uint8),
        *arrays.values(),
        *(np.asarray(vector, np.float32) for vector in vectors),
        part_x=grid.car[1].start,
        part_y=grid.car[0].start,
    )
