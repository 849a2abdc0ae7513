"""Which training frames are drawn more often than others, for what they show."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from wm_jax.data.neighbours import MIDDLE, Neighbours
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae.examples import background
from wm_jax.utils.moving_pixels import MOVED
from wm_jax.utils.rare_pixels import Palette

MOST = 8
"""Times that a frame is drawn in an epoch, at most; each is drawn once at least."""
CHUNK = 500
"""Frames that are looked at together."""

Read = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def preferred(
    read: Read, neighbours: Neighbours, count: int, prefer: Literal["moving", "rare"], palette: Palette
) -> NDArray[np.int64]:
    """What an epoch consists of: the places of all frames, some of them several times.

    A frame comes as often as it has so many times the mean number of interesting pixels.

    Args:
      read: places int[B] to frames uint8 [B, 64, 64, 3].
      count: frames in all.
      prefer: what pixels are interesting: those that differ from their background, or those of a rare colour.
    """
    interest = np.zeros(count)
    for first in range(0, count, CHUNK):
        places = np.arange(first, min(first + CHUNK, count))
        if prefer == "rare":
            interest[places] = palette.rare(read(places)).sum(axis=(1, 2))
            continue
        around = neighbours.around(places)
        different, where = np.unique(around, return_inverse=True)
        frames = np.zeros((CHUNK, *around.shape[1:], *read(different[:1]).shape[1:]), np.uint8)
        frames[: len(places)] = read(different)[where.reshape(around.shape)]
        interest[places] = np.asarray(_moving(frames))[: len(places)]
    mean = interest.mean()
    times = np.clip(np.round(interest / mean), 1, MOST) if mean > 0 else np.ones(count)
    return np.repeat(np.arange(count), times.astype(np.int64))


@jax.jit
def _moving(around: jax.Array) -> jax.Array:
    """How many pixels of each frame, the middle one of [B, 5, 64, 64, 3], differ from their background."""
    apart = jnp.abs(to_float(around[:, MIDDLE]) - to_float(background(around)))
    return jnp.sum(jnp.max(apart, axis=-1) > MOVED, axis=(1, 2))
