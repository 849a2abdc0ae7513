"""Work on a batch in chunks, so that a chunk's intermediate results stay in the cache of a CPU."""

from collections.abc import Callable
from math import ceil

import jax
import jax.numpy as jnp
from jax import lax


def in_chunks(f: Callable[[jax.Array], jax.Array], x: jax.Array, most: int) -> jax.Array:
    """f(x) for a function that treats every sample alone, at most so many samples at a time.

    Differentiable like f, also with respect to what f closes over. Chunks are of equal size: the last one is filled
    up with zeros, whose results are dropped.

    Args:
      f: [b, ...] -> [b, ...], for any b.
      x: [B, ...].
      most: largest chunk.

    Returns:
      [B, ...].
    """
    batch = x.shape[0]
    count = ceil(batch / most)
    if count <= 1:
        return f(x)
    size = ceil(batch / count)
    filled = jnp.pad(x, ((0, count * size - batch), *((0, 0),) * (x.ndim - 1)))
    y = lax.map(f, filled.reshape(count, size, *x.shape[1:]))
    return y.reshape(count * size, *y.shape[2:])[:batch]
