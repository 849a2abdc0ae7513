"""Divergences between two sets of z, such as those of a batch's frames and as many samples of the prior."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.models.vae.contract import Scalar

Kernel = Literal["imq", "rbf"]


def mmd(a: Float[Array, "N Z"], b: Float[Array, "M Z"], kernel: Kernel) -> Scalar:
    """Squared maximum mean discrepancy: E k(a, a') + E k(b, b') - 2 E k(a, b), means over pairs.

    The estimate is unbiased (Gretton et al. 2012, eq. 3): nothing is paired with itself. So for two sets of the same
    distribution it is 0 on average, and often below it.
    """
    between = jnp.mean(similarity(a, b, kernel))
    return _mean_of_pairs(similarity(a, a, kernel)) + _mean_of_pairs(similarity(b, b, kernel)) - 2 * between


def similarity(a: Float[Array, "N Z"], b: Float[Array, "M Z"], kernel: Kernel) -> Float[Array, "N M"]:
    """The kernel of every pair: 1 for equal z, falling to 0 with their distance.

    imq: C / (C + |a - b|^2), the inverse multiquadratic; rbf: exp(-|a - b|^2 / C), a Gaussian. C = 2 Z is the mean
    squared distance of two samples of N(0, 1) (Tolstikhin et al. 2018, section 4).
    """
    scale = 2.0 * a.shape[1]
    # Differences first: |a|^2 + |b|^2 - 2 ab would lose small distances in the rounding of large products.
    squared_distance = jnp.sum(jnp.square(a[:, None] - b[None]), axis=2)
    match kernel:
        case "imq":
            return scale / (scale + squared_distance)
        case "rbf":
            return jnp.exp(-squared_distance / scale)


def _mean_of_pairs(similarities: Float[Array, "N N"]) -> Scalar:
    """The mean over pairs of two different elements; 0 where there are none."""
    count = len(similarities)
    return (jnp.sum(similarities) - jnp.trace(similarities)) / max(count * (count - 1), 1)
