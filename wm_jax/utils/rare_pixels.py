"""Which of a game's pixels have a rare colour: players, balls and fruit are small and have colours of their own."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

LEVELS = 16
"""Colours are quantised to this many levels per channel."""
RARE = 0.02
"""The rarest colours are those that together cover at most this share of all pixels."""


class Palette(NamedTuple):
    """A game's colours, [LEVELS, LEVELS, LEVELS] in red, green and blue.

    share: of all pixels that have each colour.
    is_rare: whether a colour is among the rarest, which together cover at most `RARE` of all pixels. Colours that were
      never seen are.
    """

    share: Float[np.ndarray, "levels levels levels"]
    is_rare: Bool[np.ndarray, "levels levels levels"]

    @staticmethod
    def of(frames: UInt8[np.ndarray, "F side side 3"]) -> "Palette":
        """The colours of some frames, which stand for all frames of the game."""
        places = frames.astype(np.int64) * LEVELS // 256
        codes = (places[..., 0] * LEVELS + places[..., 1]) * LEVELS + places[..., 2]
        share = np.bincount(codes.ravel(), minlength=LEVELS**3) / codes.size
        order = np.argsort(share, kind="stable")
        is_rare = np.empty(LEVELS**3, bool)
        is_rare[order] = np.cumsum(share[order]) <= RARE
        return Palette(share.reshape([LEVELS] * 3), is_rare.reshape([LEVELS] * 3))

    def rare(self, frames: Any) -> Any:
        """Which pixels have a rare colour, bool[..., side, side].

        Args:
          frames: uint8[..., side, side, 3], of NumPy or JAX.
        """
        places = frames // np.uint8(256 // LEVELS)
        table = self.is_rare if isinstance(frames, np.ndarray) else jnp.asarray(self.is_rare)
        return table[places[..., 0], places[..., 1], places[..., 2]]
