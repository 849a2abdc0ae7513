"""How the pixels of a picture lie in the window that Gymnasium's CarRacing-v3 paints, as plain numbers.

Gymnasium paints 1000 x 800 pixels and scales them down to 96 x 96 by averaging areas; the World Models see rows 0..83
of that, averaged again to 64 x 64. Both are weighted means over columns and rows apart, here composed into one.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Matrix = NDArray[np.float64]

WINDOW = (1000, 800)
"""Columns and rows that Gymnasium paints."""
MIDDLE = (500.0, 600.0)
"""Column and row of the window at which the car is."""
OBSERVATION = 96
FRAME = 64
ROWS_SEEN = 84
"""Of the observation: below lies the bar with the instruments (Ha & Schmidhuber 2018 cut it off)."""
_CAR = ((474, 526), (556, 640))
"""Columns and rows of the window that the car can cover, at its largest and with its wheels turned."""
_SAMPLES = (48, 44)
"""Columns and rows of samples over the car's part of the window; the former a multiple of 16, as C wants it."""


class Raster(NamedTuple):
    """How the W x H pixels of a picture lie in the window.

    columns, rows: float32 [W], [H], middles of the footprints, in window pixels.
    width, height: of a footprint, in window pixels.
    car: the part of the picture that the car can reach: its rows and columns.
    sample_columns, sample_rows: float32 [48], [44], where samples of that part are taken, in window pixels.
    sample: side of the square that a sample stands for, in window pixels.
    column_weights, row_weights: float32 [columns of the part, 48], [rows of the part, 44], of the samples in pixels.
    """

    columns: Vector
    rows: Vector
    width: float
    height: float
    car: tuple[slice, slice]
    sample_columns: Vector
    sample_rows: Vector
    sample: float
    column_weights: Vector
    row_weights: Vector


@cache
def raster(size: int) -> Raster:
    """Of the 96 x 84 upper part of the observation, or of the 64 x 64 frame that is made from it."""
    columns = _averages(WINDOW[0], OBSERVATION)
    rows = _averages(WINDOW[1], OBSERVATION)[:ROWS_SEEN]
    if size == FRAME:
        columns, rows = _averages(OBSERVATION, FRAME) @ columns, _averages(ROWS_SEEN, FRAME) @ rows
    (x, width), (y, height) = _moments(columns), _moments(rows)
    parts, places, weights = zip(*map(_car_part, (columns, rows), _CAR, _SAMPLES), strict=True)
    sample = float(np.sqrt(np.prod([np.ptp(each) / (len(each) - 1) for each in places])))
    return Raster(x, y, width, height, (parts[1], parts[0]), places[0], places[1], sample, weights[0], weights[1])


def _averages(many: int, few: int) -> Matrix:
    """[few, many]: weights that average areas; rows sum to 1."""
    ratio = many / few
    old, new = np.arange(many), np.arange(few)[:, None]
    overlap = np.minimum(old + 1, (new + 1) * ratio) - np.maximum(old, new * ratio)
    return np.clip(overlap, 0, None) / ratio


def _moments(weights: Matrix) -> tuple[Vector, float]:
    """The middles of some footprints [n, pixels], and the mean side of the boxes that vary as much.

    Averaging twice gives footprints of different shapes: their middles are not evenly spaced.
    """
    place = np.arange(weights.shape[1]) + 0.5
    middle = weights @ place
    return middle.astype(np.float32), float(np.mean(np.sqrt(12 * (weights @ place**2 - middle**2))))


def _car_part(weights: Matrix, reach: tuple[int, int], samples: int) -> tuple[slice, Vector, Vector]:
    """Along one axis: the pixels that see the car, where their samples are taken, and the weights of these."""
    seeing = np.flatnonzero(weights[:, slice(*reach)].sum(1))
    part = slice(int(seeing[0]), int(seeing[-1]) + 1)
    seen = np.flatnonzero(weights[part].sum(0))
    edges = np.linspace(seen[0], seen[-1] + 1, samples + 1)
    sums = np.concatenate([np.zeros((len(seeing), 1)), np.cumsum(weights[part], 1)], 1)
    between = np.stack([np.interp(edges, np.arange(sums.shape[1]), each) for each in sums])
    return part, ((edges[1:] + edges[:-1]) / 2).astype(np.float32), np.diff(between, axis=1).astype(np.float32)
