"""Which frames lie around a frame in its own episode: their median is its background."""

import numpy as np
from numpy.typing import NDArray

OFFSETS = (-24, -12, 0, 12, 24)
"""Steps to the frames around, in order. Five are cheap (`utils.moving_pixels.median_of_five`), and an object that stays
at a place in fewer than half of them is not part of the background."""
MIDDLE = OFFSETS.index(0)
"""The index of the frame itself."""


class Neighbours:
    """The frames around each frame of several rows, such as recorded episodes, that are stored one after the other.

    Args:
      lengths: int[R], frames of each row.
    """

    def __init__(self, lengths: NDArray[np.int64]):
        ends = np.cumsum(lengths)
        self._first = np.repeat(ends - lengths, lengths)
        self._last = np.repeat(ends - 1, lengths)

    def around(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The indices int64[..., 5] of the frames around those with indices int[...].

        Beyond its ends, a row goes on with its first or its last frame.
        """
        places = frames[..., None] + np.array(OFFSETS)
        return np.clip(places, self._first[frames][..., None], self._last[frames][..., None])
