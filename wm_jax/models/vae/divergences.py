"""How far apart two sets of z are, such as the codes of a batch and as many draws from the prior."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Kernel = Literal["imq", "rbf"]


def mmd(a: Float[Array, "N Z"], b: Float[Array, "M Z"], kernel: Kernel) -> Float[Array, ""]:
    """Squared maximum mean discrepancy: E k(a, a') + E k(b, b') - 2 E k(a, b), means over pairs.

    Estimated without bias (Gretton et al. 2012, eq. 3): nothing is paired with itself. Where both sets are of the same
    distribution it is therefore 0 on average, and below it half of the time.
    """
    between = jnp.mean(similarity(a, b, kernel))
    return _among(similarity(a, a, kernel)) + _among(similarity(b, b, kernel)) - 2 * between


def similarity(a: Float[Array, "N Z"], b: Float[Array, "M Z"], kernel: Kernel) -> Float[Array, "N M"]:
    """The kernel of every pair: 1 for the same z, towards 0 with the distance.

    imq: C / (C + |a - b|^2), the inverse multiquadratic; rbf: exp(-|a - b|^2 / C), a Gaussian. C = 2 Z is what the
    squared distance of two draws from N(0, 1) is on average (Tolstikhin et al. 2018, section 4).
    """
    scale = 2.0 * a.shape[1]
    # Differences first: |a|^2 + |b|^2 - 2 ab would lose the small distances in the rounding of large products.
    apart = jnp.sum(jnp.square(a[:, None] - b[None]), axis=2)
    match kernel:
        case "imq":
            return scale / (scale + apart)
        case "rbf":
            return jnp.exp(-apart / scale)


def _among(similarities: Float[Array, "N N"]) -> Float[Array, ""]:
    """The mean over pairs of two; 0 where there are none."""
    count = len(similarities)
    return (jnp.sum(similarities) - jnp.trace(similarities)) / max(count * (count - 1), 1)
