"""The pictures of CarRacing-v3, drawn by the device: what Gymnasium shows, and the World Models' frame made from it.

Gymnasium paints polygons into a window and averages it down to a picture (`raster.py`). All of this is linear but for
the painting, so each pixel is a mean over a part of the window, its footprint. Here every pixel asks, by
`Tracks.nearest`, which section of the road lies near, computes how much of its footprint the two tiles at that section
cover, and mixes the colours. Coverage is that of a half-plane by a box, clip(1/2 + distance / width). While the camera
is still far away (the first second), a footprint holds several tiles: then a pixel is made from several samples. The
car, always at the same place, is drawn apart, in finer samples of a small patch.

Everything happens in two systems: the world's (u, angles counter-clockwise) and the camera's, with the car at its
origin, x to the right and y ahead: window column = 500 + zoom x, row = 600 - zoom y.

There are two formulations of the same arithmetic, one in JAX for accelerators, here, and one in C for CPU
(`kernels/native/scene.c`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt8

from wm_jax.envs.car_racing.raster import FRAME, MIDDLE, OBSERVATION, Raster, Vector, raster
from wm_jax.envs.car_racing.track import CELL, CELLS, CURB, FIELD, SECTIONS, STRIP, Tracks, nearest_section
from wm_jax.kernels import native

OUTLINE = 0.5
"""Polygons are painted with their outlines: each reaches half a window pixel farther."""
LOST_LEVELS = 2.0
"""What pygame's smoothscale loses in fixed point: 102 becomes 100, 255 becomes 253; black stays."""
PATCH = 100 / 6.0
"""Side of a patch of darker grass, in u; they lie two apart."""
COARSE = ((1.5, 8), (3.0, 4), (6.0, 2))
"""Below this zoom a pixel has so many samples in either direction: their footprints stay below the length of a tile."""
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
    if fast and native.available():
        track, visited, numbers = (field[None] for field in shot)
        return _natively(width)(tracks, (track, visited, numbers))[0]
    return _plainly(tracks, shot, raster(width))


# ---- In JAX ----


class _Camera(NamedTuple):
    """`Shot.numbers`, by name."""

    x: Array
    y: Array
    cos: Array
    sin: Array
    zoom: Array

    def turn(self, x: Array, y: Array) -> tuple[Array, Array]:
        """A direction of the world in the camera's system."""
        return self.cos * x + self.sin * y, self.cos * y - self.sin * x


def _plainly(tracks: Tracks, shot: Shot, grid: Raster) -> UInt8[Array, "H W 3"]:
    camera, wheels = _Camera(*shot.numbers[:5]), shot.numbers[5:].reshape(4, 4)
    levels = _with_car(_ground(tracks, shot, camera, grid), camera, wheels, grid)
    return jnp.moveaxis(jnp.round(jnp.maximum(levels - LOST_LEVELS, 0.0)).astype(jnp.uint8), 0, -1)


