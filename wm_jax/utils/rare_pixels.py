"""Which of a game's pixels have a rare colour: players, balls and fruit are small, and of colours of their own."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

LEVELS = 16
"""Of each channel: colours that share all three are one."""
RARE = 0.02
"""The rarest colours, which have so large a part of all pixels."""


class Palette(NamedTuple):
    """A game's colours, [LEVELS, LEVELS, LEVELS] in red, green and blue.

    share: what part of all pixels has each.
    is_rare: the rarest of those that together have no more than `RARE` of all pixels; also those never seen.
    """

    share: Float[np.ndarray, "levels levels levels"]
    is_rare: Bool[np.ndarray, "levels levels levels"]

    @staticmethod
    def of(frames: UInt8[np.ndarray, "F side side 3"]) -> "Palette":
        """The colours of some frames that stand for all."""
        places = frames.astype(np.int64) * LEVELS // 256
        codes = (places[..., 0] * LEVELS + places[..., 1]) * LEVELS + places[..., 2]
        share = np.bincount(codes.ravel(), minlength=LEVELS**3) / codes.size
        order = np.argsort(share, kind="stable")
        is_rare = np.empty(LEVELS**3, bool)
        is_rare[order] = np.cumsum(share[order]) <= RARE
        return Palette(share.reshape([LEVELS] * 3), is_rare.reshape([LEVELS] * 3))

    def rare(self, frames: Any) -> Any:
        """Which have a rare colour: bool [..., side, side] of frames uint8 [..., side, side, 3], NumPy's or JAX's."""
        places = frames // np.uint8(256 // LEVELS)
        table = self.is_rare if isinstance(frames, np.ndarray) else jnp.asarray(self.is_rare)
        return table[places[..., 0], places[..., 1], places[..., 2]]
