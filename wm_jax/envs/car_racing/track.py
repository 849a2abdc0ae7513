"""Tracks of CarRacing-v3: the very ones that Gymnasium makes for the same seeds, as arrays that a device can read.

A track is a closed chain of cross-sections, 3.5 u apart; tile i is the quadrilateral between sections i - 1 and i. It
is made once, in float64 by NumPy (Gymnasium 1.3, `CarRacing._create_track`), and read millions of times: by the car,
whose wheels stand on tiles, and by every pixel of a picture. Both must find the few tiles near a point without looking
at all of them: `nearest` says, for every cell of the field, which section lies nearest.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Int8, Int16, Int32, UInt16
from numpy.typing import NDArray

from wm_jax.envs.car_racing.distant import maps_of
from wm_jax.envs.car_racing.road import CELL, FIELD, SECTIONS, strips_of
from wm_jax.kernels import native

NOWHERE = SECTIONS
"""The section of points that are far from any road."""
STEP = 21 / 6.0
"""Distance of two sections, in u."""
CELLS = 2 * math.ceil(FIELD / CELL)
REACH = 13.0
"""How far from a section a cell still belongs to it, in u: half the road and its curb (8), half a footprint of a pixel
(2.2), half a cell's diagonal (0.7), half a tile (1.8). A car whose wheels touch a tile is no farther either."""

ROAD, GROUND, PATCHES = (102.0, 102.0, 102.0), (102.0, 204.0, 102.0), (102.0, 230.0, 102.0)
"""Colours in 0..255."""

CHECKPOINTS = 12
"""Places that a track wants to pass, around the middle of the field."""
RADIUS = 900 / 6.0
"""The largest distance of a checkpoint from the middle, but for the first and the last: these have 1.5 times that."""
TURN = 0.31
"""Largest change of direction from a section to the next, in radians."""
START = -math.pi / CHECKPOINTS
"""The polar angle at which a lap begins."""
LAPS, MOST_STEPS = 4, 2500
"""After which the walk along the checkpoints ends."""
BEND = 4
"""Sections in a row that must turn alike, and sharply, for a curb."""


class Tracks(NamedTuple):
    """A bank of S tracks."""

    count: Int32[Array, "S"]
    """Sections of each."""
    points: Float32[Array, "S 400 2"]
    """Where the middle of the road crosses a section, in u; 1e4 behind the last one."""
    angles: Float32[Array, "S 400"]
    """Of the sections: each runs along (cos, sin), the road along (-sin, cos)."""
    curbs: Int8[Array, "S 400"]
    """On which side of tile i there is a curb: -1, 0 (none), 1 (towards (cos, sin))."""
    nearest: Int16[Array, "S cells cells"]
    """[track, y, x]: the section nearest to the middle of a cell of the field, NOWHERE if none is within REACH."""
    strips: Float32[Array, "S 401 16"]
    """What a pixel near section i has to know, see `road.STRIP`; the last one, NOWHERE's, holds no road."""
    distant: UInt16[Array, "S texels"]
    """Maps of the road for pixels that see much of it, see `distant.maps_of`."""
    colours: Float32[Array, "S 3 3"]
    """Of road, ground and patches of grass; red, green, blue in 0..255. The road's need not be whole numbers."""


def bank(seeds: Sequence[int], *, colourful: bool = False) -> Tracks:
    """The tracks that Gymnasium's `CarRacing-v3` makes for `reset(seed=...)`, one for each seed.

    Args:
      colourful: with the colours that `domain_randomize` draws; the tracks are others then, too.
    """
    colours = np.tile(np.array([ROAD, GROUND, PATCHES]), (len(seeds), 1, 1))
    points, angles = np.full((len(seeds), SECTIONS, 2), 1e4), np.zeros((len(seeds), SECTIONS))
    curbs, count = np.zeros((len(seeds), SECTIONS), np.int8), np.zeros(len(seeds), np.int32)
    for i, seed in enumerate(seeds):
        random = np.random.default_rng(seed)
        if colourful:
            colours[i] = draw_colours(random)
            colours[i, 1:] = np.floor(colours[i, 1:])  # the road's are cut after the tile's shade is added
        track = generate(random)
        n = count[i] = len(track)
        angles[i, :n], points[i, :n] = track[:, 0], track[:, 1:]
        curbs[i, :n] = find_curbs(track[:, 0])
    return prepare(*map(jnp.asarray, (count, _narrow(points), _narrow(angles), curbs, _narrow(colours))))


