"""Several updates in one call, as a program over the devices that share the batch.

A dispatch runs a *dynamic* number of updates of one compiled program (some networks, on a CPU, one after the other:
`one_by_one`), and the randomness of update s depends on s alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from wm_jax.distributed.mesh import batch_sharding, device_put, replicated
from wm_jax.training.task import Scalars, Task, TrainState


def lay_out(task: Task, state: TrainState, mesh: Mesh) -> tuple[TrainState, Any, Callable[..., Any]]:
    """State and data as they lie on the devices that share the batch, and the dispatch (`compile_dispatch`) over them.

    The carry of a batch lies with the batch, all else is on every device.
    """
    whole, with_batch = replicated(mesh), batch_sharding(mesh, task.batches.batch_axis)
    carry = jax.tree.map(lambda leaf: batch_sharding(mesh) if jnp.ndim(leaf) else whole, state.carry)
    params, optimizer = (jax.tree.map(lambda _: whole, part) for part in (state.params, state.optimizer))
    placed = TrainState(params, optimizer, carry)
    in_one, chosen = compile_dispatch(task, placed), None
    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def dispatch(state: TrainState, data: Any, references: Any, *more: Any) -> tuple[TrainState, Scalars]:
        nonlocal chosen
        arguments = (state, data, device_put(references, with_batch), *more)
        if chosen is None:
            chosen = one_by_one(task, placed) if on_cpu and _convolves(in_one, arguments) else in_one
        return chosen(*arguments)

    return device_put(state, placed), device_put(task.batches.data, whole), dispatch


def _convolves(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Are there convolutions by XLA in this compiled function?"""

    def inside(part: Any) -> bool:
        equations = getattr(getattr(part, "jaxpr", part), "eqns", None)
        if equations is not None:
            return any(
                each.primitive.name == "conv_general_dilated" or inside([*each.params.values()]) for each in equations
            )
        return isinstance(part, list | tuple) and any(map(inside, part))

    return inside(function.trace(*arguments).jaxpr)


def compile_dispatch(task: Task, placed: TrainState | None = None) -> Callable[..., tuple[TrainState, Scalars]]:
    """The dispatch: `count` updates from `step` on, and the sums of their metrics.

    Args:
      placed: shardings of the state (None: those that it comes with).
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=(placed, None))
    def dispatch(
        state: TrainState, data: Any, references: Any, step: jax.Array, count: jax.Array, key: jax.Array
    ) -> tuple[TrainState, Scalars]:
        def body(i: jax.Array, loop: tuple[TrainState, Scalars]) -> tuple[TrainState, Scalars]:
            state, sums = loop
            state, metrics = _nth_update(task, state, data, references, step, i, key)
            return state, jax.tree.map(jnp.add, sums, metrics)

        first = partial(_nth_update, task)
        shapes = jax.eval_shape(first, state, data, references, jnp.int32(0), jnp.int32(0), key)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, zeros))

    return dispatch


def one_by_one(task: Task, placed: TrainState | None = None) -> Callable[..., tuple[TrainState, Scalars]]:
    """The same dispatch with a call for each update, for networks with XLA's convolutions on a CPU.

    XLA:CPU computes those of weights' gradients a hundred times as slowly inside a loop as outside, since it brings
    only the latter into the form that its fast routine takes (https://github.com/jax-ml/jax/issues/12868).
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=(placed, None))
    def update(state: TrainState, *more: Any) -> tuple[TrainState, Scalars]:
        return _nth_update(task, state, *more)

    def dispatch(
        state: TrainState, data: Any, references: Any, step: int, count: int, key: jax.Array
    ) -> tuple[TrainState, Scalars]:
        state, sums = update(state, data, references, step, 0, key)
        for i in range(1, count):
            state, metrics = update(state, data, references, step, i, key)
            sums = jax.tree.map(jnp.add, sums, metrics)
        return state, sums

    return dispatch


def _nth_update(
    task: Task,
    state: TrainState,
    data: Any,
    references: Any,
    step: int | jax.Array,
    i: int | jax.Array,
    key: jax.Array,
) -> tuple[TrainState, Scalars]:
    """Update i of the dispatch that begins at `step`."""
    reference = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), references)
    batch = task.batches.fetch(data, reference)
    return task.update(state, batch, jax.random.fold_in(key, step + i), jnp.asarray(step + i, jnp.int32))
