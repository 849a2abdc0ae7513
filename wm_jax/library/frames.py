"""Screens of any size as the frames that V sees."""

import numpy as np
from jaxtyping import UInt8

from wm_jax.envs.host.resize import shrink


def to_frames(screens: np.ndarray, crop: tuple[int, int, int, int] | None = None) -> UInt8[np.ndarray, "B side side 3"]:
    """Frames uint8 [B, 64, 64, 3] of screens: cut out, then shrunk by an exact average over areas.

    Args:
      screens: uint8 [B, H, W, 3], or a single one [H, W, 3]; grey ones [B, H, W] become coloured.
      crop: top, bottom, left, right: the rows and columns that are kept (None: all). A game's own is `game.crop`.

    Raises:
      ValueError: they are no such screens, or nothing of them is kept.
    """
    screens = np.asarray(screens)
    if screens.dtype != np.uint8:
        how = "(255 * x).round().astype(np.uint8)"
        raise ValueError(f"screens: {screens.dtype}, expected uint8; numbers in [0, 1] become it by {how}")
    if screens.ndim == 3 and screens.shape[-1] == 3:
        screens = screens[None]
    elif screens.ndim == 3:
        screens = np.repeat(screens[..., None], 3, axis=-1)
    return shrink(screens, crop)
