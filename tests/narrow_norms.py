"""Gradients through convolutions in bfloat16, for processes that differ in what their kernels may use."""

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.kernels.conv import Layer, convolutions, transposed_convolutions


def norms() -> list[float]:
    """Of the weights' gradients, of small whole numbers."""
    random = np.random.default_rng(0)

    def whole(*shape: int) -> jax.Array:
        return jnp.asarray(np.round(random.standard_normal(shape)), jnp.float32)

    down = [Layer(whole(4, 4, 3, 34), whole(34)), Layer(whole(4, 4, 34, 20), whole(20))]
    up = [Layer(whole(5, 5, 18, 20), whole(18)), Layer(whole(6, 6, 3, 18), whole(3))]

    def score(down: list[Layer], up: list[Layer], x: jax.Array) -> jax.Array:
        y = convolutions(x, down, fast=True, dtype=jnp.bfloat16)
        return jnp.sum(transposed_convolutions(jnp.float32(0.01) * y, up, fast=True, dtype=jnp.bfloat16))

    found = jax.jit(jax.grad(score, argnums=(0, 1)))(down, up, whole(37, 22, 22, 3))
    return [float(jnp.linalg.norm(layer.w)) for layers in found for layer in layers]
