"""Products in a narrower type, such as bfloat16: operands are rounded to it, sums are float32, and so are gradients.

JAX differentiates a product with float32 sums into products of float32 operands, where the narrow type's speed is lost,
and one without them into sums that are rounded as they are stored: a weight's gradient is a sum over a whole batch, and
then over the devices that share it. So the gradients are written out here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32

SUMS = jnp.float32
"""What products are added up in: `preferred_element_type`, as JAX names it."""


class Bilinear(NamedTuple):
    """A product of x and w, and the products that its gradients are. Each adds up in `SUMS`."""

    forward: Callable[[Array, Array], Array]
    """(x, w) -> y."""
    to_x: Callable[[Array, Array], Array]
    """(dy, w) -> dx."""
    to_w: Callable[[Array, Array], Array]
    """(dy, x) -> dw."""


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def product(of: Bilinear, dtype: Any, x: Array, w: Array) -> Array:
    """The product of x and w, float32 all of them, with every operand of it and of its gradients rounded to `dtype`."""
    return of.forward(x.astype(dtype), w.astype(dtype))


def _forward(of, dtype, x, w):
    x, w = x.astype(dtype), w.astype(dtype)
    return of.forward(x, w), (x, w)


def _backward(of, dtype, saved, dy):
    x, w = saved
    dy = dy.astype(dtype)
    return of.to_x(dy, w), of.to_w(dy, x)


product.defvjp(_forward, _backward)


def matmul(x: Float32[Array, "B I"], w: Float32[Array, "I O"], dtype: Any) -> Float32[Array, "B O"]:
    """The matrix product, with products in `dtype`."""
    if dtype == jnp.float32:
        return x @ w
    return product(Bilinear(_contracted(1, 0), _contracted(1, 1), lambda dy, x: _contracted(0, 0)(x, dy)), dtype, x, w)


def _contracted(first: int, second: int) -> Callable[[Array, Array], Array]:
    """A product of two matrices, summed over these axes of theirs."""
    return lambda a, b: lax.dot_general(a, b, (((first,), (second,)), ((), ())), preferred_element_type=SUMS)
