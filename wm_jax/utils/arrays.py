"""Choosing and padding the rows of arrays."""

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
