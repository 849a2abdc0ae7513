"""A sum over chunks of data whose gradient is made in the same pass as its value.

Automatic differentiation either keeps everything that the loss of a long sequence is made of, or computes it a second
time going back. But a sum's gradient is known as soon as its terms are: each chunk's is taken while it is in cache.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Term = Callable[[Any, Any, Any], tuple[jax.Array, Any]]


def summed(term: Term, params: Any, inputs: Any, constants: Any) -> tuple[jax.Array, Any]:
    """The sum over chunks of term(params, inputs[i], constants[i]).

    Args:
      term: pure function to (scalar, pytree of figures); closes over no traced value.
      params: what all chunks share.
      inputs, constants: pytrees of arrays whose leading axis counts the chunks.

    Returns:
      the sums of both. Only the scalar has a gradient, with respect to params and inputs.
    """
    return _summed(term, params, inputs, constants)


def _value(term: Term, params: Any, inputs: Any, constants: Any) -> Any:
    def step(total: Any, chunk: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, term(params, *chunk)), None

    return lax.scan(step, _zeros_like_result(term, params, inputs, constants), (inputs, constants))[0]


_summed: Any = jax.custom_vjp(_value, nondiff_argnums=(0,))


def _forward(term, params, inputs, constants):
    value_and_grad = jax.value_and_grad(term, (0, 1), has_aux=True)

    def step(sums, chunk):
        (scalar, figures), (d_params, d_inputs) = value_and_grad(params, *chunk)
        return jax.tree.map(jnp.add, sums, ((scalar, figures), d_params)), d_inputs

    zeros = (_zeros_like_result(term, params, inputs, constants), jax.tree.map(jnp.zeros_like, params))
    (total, d_params), d_inputs = lax.scan(step, zeros, (inputs, constants))
    return total, (d_params, d_inputs)


def _backward(term, gradients, cotangents):
    d_params, d_inputs = jax.tree.map(lambda leaf: leaf * cotangents[0], gradients)
    return d_params, d_inputs, None


_summed.defvjp(_forward, _backward)


def _zeros_like_result(term: Term, params: Any, inputs: Any, constants: Any) -> Any:
    first = jax.tree.map(lambda leaf: leaf[0], (inputs, constants))
    shapes = jax.eval_shape(term, params, *first)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
