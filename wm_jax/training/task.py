"""What is trained: an update as one or several steps of optimisers, and the state that it changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx

from wm_jax.data.frames import Batches
from wm_jax.models.variables import combine, partition

Scalars = dict[str, jax.Array]


class TrainState(NamedTuple):
    """What an update changes.

    params: pytree of the model's parameters, and of its other variables if it has some (`models.variables`).
    optimizer: the state of optax; of an update of several steps, one for each of them.
    carry: what a model hands from batch to batch (M's state in carried mode), or ().
    """

    params: Any
    optimizer: Any
    carry: Any


Gradient = Callable[[Any, Any, Any, jax.Array, jax.Array], tuple[Scalars, Any, Any, Any]]
"""(params, batch, carry, key, step) -> (scalar metrics, new carry, gradients like what is learned of
`TrainState.params`, the rest of them after the update: None if there is none). Step int32[] counts updates before."""


@dataclass(frozen=True)
class OptimizerStep:
    """One of the steps that an update consists of: most have one, a model beside its adversary has two.

    Attributes:
      gradient: of what it minimises.
      optimizer: how gradients become changes.
      learned: NNX's filter of the parameters that it changes.
    """

    gradient: Gradient
    optimizer: optax.GradientTransformation
    learned: Any = nnx.Param


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
      steps: of an update, one after the other on the same batch; their metrics have different names, "loss" among the
        first one's.
      batches: where batches come from.
    """

    steps: tuple[OptimizerStep, ...]
    batches: Batches

    @staticmethod
    def single(gradient: Gradient, optimizer: optax.GradientTransformation, batches: Batches) -> "Task":
        """All parameters are changed at once."""
        return Task((OptimizerStep(gradient, optimizer),), batches)

    def start(self, params: Any, carry: Any) -> TrainState:
        """The state before the first update."""
        states = [step.optimizer.init(partition(params, step.learned)[0]) for step in self.steps]
        return TrainState(params, _one_or_all(states), carry)

    def update(self, state: TrainState, batch: Any, key: jax.Array, step: jax.Array) -> tuple[TrainState, Scalars]:
        """One update; to be called inside `jax.jit`."""
        params, carry = state.params, state.carry
        states = state.optimizer if len(self.steps) > 1 else (state.optimizer,)
        metrics: Scalars = {}
        after = []
        keys = jax.random.split(key, len(self.steps)) if len(self.steps) > 1 else [key]
        for each, optimizer, own in zip(self.steps, states, keys, strict=True):
            figures, carry, gradients, others = each.gradient(params, batch, carry, own, step)
            learned, _ = partition(params, each.learned)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with floats
                changes, optimizer = each.optimizer.update(gradients, optimizer, learned)
            params = combine(optax.apply_updates(learned, changes), others)
            metrics |= figures
            after.append(optimizer)
        return TrainState(params, _one_or_all(after), carry), metrics


def _one_or_all(states: list[Any]) -> Any:
    """The optimisers' states; of a single one itself, as checkpoints have always held it."""
    return tuple(states) if len(states) > 1 else states[0]


def adam(
    learning_rate: float, final: float | None, steps: int, clip: float | None = None
) -> optax.GradientTransformation:
    """Adam with a constant rate or a cosine decay to `final` over `steps`; `clip` cuts gradients by value first."""
    rate = optax.cosine_decay_schedule(learning_rate, steps, final / learning_rate) if final else learning_rate
    return optax.chain(*([optax.clip(clip)] if clip else []), optax.adam(rate))
