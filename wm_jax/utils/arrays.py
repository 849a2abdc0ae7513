"""Choosing and padding the rows of arrays, and taking them in batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def choose_rows(which: jax.Array, these: Any, others: Any) -> Any:
    """Pytrees of arrays [B, ...]: the rows of `these` where `which` (bool[B]) is true, else those of `others`."""

    def choose(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *[1] * (other.ndim - 1)), one, other)

    return jax.tree.map(choose, these, others)


def padded(rows: np.ndarray, size: int, filling: int = 0) -> np.ndarray:
    """Rows [B, ...] filled up to [size, ...]."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.full((size - len(rows), *rows.shape[1:]), filling, rows.dtype)])


def in_batches(function: Callable[[np.ndarray, int], Any], rows: np.ndarray, size: int) -> Any:
    """A function of rows [N, ...], on batches of one size: what it is compiled for is compiled once.

    Args:
      function: of a batch [size, ...], and of the place of its first row; returns a pytree of arrays [size, ...].
      rows: at least one. The last one fills up the last batch.

    Returns:
      a pytree of arrays [N, ...] on the host.
    """
    found = []
    for first in range(0, len(rows), size):
        piece = rows[first : first + size]
        count = len(piece)
        filled = np.concatenate([piece, np.repeat(piece[-1:], size - count, axis=0)]) if count < size else piece
        found.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], function(filled, first)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def padded_size(count: int) -> int:
    """The next of 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128 ..."""
    size = 1
    while size < count:
        size *= 2
    three_quarters = size * 3 // 4
    return three_quarters if size > 16 and count <= three_quarters else size


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most so many of the indices 0 .. count - 1, evenly spaced: int64, increasing."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
