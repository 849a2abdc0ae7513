"""What is known of each frame beside its pixels, for auto-encoders that are trained with it (`Batch.condition`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from wm_jax.data.episodes import Split
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.spaces import ActionSpace


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of F frames.

    Attributes:
      arrays: pytree of arrays [F, ...] from which they are computed. All of it is kept in memory, so it must be small.
      read: computes the conditions float32[B, K] of B rows of these arrays; inside jit.
    """

    arrays: Any
    read: Callable[[Any], jax.Array]

    def at(self, places: Any) -> Any:
        """The rows of the arrays for the frames at these indices."""
        return rows(self.arrays, places)


def rows(arrays: Any, places: Any) -> Any:
    """The rows of a pytree of arrays at these indices."""
    return jax.tree.map(lambda array: array[places], arrays)


def last_actions(store: ReplayStore, split: Split, space: ActionSpace) -> Conditions:
    """The action before each frame of a split, as M sees it; zeros for the first frame of each record."""
    shape, dtype = store.action
    count = store.count(split).frames
    actions, known = np.zeros((count, *shape), dtype), np.zeros(count, bool)
    first = 0
    for i, record in enumerate(store.records):
        if record.split == split:
            after = slice(first + 1, first + record.frames)  # action t leads to frame t + 1
            actions[after], known[after] = store.steps(i).actions, True
            first += record.frames

    def read(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        actions, known = rows
        return space.encode(actions) * known[:, None].astype(np.float32)

    return Conditions((actions, known), read)
