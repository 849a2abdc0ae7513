"""C, the controller: a few hundred numbers that turn what V and M say into an action (Ha & Schmidhuber 2018, 2.3).

Its parameters are one flat vector, because evolution strategies search in vectors.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.envs.spaces import ActionSpace, Continuous
from wm_jax.utils.errors import UsageError, UserError

Inputs = Literal["z", "zh", "zhc"]
Gas = Literal["sigmoid", "tanh"]


@dataclass(frozen=True)
class Controller:
    """The shape of C; the numbers are passed to `apply`.

    Attributes:
      inputs: which of z, h, c it sees, in this order.
      hidden: size of one tanh layer, 0 for a linear map.
      latent: Z.
      memory_hidden: H.
      actions: the game's actions, which say what raw outputs there are and what they mean.
    """

    inputs: Inputs
    hidden: int
    latent: int
    memory_hidden: int
    actions: ActionSpace

    @property
    def n_features(self) -> int:
        """F, the number of inputs."""
        return self.latent + self.memory_hidden * (len(self.inputs) - 1)

    @property
    def n_params(self) -> int:
        """Length of the parameter vector."""
        return sum(inputs * outputs + outputs for inputs, outputs in self._layers)

    @property
    def _layers(self) -> tuple[tuple[int, int], ...]:
        sizes = (self.n_features, *([self.hidden] if self.hidden else []), self.actions.outputs)
        return tuple(pairwise(sizes))

    def features(
        self, z: Float[Array, "*lead Z"], seen: tuple[Float[Array, "*lead H"], ...]
    ) -> Float[Array, "*lead F"]:
        """[z, h, c] as far as `inputs` asks, from z and what is visible of M's state before this frame.

        Raises:
          UserError: c is asked for and M's cell has none.
        """
        wanted = len(self.inputs) - 1
        if len(seen) < wanted:
            raise UserError(
                f"controller.inputs {self.inputs}: this memory's cell has no c; use zh, or memory.cell lstm"
            )
        return jnp.concatenate([z, *seen[:wanted]], axis=-1)

    def apply(self, params: Float[Array, "n_params"], features: Float[Array, "F"]) -> Float[Array, "outputs"]:
        """Raw outputs W [z, h] + b (Ha & Schmidhuber 2018, eq. 1).

        Args:
          params: of each layer the weights (outputs, inputs), then the biases.
        """
        x, begin = features, 0
        for layer, (inputs, outputs) in enumerate(self._layers):
            x = jnp.tanh(x) if layer else x
            end = begin + inputs * outputs
            x = params[begin:end].reshape(outputs, inputs) @ x + params[end : end + outputs]
            begin = end + outputs
        return x


def with_gas(space: ActionSpace, gas: Gas) -> ActionSpace:
    """The space with this function from C's raw output x to the gas pedal.

    Args:
      gas: sigmoid(x), or for tanh (tanh x + 1) / 2, which is sigmoid(2x), as in the code of Ha & Schmidhuber 2018.

    Raises:
      UsageError: tanh, for a space without a pedal.
    """
    if gas == "sigmoid":
        return space
    if not isinstance(space, Continuous) or "sigmoid" not in space.squash:
        raise UsageError(f"controller.gas {gas}: only carracing has a gas pedal; leave it out")
    # Its range is [0, 1], which `tanh` fills.
    return replace(space, squash=tuple("tanh" if squash == "sigmoid" else squash for squash in space.squash))


def rounded(params: Float[Array, "*lead n_params"], unit: float) -> Float[Array, "*lead n_params"]:
    """Weights as multiples of `unit`, computed in float64; as they are for 0."""
    if not unit:
        return params
    return jnp.asarray(np.round(np.asarray(params, np.float64) / unit) * unit, params.dtype)
