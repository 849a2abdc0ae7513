"""From a game's screen to the 64x64 picture that V sees: crop, then exact area average."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_jax.utils.errors import UserError
from wm_jax.utils.process import cores
from wm_jax.utils.sizes import FRAME, SIDE

_CHUNK = 8


def shrink(screens: NDArray[np.uint8], crop: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    """Crop and resize screens uint8[B, H, W, 3] to frames uint8[B, 64, 64, 3].

    Args:
      screens: a batch of RGB screens; a transposed view of channel-first screens is fine.
      crop: top, bottom, left, right; rows top..bottom-1 and columns left..right-1 are kept (None: everything).

    Raises:
      ValueError: these are no such screens, or nothing of them is kept.
    """
    if screens.dtype != np.uint8 or screens.ndim != 4 or screens.shape[-1] != 3:
        raise ValueError(f"screens are {screens.dtype} {list(screens.shape)}, expected uint8 [B, H, W, 3]")
    if crop is not None:
        top, bottom, left, right = crop
        screens = screens[:, top:bottom, left:right]
    if 0 in screens.shape[1:3]:
        raise ValueError(f"crop {crop} leaves nothing of the screens: {list(screens.shape)}")
    if screens.shape[1:3] == (SIDE, SIDE):
        return np.ascontiguousarray(screens)
    frames = np.empty((len(screens), *FRAME), np.uint8)
    if len(screens) <= _CHUNK or cores() == 1:
        _resize(screens, frames)
        return frames
    parts = [slice(start, start + _CHUNK) for start in range(0, len(screens), _CHUNK)]
    for done in [_threads().submit(_resize, screens[part], frames[part]) for part in parts]:
        done.result()
    return frames


def require(pictures: NDArray[Any], shape: tuple[int, ...], who: str) -> None:
    """See that pictures are what was declared.

    Args:
      shape: the declared one; the type is uint8.
      who: returned them.

    Raises:
      UserError: they are not.
    """
    if pictures.dtype != np.uint8 or pictures.shape != shape:
        raise UserError(
            f"{who} declared pictures of uint8 {list(shape)}, but returned {pictures.dtype} {list(pictures.shape)}; "
            "mend it, or install the versions of constraints.txt"
        )


def _resize(screens: NDArray[np.uint8], frames: NDArray[np.uint8]) -> None:
    cv2 = _opencv()
    for screen, frame in zip(screens, frames, strict=True):
        if screen.strides[-1] != 1:
            screen = cv2.merge([screen[..., channel] for channel in range(3)])
        # OpenCV writes into its `dst` only where that suits it, and says nothing where it does not.
        frame[...] = cv2.resize(screen, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


@cache
def _opencv() -> Any:
    """Imported late: games on the device do without it."""
    import cv2

    # Batches are spread over our threads; OpenCV's own would only fight with them over such small pictures.
    cv2.setNumThreads(0)
    return cv2


@cache
def _threads() -> ThreadPoolExecutor:
    """OpenCV leaves Python's lock while it works, so threads do help: one could not keep up with 16 cores of games."""
    return ThreadPoolExecutor(min(8, cores()), thread_name_prefix="shrink")
