"""How well V sees a game: the squared error says how near its pictures are, moving pixels whether the game is in them.

A few small things decide a game, and nearly all pixels belong to what stands still: a V that draws the background alone
can have a small error. So the pixels that differ from their own recent background are looked at apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REACH = 25
"""The background of a frame is the median of those at most so many steps before and after it."""
MOVED = 0.1
"""A pixel moves where some channel differs from its background by more than this, of 1."""

FAR_ERROR = 2.0
"""An error is worth a warning where it is this many times the one that it is held against."""
LITTLE_MOVING = 0.25
"""So is a share of what moves (`Moving.explained`) below this: near 0, V draws none of it."""


class Moving(NamedTuple):
    """The moving pixels of F frames; sums over them and their three channels, per frame.

    pixels: float64[F], how many they are.
    variance: float64[F], squared differences between the frame and its background.
    missed: float64[F], squared differences between these differences and those in the reconstruction, which are to
      the background of the reconstructions: what does not change there is not drawn, however its colour comes out.
    """

    pixels: NDArray[np.float64]
    variance: NDArray[np.float64]
    missed: NDArray[np.float64]

    @property
    def explained(self) -> float:
        """The share of what moves that the reconstructions reproduce: 1 where they change as the frames do, 0 where
        they do not change, less for anything worse. NaN where nothing moves.
        """
        variance = float(self.variance.sum())
        return 1.0 - float(self.missed.sum()) / variance if variance > 0 else float("nan")

    @staticmethod
    def concatenate(parts: "Sequence[Moving]") -> "Moving":
        """Those of several stretches of frames."""
        return Moving(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def moving(frames: NDArray[np.uint8], decoded: NDArray[np.uint8], places: NDArray[np.int64]) -> Moving:
    """The moving pixels of some of T consecutive frames.

    Args:
      frames: uint8[T, H, W, 3].
      decoded: their reconstructions, uint8[T, H, W, 3].
      places: int[F], which of them.
    """
    rows = []
    for place in places.tolist():
        real, drawn = (difference(each, place) for each in (frames, decoded))
        where = moves(real)
        rows.append((where.sum(), np.square(real[where]).sum(), np.square(real[where] - drawn[where]).sum()))
    return Moving(*np.array(rows, np.float64).reshape(-1, 3).T)


def background(frames: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
    """The median, over time, of the frames around one of consecutive frames uint8[T, H, W, 3]: uint8[H, W, 3]."""
    near = frames[max(place - REACH, 0) : place + REACH + 1].reshape(-1, frames[place].size)
    # Bit by bit, from the highest: the largest level that half of the frames reach. Five times as fast as sorting.
    half = len(near) - len(near) // 2
    median = np.zeros(near.shape[1], np.uint8)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        higher = median | np.uint8(bit)
        reached = (near >= higher).sum(0, dtype=np.uint8) >= half
        median = np.where(reached, higher, median)
    return median.reshape(frames.shape[1:])


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of `count` places, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def difference(frames: NDArray[np.uint8], place: int) -> NDArray[np.float32]:
    """Between a frame and its background, of levels in [0, 1]."""
    return (frames[place].astype(np.float32) - background(frames, place).astype(np.float32)) / np.float32(255)


def moves(difference: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pixels move, bool[H, W], by the difference of a frame from its background."""
    return np.any(np.abs(difference) > MOVED, axis=-1)