@jax.jit
def prepare(
    count: Int32[Array, "S"],
    points: Float32[Array, "S 400 2"],
    angles: Float32[Array, "S 400"],
    curbs: Int8[Array, "S 400"],
    colours: Float32[Array, "S 3 3"],
) -> Tracks:
    """A bank of these tracks: adds what is looked up, `nearest`, `strips` and `distant`."""
    nearest = nearest_sections(points, count)
    strips = jax.vmap(strips_of)(points, angles, curbs, count)
    distant = jax.lax.map(lambda track: maps_of(*track), (nearest, strips, colours))
    return Tracks(count, points, angles, curbs, nearest, strips, distant, colours)


def nearest_section(tracks: Tracks, track: Int[Array, ""], x: Array, y: Array) -> Int32[Array, "*lead"]:
    """The section nearest to each of some points, or NOWHERE.

    Args:
      track: one of the bank.
      x, y: in u, of one shape.
    """
    column, row = (jnp.clip((each + FIELD) / CELL, 0, CELLS - 1).astype(jnp.int32) for each in (x, y))
    return tracks.nearest[track, row, column].astype(jnp.int32)


def generate(random: np.random.Generator) -> NDArray[np.float64]:
    """The sections of the next track of this stream: [n, 3], angle and position. Failed attempts are repeated."""
    while True:
        track = _closed_loop(_walk(_checkpoints(random)))
        if track is not None:
            return track


def draw_colours(random: np.random.Generator) -> NDArray[np.float64]:
    """[3, 3]: those of road, ground and patches, as `domain_randomize` draws them before the track."""
    road, ground = random.uniform(0, 210, size=3), random.uniform(0, 210, size=3)
    patches = ground.copy()
    patches[random.integers(3)] += 20
    return np.stack([road, ground, patches])


def find_curbs(angles: NDArray[np.float64]) -> NDArray[np.int8]:
    """[n]: the side of each tile's curb, 0 for none, from the angles [n] of the sections."""
    turns = angles - np.roll(angles, 1)
    last = np.stack([np.roll(turns, k) for k in range(BEND)])
    bend = (np.abs(last) > 0.2 * TURN).all(0) & (np.abs(np.sign(last).sum(0)) == BEND)
    # Backwards from each, in place and in this order: a mark that went round the beginning is met again at the end.
    for i in range(len(bend)):
        if bend[i]:
            bend[[i - k for k in range(BEND)]] = True
    return np.where(bend, -np.sign(turns), 0).astype(np.int8)


class _Checkpoint(NamedTuple):
    angle: float
    x: float
    y: float


class _Section(NamedTuple):
    polar: float
    angle: float
    x: float
    y: float


def _checkpoints(random: np.random.Generator) -> list[_Checkpoint]:
    """Where the road wants to pass, once around the middle of the field."""
    found = []
    for c in range(CHECKPOINTS):
        noise, radius = random.uniform(0, 2 * math.pi / CHECKPOINTS), random.uniform(RADIUS / 3, RADIUS)
        angle = 2 * math.pi * c / CHECKPOINTS
        if c in (0, CHECKPOINTS - 1):
            radius = 1.5 * RADIUS
        else:
            angle += noise
        found.append(_Checkpoint(angle, radius * math.cos(angle), radius * math.sin(angle)))
    return found


