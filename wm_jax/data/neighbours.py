"""Which frames lie around a frame in its own episode: what moves differs from them."""

import numpy as np
from numpy.typing import NDArray

OFFSETS = (-24, -12, 0, 12, 24)
"""Steps, in order, to the frames whose median is a frame's background (`models.vae.losses.background`). Five are cheap,
and an object that is not for longer than half of them at one place is not in it."""
MIDDLE = OFFSETS.index(0)
"""The frame itself."""


class Neighbours:
    """The frames around each of some frames that lie end to end in rows.

    Args:
      lengths: int[R], frames of each row, such as a recorded episode.
    """

    def __init__(self, lengths: NDArray[np.int64]):
        ends = np.cumsum(lengths)
        self._first = np.repeat(ends - lengths, lengths)
        self._last = np.repeat(ends - 1, lengths)

    def around(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places int64[..., 5] of the frames around some places int[...]: within their row, its ends repeated."""
        places = frames[..., None] + np.array(OFFSETS)
        return np.clip(places, self._first[frames][..., None], self._last[frames][..., None])
