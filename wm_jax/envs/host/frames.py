"""From a game's screen to the 64x64 picture that V sees: crop, then exact area average."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from wm_jax.process import cores

SIZE = 64

# Batches are spread over our threads below; OpenCV's own would only fight with them over such small pictures.
cv2.setNumThreads(0)
_CHUNK = 8


def shrink(screens: NDArray[np.uint8], crop: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    """Crop and resize screens uint8[B, H, W, 3] to frames uint8[B, 64, 64, 3].

    Args:
      screens: a batch of RGB screens; a transposed view of channel-first screens is fine.
      crop: top, bottom, left, right; rows top..bottom-1 and columns left..right-1 are kept (None: everything).
    """
    if crop is not None:
        top, bottom, left, right = crop
        screens = screens[:, top:bottom, left:right]
    if screens.shape[1:3] == (SIZE, SIZE):
        return np.ascontiguousarray(screens)
    frames = np.empty((len(screens), SIZE, SIZE, 3), np.uint8)
    if len(screens) <= _CHUNK or cores() == 1:
        _resize(screens, frames)
        return frames
    parts = [slice(start, start + _CHUNK) for start in range(0, len(screens), _CHUNK)]
    for done in [_threads().submit(_resize, screens[part], frames[part]) for part in parts]:
        done.result()
    return frames


def _resize(screens: NDArray[np.uint8], frames: NDArray[np.uint8]) -> None:
    for screen, frame in zip(screens, frames, strict=True):
        if screen.strides[-1] != 1:
            screen = cv2.merge([screen[..., channel] for channel in range(3)])
        cv2.resize(screen, (SIZE, SIZE), dst=frame, interpolation=cv2.INTER_AREA)


@cache
def _threads() -> ThreadPoolExecutor:
    """OpenCV leaves Python's lock while it works, so threads do help: one could not keep up with 16 cores of games."""
    return ThreadPoolExecutor(min(8, cores()), thread_name_prefix="shrink")