def _walk(checkpoints: list[_Checkpoint]) -> list[_Section]:
    """Steps of equal length towards one checkpoint after the other, for some laps."""
    x, y, beta = 1.5 * RADIUS, 0.0, 0.0
    target, laps, below = 0, 0, False
    sections: list[_Section] = []
    while laps <= LAPS and len(sections) < MOST_STEPS:
        alpha = math.atan2(y, x)
        if below and alpha > 0:
            laps, below = laps + 1, False
        if alpha < 0:
            below, alpha = True, alpha + 2 * math.pi
        alpha, target = _next_checkpoint(checkpoints, alpha, target)
        goal = checkpoints[target % CHECKPOINTS]
        along_x, along_y = math.cos(beta), math.sin(beta)
        aside = along_x * (goal.x - x) + along_y * (goal.y - y)
        while beta - alpha > 1.5 * math.pi:
            beta -= 2 * math.pi
        while beta - alpha < -1.5 * math.pi:
            beta += 2 * math.pi
        before = beta
        aside *= 6.0
        turn = min(TURN, abs(0.001 * aside))
        beta += -turn if aside > 0.3 else turn if aside < -0.3 else 0.0
        # In the direction before the turn.
        x, y = x - along_y * STEP, y + along_x * STEP
        sections.append(_Section(alpha, before * 0.5 + beta * 0.5, x, y))
    return sections


def _next_checkpoint(checkpoints: list[_Checkpoint], alpha: float, target: int) -> tuple[float, int]:
    """The first checkpoint from `target` on that is not behind; a full turn goes off alpha at each way round."""
    while alpha > checkpoints[target % CHECKPOINTS].angle:
        target += 1
        if target % CHECKPOINTS == 0:
            alpha -= 2 * math.pi
    return alpha, target


def _closed_loop(sections: list[_Section]) -> NDArray[np.float64] | None:
    """[n, 3]: the last whole lap, angle and position; None if there is none whose ends meet."""
    starts = [
        i for i in range(1, len(sections)) if sections[i].polar > START and sections[i - 1].polar <= START
    ]  # fmt: skip
    if len(starts) < 2:
        return None
    lap = np.array([section[1:] for section in sections[starts[-2] : starts[-1] - 1]])
    across = np.array([math.cos(lap[0, 0]), math.sin(lap[0, 0])])
    # Not a projection, but it is what Gymnasium computes.
    gap = np.sqrt(np.sum(np.square(across * (lap[0, 1:] - lap[-1, 1:]))))
    return None if gap > STEP else lap


def _narrow(array: NDArray[np.float64]) -> NDArray[np.float32]:
    return array.astype(np.float32)


def nearest_sections(
    points: Float32[Array, "S 400 2"], count: Int32[Array, "S"], *, fast: bool = True
) -> Int16[Array, "S cells cells"]:
    """`Tracks.nearest`.

    Args:
      fast: in C, where that can be had: there it takes a twelfth of the time.
    """
    if fast and native.available():
        size = points.shape[0]
        shapes = {"points": (size, SECTIONS, 2), "count": (size,)}
        native.require("nearest", {"points": points, "count": count}, shapes, {"count": np.int32})
        result = jax.ShapeDtypeStruct((size, CELLS, CELLS), jnp.int16)
        return native.call("nearest", result, points, count, np.array([FIELD, CELL, REACH], np.float32))
    return jax.lax.map(lambda track: _nearest(*track), (points, count))


def _nearest(points: Float32[Array, "400 2"], count: Int32[Array, ""]) -> Int16[Array, "cells cells"]:
    """Of one track: every section offers itself to the cells around it, the nearest wins, of equal ones the first."""
    around = math.ceil(REACH / CELL)
    offsets = jnp.stack(jnp.meshgrid(*[jnp.arange(-around, around + 1, dtype=jnp.int32)] * 2), -1).reshape(-1, 2)
    cells = jnp.floor((points + FIELD) / CELL).astype(jnp.int32)[:, None] + offsets[None]
    away = (cells.astype(jnp.float32) + 0.5) * CELL - FIELD - points[:, None]
    squares = jnp.sum(jnp.square(away), -1)
    number = jnp.arange(SECTIONS, dtype=jnp.int32)
    # One number that is smaller for the nearer section: the distance in its upper bits, the section in the lower.
    offer = ((squares * 1024).astype(jnp.int32) << 9) | number[:, None]
    offer = jnp.where((squares < REACH**2) & (number < count)[:, None], offer, jnp.int32(2**31 - 1))
    best = jnp.full((CELLS, CELLS), 2**31 - 1, jnp.int32)
    best = best.at[cells[..., 1], cells[..., 0]].min(offer, mode="drop")
    return jnp.where(best == 2**31 - 1, NOWHERE, best & 511).astype(jnp.int16)
