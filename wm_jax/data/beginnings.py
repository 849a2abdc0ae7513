"""Where dreams may begin: at frames of the replays, with the steps before them."""

from collections.abc import Sequence

import jax
import numpy as np
from numpy.typing import NDArray

from wm_jax.data.sequences import FlatLatents
from wm_jax.models.dream import Beginnings
from wm_jax.utils.arrays import evenly_spaced
from wm_jax.utils.errors import UserError

MOST = 10_000
"""Beginnings, spread evenly over all that there are."""


def beginnings(latents: FlatLatents, begins: Sequence[int], warm_up: int, *, anywhere: bool) -> Beginnings:
    """Those of a split of the replays. None is an episode's last frame, after which nothing happens.

    Args:
      latents: of E episodes, or windows of episodes.
      begins: of each of them, the steps of the episode before its first frame.
      warm_up: W, frames before each beginning.
      anywhere: at all frames that have W others before them, instead of W steps after the episodes' first ones.

    Raises:
      UserError: there is none.
    """
    offsets = np.asarray(latents.offsets)
    places = [
        _within(first, end, begin, warm_up, anywhere)
        for first, end, begin in zip(offsets[:-1], offsets[1:], begins, strict=True)
    ]
    found = np.concatenate(places) if places else np.zeros(0, np.int64)
    if not len(found):
        remedy = "" if anywhere else ", or --dream.random_start"
        raise UserError(
            f"--dream.warm_up {warm_up}: no episode of the replays has so many frames at its beginning and one that "
            f"goes on; give fewer{remedy}"
        )
    chosen = found[evenly_spaced(len(found), MOST)]
    rows = chosen[:, None] + np.arange(-warm_up, 1)
    latent = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], latents.latent)
    return Beginnings(latent, np.asarray(latents.action)[rows[:, :-1]])


def _within(first: int, end: int, begin: int, warm_up: int, anywhere: bool) -> NDArray[np.int64]:
    """The places of one stretch [first, end) of frames."""
    if anywhere:
        return np.arange(first + warm_up, end - 1)
    is_there = begin == 0 and first + warm_up < end - 1
    return np.array([first + warm_up] if is_there else [], np.int64)
