"""Which pixels move, and how much of their change a reconstruction reproduces.

A few small objects decide a game, while nearly all pixels belong to what stands still: the reconstructions of a V that
knows only the background can have a small squared error. So the pixels that differ from their own recent background are
measured apart.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

REACH = 25
"""The background of a frame is the median of the frames at most so many steps before and after it."""
MOVED = 0.1
"""A pixel moves where some channel, in [0, 1], differs from its background by more than this."""


class Moving(NamedTuple):
    """Figures of the moving pixels of F frames; sums over these pixels and their three channels for each frame.

    pixels: float64[F], the number of moving pixels.
    variance: float64[F], squared differences of the frame from its background.
    missed: float64[F], squared errors of the reconstruction's difference from its own background, the median of
      reconstructions: what does not change there is not reproduced, whatever its colour is.
    """

    pixels: NDArray[np.float64]
    variance: NDArray[np.float64]
    missed: NDArray[np.float64]

    @property
    def explained(self) -> float:
        """The share of the moving pixels' variance that reconstructions reproduce: 1 if they change as the frames do,
        0 if they do not change, negative for anything worse. NaN where nothing moves.
        """
        variance = float(self.variance.sum())
        return 1.0 - float(self.missed.sum()) / variance if variance > 0 else float("nan")

    @staticmethod
    def concatenate(parts: "Sequence[Moving]") -> "Moving":
        """The figures of several stretches of frames, one after the other."""
        return Moving(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def moving(frames: NDArray[np.uint8], decoded: NDArray[np.uint8], places: NDArray[np.int64]) -> Moving:
    """Figures of the moving pixels of some of T consecutive frames.

    Args:
      frames: uint8[T, H, W, 3].
      decoded: their reconstructions, uint8[T, H, W, 3].
      places: int[F], the indices of the frames to look at.
    """
    rows = []
    for place in places.tolist():
        real, drawn = (difference(each, place) for each in (frames, decoded))
        where = moves(real)
        rows.append((where.sum(), np.square(real[where]).sum(), np.square(real[where] - drawn[where]).sum()))
    return Moving(*np.array(rows, np.float64).reshape(-1, 3).T)


def background(frames: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
    """The background uint8[H, W, 3] of one of consecutive frames uint8[T, H, W, 3]: the median of those around it."""
    near = frames[max(place - REACH, 0) : place + REACH + 1].reshape(-1, frames[place].size)
    # Bit by bit from the highest: the largest value that half of the frames reach. Five times as fast as sorting.
    half = len(near) - len(near) // 2
    median = np.zeros(near.shape[1], np.uint8)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        higher = median | np.uint8(bit)
        reached = (near >= higher).sum(0, dtype=np.uint8) >= half
        median = np.where(reached, higher, median)
    return median.reshape(frames.shape[1:])


def median_of_five(around: jax.Array) -> jax.Array:
    """The median of five frames each, uint8[B, 5, H, W, 3] to uint8[B, H, W, 3], inside jit.

    It takes minima and maxima alone, since sorting would take far longer.
    """
    a, b, c, d, e = (around[:, i] for i in range(5))
    # Neither the lowest nor the highest of four is the median of five; it is that of the other two and the fifth.
    low = jnp.maximum(jnp.minimum(a, b), jnp.minimum(c, d))
    high = jnp.minimum(jnp.maximum(a, b), jnp.maximum(c, d))
    return jnp.maximum(jnp.minimum(low, high), jnp.minimum(jnp.maximum(low, high), e))


def difference(frames: NDArray[np.uint8], place: int) -> NDArray[np.float32]:
    """The difference of one of consecutive frames from its background, float32[H, W, 3], of colours in [0, 1]."""
    return (frames[place].astype(np.float32) - background(frames, place).astype(np.float32)) / np.float32(255)


def moves(difference: Any) -> Any:
    """Which pixels move, bool[..., H, W], of NumPy or of JAX.

    Args:
      difference: of frames from their backgrounds, [..., H, W, 3], of colours in [0, 1].
    """
    return (abs(difference) > MOVED).any(axis=-1)
