"""Tracks without end: drawn and laid out on the device, by the rules of Gymnasium's, in float32.

They are tracks of the same kind as `track.bank`'s, but no seed of Gymnasium's makes them. For training on ever new
tracks where making them on the host would be the slowest part.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int8, Int32, Key

from wm_jax.envs.car_racing.road import SECTIONS
from wm_jax.envs.car_racing.track import (
    BEND,
    CHECKPOINTS,
    GROUND,
    LAPS,
    MOST_STEPS,
    PATCHES,
    RADIUS,
    ROAD,
    START,
    STEP,
    TURN,
    Tracks,
    prepare,
)
from wm_jax.utils.arrays import choose_rows

_FULL_TURN = 2 * math.pi


class Layout(NamedTuple):
    """The sections of a track, or of S tracks."""

    count: Int32[Array, "*S"]
    """How many; 0 if no closed track came about."""
    points: Float32[Array, "*S 400 2"]
    """As in `Tracks`."""
    angles: Float32[Array, "*S 400"]
    """As in `Tracks`."""


@partial(jax.jit, static_argnums=1)
def draw_tracks(key: Key[Array, ""], count: int) -> Tracks:
    """A bank of so many new tracks."""
    layouts = _draw_layouts(key, count)
    curbs = jax.vmap(_curbs)(layouts.angles, layouts.count)
    colours = jnp.tile(jnp.array([[ROAD, GROUND, PATCHES]], jnp.float32), (count, 1, 1))
    return prepare(layouts.count, layouts.points, layouts.angles, curbs, colours)


def _draw_layouts(key: Array, count: int) -> Layout:
    """Attempts for all tracks at once, until each has had one that closes (1 in 20 doesn't)."""

    def attempt(state: tuple[Array, Layout]) -> tuple[Array, Layout]:
        key, before = state
        key, own = jax.random.split(key)
        drawn = jax.vmap(lambda key: lay_out(draw_checkpoints(key)))(jax.random.split(own, count))
        return key, choose_rows(before.count > 0, before, drawn)

    zeros = jnp.zeros((count, SECTIONS), jnp.float32)
    none = Layout(jnp.zeros(count, jnp.int32), jnp.zeros((count, SECTIONS, 2), jnp.float32), zeros)
    return lax.while_loop(lambda state: jnp.any(state[1].count == 0), attempt, (key, none))[1]


def draw_checkpoints(key: Key[Array, ""]) -> Float32[Array, "12 2"]:
    """Polar angles and radii of the places that a track wants to pass."""
    noise_key, radius_key = jax.random.split(key)
    first, last = jnp.arange(CHECKPOINTS) == 0, jnp.arange(CHECKPOINTS) == CHECKPOINTS - 1
    noise = jax.random.uniform(noise_key, (CHECKPOINTS,), jnp.float32, maxval=_FULL_TURN / CHECKPOINTS)
    radii = jax.random.uniform(radius_key, (CHECKPOINTS,), jnp.float32, minval=RADIUS / 3, maxval=RADIUS)
    angles = _FULL_TURN * jnp.arange(CHECKPOINTS, dtype=jnp.float32) / CHECKPOINTS
    angles = angles + jnp.where(first | last, 0.0, noise)
    return jnp.stack([angles, jnp.where(first | last, 1.5 * RADIUS, radii)], -1)


class _Walker(NamedTuple):
    x: Array
    y: Array
    beta: Array
    target: Array
    laps: Array
    below: Array


def lay_out(checkpoints: Float32[Array, "12 2"]) -> Layout:
    """The track past these checkpoints (polar angle and radius each), as `track.generate` walks it."""
    goals = checkpoints[:, 1:] * jnp.stack([jnp.cos(checkpoints[:, 0]), jnp.sin(checkpoints[:, 0])], -1)

    def step(walker: _Walker, _: None) -> tuple[_Walker, tuple[Array, ...]]:
        alpha = jnp.arctan2(walker.y, walker.x)
        crossed = walker.below & (alpha > 0)
        laps = walker.laps + crossed.astype(jnp.int32)
        below = (walker.below & ~crossed) | (alpha < 0)
        alpha, target = _next_checkpoint(
            checkpoints[:, 0], jnp.where(alpha < 0, alpha + _FULL_TURN, alpha), walker.target
        )
        along = jnp.stack([jnp.cos(walker.beta), jnp.sin(walker.beta)])
        aside = 6.0 * jnp.sum(along * (goals[target] - jnp.stack([walker.x, walker.y])))
        beta = alpha + jnp.mod(walker.beta - alpha + 1.5 * math.pi, _FULL_TURN) - 1.5 * math.pi
        beta = jnp.where(jnp.abs(walker.beta - alpha) > 1.5 * math.pi, beta, walker.beta)
        turn = jnp.minimum(TURN, jnp.abs(0.001 * aside))
        after = beta - jnp.where(jnp.abs(aside) > 0.3, jnp.sign(aside) * turn, 0.0)
        x, y = walker.x - along[1] * STEP, walker.y + along[0] * STEP
        section = alpha, 0.5 * (beta + after), x, y, laps <= LAPS
        return _Walker(x, y, after, target, laps, below), section

    x, y, beta = map(jnp.float32, (1.5 * RADIUS, 0, 0))
    start = _Walker(x, y, beta, jnp.int32(0), jnp.int32(0), jnp.bool_(False))
    polar, angles, x, y, walking = lax.scan(step, start, None, MOST_STEPS)[1]
    # The step that completes the last lap is still part of the walk.
    walking = jnp.concatenate([jnp.ones(1, bool), walking[:-1]])
    return _last_lap(polar, angles, jnp.stack([x, y], -1), walking)


def _next_checkpoint(angles: Array, alpha: Array, target: Array) -> tuple[Array, Array]:
    """The first checkpoint from `target` on that is not behind; a full turn goes off alpha at each way round."""

    def behind(state: tuple[Array, Array]) -> Array:
        return state[0] > angles[state[1]]

    def advance(state: tuple[Array, Array]) -> tuple[Array, Array]:
        alpha, target = state[0], (state[1] + 1) % CHECKPOINTS
        return jnp.where(target == 0, alpha - _FULL_TURN, alpha), target

    return lax.while_loop(behind, advance, (alpha, target))


def _last_lap(polar: Array, angles: Array, points: Array, walking: Bool[Array, "steps"]) -> Layout:
    """The sections between the last two passages of the start, if their ends meet."""
    passing = jnp.concatenate([jnp.zeros(1, bool), (polar[1:] > START) & (polar[:-1] <= START)]) & walking
    places = jnp.where(passing, jnp.arange(MOST_STEPS, dtype=jnp.int32), -1)
    end = jnp.max(places)
    begin = jnp.max(jnp.where(places < end, places, -1))
    count = end - 1 - begin
    here = jnp.arange(SECTIONS, dtype=jnp.int32)
    rows, inside = jnp.minimum(begin + here, MOST_STEPS - 1), here < count
    lap_angles, lap_points = angles[rows], points[rows]
    across = jnp.stack([jnp.cos(lap_angles[0]), jnp.sin(lap_angles[0])])
    gap = jnp.sqrt(jnp.sum(jnp.square(across * (lap_points[0] - points[end - 2]))))
    closed = (begin >= 0) & (count > 0) & (count <= SECTIONS) & (gap <= STEP)
    return Layout(
        jnp.where(closed, count, 0),
        jnp.where(inside[:, None], lap_points, 1e4),
        jnp.where(inside, lap_angles, 0.0),
    )


def _curbs(angles: Float32[Array, "400"], count: Int32[Array, ""]) -> Int8[Array, "400"]:
    """As `track.find_curbs`, but for tiles that its marks reach by going round the beginning a second time."""
    here = jnp.arange(SECTIONS, dtype=jnp.int32)
    turns = angles - angles[(here - 1) % count]
    last = jnp.stack([turns[(here - k) % count] for k in range(BEND)])
    bend = jnp.all(jnp.abs(last) > 0.2 * TURN, 0) & (jnp.abs(jnp.sum(jnp.sign(last), 0)) == BEND)
    marked = jnp.any(jnp.stack([bend[(here + k) % count] for k in range(BEND)]), 0)
    return jnp.where(marked & (here < count), -jnp.sign(turns), 0.0).astype(jnp.int8)
