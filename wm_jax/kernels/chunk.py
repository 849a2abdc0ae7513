"""Work on a batch in chunks, so that a chunk's intermediate results stay in the cache of a CPU."""

from collections.abc import Callable
from math import ceil

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped


def in_chunks(
    f: Callable[[Shaped[Array, "b *inputs"]], Shaped[Array, "b *outputs"]], x: Shaped[Array, "B *inputs"], most: int
) -> Shaped[Array, "B *outputs"]:
    """f(x) for a function that treats every sample alone, at most so many samples at a time.

    Differentiable like f, also with respect to what f closes over. Chunks are of equal size: the last one is filled
    up with zeros, whose results are dropped.

    Args:
      f: must work for any b.
      most: largest chunk.
    """
    batch = x.shape[0]
    count = ceil(batch / most)
    if count <= 1:
        return f(x)
    size = ceil(batch / count)
    filled = jnp.pad(x, ((0, count * size - batch), *((0, 0),) * (x.ndim - 1)))
    y = lax.map(f, filled.reshape(count, size, *x.shape[1:]))
    return y.reshape(count * size, *y.shape[2:])[:batch]
