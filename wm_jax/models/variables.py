"""A model's variables: the parameters, which gradients change, and the others, which it changes itself as it is used.

Others are what batch normalisation has seen so far, or how far dropout's random numbers have come. They travel with the
parameters wherever these go, in one tree, and are told apart only where something is trained.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


class Buffer(nnx.Variable):
    """A variable that is saved with the parameters but that no gradient changes: a constant or a moving average."""


def partition(variables: Any, learned: Any = nnx.Param) -> tuple[Any, Any]:
    """(what is learned, others), the latter None where there are none. What is no NNX state is learned as a whole.

    Args:
      learned: NNX's filter of the parameters that gradients change.
    """
    if not isinstance(variables, nnx.State):
        return variables, None
    params, others = nnx.split_state(variables, learned, ...)
    return params, others or None


def combine(params: Any, others: Any) -> Any:
    """The variables that `partition` took apart."""
    return params if others is None else nnx.merge_state(params, others)


def value_and_grad(
    graphdef: nnx.GraphDef[Any],
    variables: Any,
    loss: Callable[[Any], tuple[jax.Array, Any]],
    learned: Any = nnx.Param,
) -> tuple[jax.Array, Any, Any, Any]:
    """A model's loss, and its gradient; to be called inside `jax.jit`.

    Args:
      graphdef, variables: of `nnx.split(model)`.
      loss: of the model, to (scalar, anything else).
      learned: see `partition`.

    Returns:
      the scalar, anything else, gradients like what is learned, and the other variables as the loss left them.
    """
    params, others = partition(variables, learned)

    def of(params: Any) -> tuple[jax.Array, Any]:
        # A variable can be changed only where it was made: inside the gradient.
        model = nnx.merge(graphdef, combine(params, jax.tree.map(lambda leaf: leaf, others)))
        value, more = loss(model)
        return value, (more, partition(nnx.state(model), learned)[1])

    (value, (more, others)), gradients = jax.value_and_grad(of, has_aux=True)(params)
    return value, more, gradients, others
