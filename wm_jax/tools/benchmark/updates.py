"""The work of a training's benchmark: dispatches of several updates, as `loop.fit` makes them."""

from typing import Any

import jax

from wm_jax.distributed.mesh import open_mesh
from wm_jax.tools.benchmark.timing import Work
from wm_jax.training.dispatch import lay_out
from wm_jax.training.task import Task


def updates(task: Task, params: Any, carry: Any, *, batch: int, count: int, devices: int) -> Work:
    """So many updates in each call, data included."""
    mesh = open_mesh(devices, batch, "--batch")
    state, data, dispatch = lay_out(task, task.start(params, carry), mesh)
    step = 0

    def work() -> None:
        nonlocal state, step
        references = task.batches.references(step, count, count)
        state, sums = dispatch(state, data, references, step, count, jax.random.key(0))
        jax.block_until_ready(sums)
        step += count

    return work