def _ground(tracks: Tracks, shot: Shot, camera: _Camera, grid: Raster) -> Float32[Array, "3 H W"]:
    """Field, grass and road. The number of samples is a loop's, not a shape's: usually it is one."""
    side = jnp.int32(1)
    for below, samples in reversed(COARSE):
        side = jnp.where(camera.zoom < below, samples, side)
    share = 1.0 / side.astype(jnp.float32)
    footprint = grid.width * share / camera.zoom, grid.height * share / camera.zoom
    strips = _seen(tracks, shot, camera, footprint)
    shape = (len(grid.rows), len(grid.columns))

    def add(i: Array, total: Array) -> Array:
        right = ((i % side).astype(jnp.float32) + 0.5) * share - 0.5
        down = ((i // side).astype(jnp.float32) + 0.5) * share - 0.5
        x = (jnp.asarray(grid.columns) - MIDDLE[0] + right * grid.width) / camera.zoom
        y = (MIDDLE[1] - jnp.asarray(grid.rows) - down * grid.height) / camera.zoom
        x, y = jnp.broadcast_to(x[None], shape), jnp.broadcast_to(y[:, None], shape)
        return total + _sample(tracks, shot.track, camera, strips, footprint, x, y)

    total = lax.fori_loop(0, side * side, add, jnp.zeros((3, *shape), jnp.float32))
    return total * jnp.square(share)


def _extent(footprint: tuple[Array, Array], right: Array, ahead: Array) -> Array:
    """The width of a footprint along unit vectors of the camera's system: of a box, by its variance."""
    return jnp.sqrt(jnp.square(right * footprint[0]) + jnp.square(ahead * footprint[1]))


def _seen(tracks: Tracks, shot: Shot, camera: _Camera, footprint: tuple[Array, Array]) -> Float32[Array, "401 16"]:
    """`Tracks.strips` as this picture needs them: lines in the camera's system, distances in footprints, shades as they
    are now; and in the place of `next` the width of a curb.
    """
    strip = dict(zip(STRIP, tracks.strips[shot.track].T, strict=True))

    def line(name: str) -> tuple[Array, Array, Array]:
        x, y, c = (strip[f"{name}_{part}"] for part in "xyc")
        return (*camera.turn(x, y), x * camera.x + y * camera.y + c)

    ahead, right, next_right = line("ahead"), line("right"), line("next_right")
    along, across = (1.0 / _extent(footprint, *each[:2]) for each in (ahead, right))
    halves = [(strip[name] + OUTLINE / camera.zoom) * across for name in ("half", "next_half")]
    fraction = tracks.colours[shot.track, 0, 0] % 1.0
    visited = jnp.concatenate([shot.visited, jnp.zeros(1, bool)])
    shades = [
        jnp.where(where, 0.0, jnp.floor(strip[name] + fraction))
        for name, where in (("shade", visited), ("next_shade", visited[strip["next"].astype(jnp.int32)]))
    ]
    columns = [part * along for part in ahead]
    columns += [*(part * across for part in right), halves[0], *(part * across for part in next_right), halves[1]]
    return jnp.stack([*columns, strip["curb"], strip["next_curb"], *shades, CURB * across], -1)


def _sample(
    tracks: Tracks, track: Array, camera: _Camera, strips: Array, footprint: tuple[Array, Array], x: Array, y: Array
) -> Float32[Array, "3 H W"]:
    """The colours at points x, y [H, W] of the camera's system, averaged over footprints (sides in u)."""
    world_x = camera.x + camera.cos * x - camera.sin * y
    world_y = camera.y + camera.sin * x + camera.cos * y
    outline = OUTLINE / camera.zoom
    extents = _extent(footprint, camera.cos, -camera.sin), _extent(footprint, camera.sin, camera.cos)
    on_field, on_patch = (first * second for first, second in zip(
        _grass(world_x, extents[0], outline), _grass(world_y, extents[1], outline), strict=True
    ))  # fmt: skip
    shares = _road(strips[nearest_section(tracks, track, world_x, world_y)], x, y)
    bare = on_field * (1.0 - shares.paved - shares.red - shares.white)
    curbs = shares.white + shares.red, shares.white, shares.white
    channels = []
    for (road, ground, patch), curb in zip(tracks.colours[track].T, curbs, strict=True):
        grass = bare * (ground + (patch - ground) * on_patch)
        channels.append(grass + jnp.floor(road) * shares.paved + shares.shade + 255.0 * curb)
    return jnp.stack(channels)


def _grass(along: Array, extent: Array, outline: Array) -> tuple[Array, Array]:
    """Along one axis of the world: the shares of footprints on the field, and on the stripes of darker grass."""
    middle = jnp.mod(along + PATCH / 2, 2 * PATCH) - PATCH
    return _ramp((FIELD - jnp.abs(along)) / extent), _ramp((PATCH / 2 + outline - jnp.abs(middle)) / extent)


class _Shares(NamedTuple):
    """What of each footprint is road, red curb and white curb; and the paved share times its brightness over the plain
    road's.
    """

    paved: Array
    red: Array
    white: Array
    shade: Array


def _road(rows: Float32[Array, "H W 16"], x: Array, y: Array) -> _Shares:
    """The road at points of the camera's system, from the rows of `_seen` there."""
    strip = dict(zip(STRIP, jnp.moveaxis(rows, -1, 0), strict=True))

    def line(name: str) -> Array:
        return strip[f"{name}_x"] * x + strip[f"{name}_y"] * y + strip[f"{name}_c"]

    def tile(prefix: str, share: Array) -> _Shares:
        right, half, curb = line(prefix + "right"), strip[prefix + "half"], strip[prefix + "curb"]
        paved = share * _ramp(half - jnp.abs(right))
        inside = half - jnp.sign(curb) * right
        kerb = jnp.where(curb != 0, share * (_ramp(inside + strip["next"]) - _ramp(inside)), 0.0)
        white = jnp.where(jnp.abs(curb) == 1, kerb, 0.0)
        return _Shares(paved, kerb - white, white, paved * strip[prefix + "shade"])

    # The two tiles share the footprint where the section cuts it.
    ahead = _ramp(line("ahead"))
    return jax.tree.map(jnp.add, tile("", 1.0 - ahead), tile("next_", ahead))


def _ramp(distance: Array) -> Array:
    """The share of a box on the inner side of a line, from the distance of its middle in widths of the box."""
    return jnp.clip(0.5 + distance, 0.0, 1.0)


def _with_car(levels: Array, camera: _Camera, wheels: Float32[Array, "4 4"], grid: Raster) -> Float32[Array, "3 H W"]:
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
    hull, tyres, stripes = (_ramp((jnp.max(inside, 0) + outline) / sample) for inside in (hull, tyres, stripes))
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

_READ = ("nearest", "strips", "colours")
"""What C reads of `Tracks`."""


def _natively(width: int) -> Callable[[Tracks, tuple[Array, Array, Array]], Array]:
    """(tracks, fields of shots [B]) -> uint8 [B, H, W, 3]. Under `vmap` all pictures are drawn in one call."""

    @custom_vmap
    def draw(tracks: Tracks, shots: tuple[Array, Array, Array]) -> Array:
        grid = raster(width)
        constants = (FIELD, CELL, PATCH, OUTLINE, CURB, LOST_LEVELS, *MIDDLE, grid.width, grid.height, grid.sample)
        vectors = [np.array(constants), grid.columns, grid.rows, _edges(), grid.sample_columns, grid.sample_rows]
        vectors += [grid.column_weights, grid.row_weights, np.array([*_WHEELS.flat, *_TYRE])]
        count, size = tracks.count.shape[0], (shots[0].shape[0], len(grid.rows), len(grid.columns), 3)
        arrays = dict(zip(Shot._fields, shots, strict=True)) | {name: getattr(tracks, name) for name in _READ}
        shapes = {"track": size[:1], "visited": (size[0], SECTIONS), "numbers": (size[0], 21)}
        shapes |= {"nearest": (count, CELLS, CELLS), "strips": (count, SECTIONS + 1, 16), "colours": (count, 3, 3)}
        native.require("scene", arrays, shapes, {"track": jnp.int32, "visited": bool, "nearest": jnp.int16})
        return native.call(
            "scene",
            jax.ShapeDtypeStruct(size, jnp.uint8),
            *arrays.values(),
            *(np.asarray(vector, np.float32) for vector in vectors),
            part_x=grid.car[1].start,
            part_y=grid.car[0].start,
        )

    @draw.def_vmap
    def _many(size: int, mapped: Any, tracks: Any, shots: Any) -> tuple[Array, bool]:
        def spread(field: Array, batched: bool) -> Array:
            return field if batched else jnp.broadcast_to(field, (size, *field.shape))

        several = tuple(map(spread, shots, mapped[1]))
        if any(mapped[0]):  # banks of tracks are large, and several of them unusual
            banks = Tracks(*map(spread, tracks, mapped[0]))
            return lax.map(lambda each: draw(*each), (banks, several)), True
        pictures = draw(tracks, tuple(field.reshape(-1, *field.shape[2:]) for field in several))
        return pictures.reshape(size, -1, *pictures.shape[1:]), True

    return draw
