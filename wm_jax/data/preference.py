"""Which training frames are drawn more often than others because of what they show."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from wm_jax.data.neighbours import MIDDLE, Neighbours
from wm_jax.models.preprocess import to_float
from wm_jax.utils.moving_pixels import median_of_five, moves
from wm_jax.utils.rare_pixels import Palette

MOST = 8
"""How often a frame is drawn in an epoch at most; each is drawn at least once."""
CHUNK = 500
"""Frames whose pixels are counted together."""

Read = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def preferred(
    read: Read, neighbours: Neighbours, count: int, prefer: Literal["moving", "rare"], palette: Palette
) -> NDArray[np.int64]:
    """The frames of an epoch: all of them, some repeated.

    A frame is repeated in proportion to its number of interesting pixels: k times if it has k times the mean, rounded
    and clipped to [1, MOST].

    Args:
      read: indices int[B] to frames uint8 [B, 64, 64, 3].
      neighbours: says which frames lie around each, for its background.
      count: frames in all.
      prefer: which pixels are interesting: those that move, or those of a rare colour.
      palette: the game's colours, which say what is rare.

    Returns:
      int64[N] indices, N >= count, in increasing order.
    """
    interesting = np.zeros(count)
    for first in range(0, count, CHUNK):
        places = np.arange(first, min(first + CHUNK, count))
        if prefer == "rare":
            interesting[places] = palette.rare(read(places)).sum(axis=(1, 2))
            continue
        around = neighbours.around(places)
        distinct, where = np.unique(around, return_inverse=True)
        frames = np.zeros((CHUNK, *around.shape[1:], *read(distinct[:1]).shape[1:]), np.uint8)
        frames[: len(places)] = read(distinct)[where.reshape(around.shape)]
        interesting[places] = np.asarray(_moving(frames))[: len(places)]
    mean = interesting.mean()
    times = np.clip(np.round(interesting / mean), 1, MOST) if mean > 0 else np.ones(count)
    return np.repeat(np.arange(count), times.astype(np.int64))


@jax.jit
def _moving(around: jax.Array) -> jax.Array:
    """How many pixels move in each frame, the middle one of uint8 [B, 5, 64, 64, 3]: int[B]."""
    return jnp.sum(moves(to_float(around[:, MIDDLE]) - to_float(median_of_five(around))), axis=(1, 2))
