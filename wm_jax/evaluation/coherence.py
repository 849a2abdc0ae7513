"""For how many steps a dream can be taken for the game, by two measures that need nobody to look.

A prediction from recorded actions can be held against what really followed. A free dream cannot; but V knows frames:
it draws one of its own again almost as it is, unless that is like none that it was trained on. Both are measured on
decoded frames, since what z says beyond them is noise.
"""

import numpy as np
from jaxtyping import Float, UInt8

from wm_jax.evaluation.autoencoding import Network, decode, encode
from wm_jax.evaluation.vae_measures.pictures import squared_error

Frames = UInt8[np.ndarray, "T side side 3"]

OVER = 10
"""Steps in a row of which most count: a single strange frame is no end."""
USUAL = 0.99
"""What is no stranger than this share of real frames is taken for one."""


def strangeness(vae: Network, decoded: Frames) -> Float[np.ndarray, "T"]:
    """Squared error of V's reconstructions of frames that it has decoded, in levels in [0, 1]."""
    return squared_error(decoded, decode(vae, encode(vae, decoded)[1]))


def coherent_steps(strange: Float[np.ndarray, "T"], of_real_frames: Float[np.ndarray, "N"]) -> int:
    """Steps of a dream before its frames are stranger than those of the game.

    Args:
      strange: `strangeness` of its frames.
      of_real_frames: that of V's reconstructions of the game.
    """
    return _until(strange > np.quantile(of_real_frames, USUAL))


def faithful_steps(predicted: Frames, real: Frames, game: Frames) -> int:
    """Steps of a prediction before it is as far from what really happened as the game's mean frame is.

    Args:
      real: V's reconstructions of what really followed.
      game: those of the whole game.
    """
    mean = np.broadcast_to(game.mean(axis=0, dtype=np.float64) / 255, game.shape)
    return _until(squared_error(real, predicted) > squared_error(game, mean).mean())


def _until(broken: np.ndarray) -> int:
    """The first broken step of the first `OVER` of which most are."""
    over = min(OVER, len(broken))
    if not over:
        return 0
    most = np.convolve(broken, np.ones(over), "valid") > over / 2
    if not most.any():
        return len(broken)
    first = int(np.argmax(most))
    return first + int(np.argmax(broken[first:]))
