"""The straight-through gradient: a value that jumps, with the gradient of one that does not."""

import jax
from jaxtyping import Array, Float


def straight_through(value: Float[Array, "*shape"], learned: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Exactly the value, such as a rounded number, with the gradient of what it was made of.

    Bengio, Leonard & Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
    Computation" (arXiv 1308.3432).
    """
    return jax.lax.stop_gradient(value) + (learned - jax.lax.stop_gradient(learned))
