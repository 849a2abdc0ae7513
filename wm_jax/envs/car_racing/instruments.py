"""The bar of instruments below Gymnasium's CarRacing picture: speed, the wheels' spins, steering and turning.

Upright and lying rectangles in a black bar, which Gymnasium paints into its window and scales down with the rest. Its
score in figures, at the left end, is left out: it shows the rounding errors of a sum in float64 in up to 18 digits.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from wm_jax.envs.car_racing.drawing import LOST_LEVELS
from wm_jax.envs.car_racing.raster import OBSERVATION, ROWS_SEEN, WINDOW
from wm_jax.envs.car_racing.state import CarState

_UNIT_X, _UNIT_Y = WINDOW[0] / 40, WINDOW[1] / 40
"""In window pixels; `CarRacing._render_indicators` counts places and values in these."""
_LEAST = 1e-4
"""Smaller values are not painted."""


class _Instrument(NamedTuple):
    """place: column where it stands or begins, in units; scale: units for each unit of the value; its colour."""

    place: int
    scale: float
    colour: tuple[float, float, float]


_SPEED = _Instrument(5, 0.02, (255.0, 255.0, 255.0))
_SPINS = tuple(_Instrument(7 + i, 0.01, (0.0, 0.0, 255.0) if i < 2 else (51.0, 0.0, 255.0)) for i in range(4))
_STEERING = _Instrument(20, -10.0, (0.0, 255.0, 0.0))
_TURNING = _Instrument(30, -0.8, (255.0, 0.0, 0.0))


def bar(car: CarState) -> UInt8[Array, "12 96 3"]:
    """Rows 84..95 of Gymnasium's observation."""
    speed = jnp.sqrt(jnp.sum(jnp.square(car.velocity)))
    levels = _upright(_SPEED, speed)
    for instrument, spin in zip(_SPINS, car.spins, strict=True):
        levels += _upright(instrument, spin)
    levels += _lying(_STEERING, car.joint_angles[0]) + _lying(_TURNING, car.rate)
    return jnp.round(jnp.maximum(levels - LOST_LEVELS, 0.0)).astype(jnp.uint8)


def _upright(instrument: _Instrument, value: Array) -> Float32[Array, "12 96 3"]:
    """A column on the second lowest line of the bar."""
    foot = WINDOW[1] - _UNIT_Y
    left, right = instrument.place * _UNIT_X, (instrument.place + 1) * _UNIT_X
    return _painted(instrument, value, (left, right), (foot - _UNIT_Y * instrument.scale * value, foot))


def _lying(instrument: _Instrument, value: Array) -> Float32[Array, "12 96 3"]:
    """A beam to the right, or for negative values to the left."""
    begin = instrument.place * _UNIT_X
    rows = WINDOW[1] - 4 * _UNIT_Y, WINDOW[1] - 2 * _UNIT_Y
    return _painted(instrument, value, (begin, begin + _UNIT_X * instrument.scale * value), rows)


def _painted(instrument: _Instrument, value: Array, columns: tuple, rows: tuple) -> Float32[Array, "12 96 3"]:
    """The levels of a rectangle that Gymnasium paints between two columns and two rows of the window."""
    across = _shares(columns, np.arange(OBSERVATION) * WINDOW[0] / OBSERVATION, WINDOW[0] / OBSERVATION)
    down = _shares(rows, np.arange(ROWS_SEEN, OBSERVATION) * WINDOW[1] / OBSERVATION, WINDOW[1] / OBSERVATION)
    covered = jnp.where(jnp.abs(value) > _LEAST, down[:, None] * across[None], 0.0)
    return covered[..., None] * jnp.array(instrument.colour, jnp.float32)[None, None]


def _shares(ends: tuple, begins: np.ndarray, size: float) -> Float32[Array, "n"]:
    """What of each pixel, of those that begin there, lies between the ends; both ends' window pixels are painted."""
    first, last = (jnp.trunc(jnp.asarray(each, jnp.float32)) for each in ends)
    low, high = jnp.minimum(first, last), jnp.maximum(first, last) + 1.0
    pixels = jnp.asarray(begins, jnp.float32)
    return jnp.clip(jnp.minimum(high, pixels + size) - jnp.maximum(low, pixels), 0.0) / size
