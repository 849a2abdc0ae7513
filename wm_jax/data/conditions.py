"""What is known of each frame beside it, for an auto-encoder that is trained with it (`Batch.condition`)."""

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
      arrays: pytree of arrays [F, ...] that they are made from: small, for all frames lie in memory.
      read: makes them of rows of these, float32[B, K]; inside jit.
    """

    arrays: Any
    read: Callable[[Any], jax.Array]

    def at(self, places: Any) -> Any:
        """The rows of some frames."""
        return rows(self.arrays, places)


def rows(arrays: Any, places: Any) -> Any:
    """Those of a pytree of arrays that lie at these places."""
    return jax.tree.map(lambda array: array[places], arrays)


def last_actions(store: ReplayStore, split: Split, space: ActionSpace) -> Conditions:
    """The action that led to each frame of a split, as M sees it; zeros for the first frame of what was recorded."""
    shape, dtype = store.action
    count = store.count(split).frames
    actions, known = np.zeros((count, *shape), dtype), np.zeros(count, bool)
    first = 0
    for i, record in enumerate(store.records):
        if record.split == split:
            led = slice(first + 1, first + record.frames)  # action t leads to frame t + 1
            actions[led], known[led] = store.steps(i).actions, True
            first += record.frames

    def read(found: tuple[jax.Array, jax.Array]) -> jax.Array:
        actions, known = found
        return space.encode(actions) * known[:, None].astype(np.float32)

    return Conditions((actions, known), read)
