"""What the networks of all auto-encoders are made of: their sizes, their types of numbers, and the linear layer."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import VaeConfig
from wm_jax.kernels import native
from wm_jax.utils.errors import UserError

ENCODER_CHANNELS = (32, 64, 128, 256)
DECODER_CHANNELS = (128, 64, 32)
"""Of the paper's networks (Ha & Schmidhuber 2018, A.1)."""


def compute_type(config: VaeConfig) -> Any:
    """What convolutions multiply in, and the decoder's first, which sees a single pixel; their gradients, too.

    All else is float32: sums of these products, parameters and their gradients, biases, losses, and the other dense
    layers, which are less than a hundredth of the work. A CPU multiplies bfloat16 where it has instructions for that,
    by our kernels alone: XLA's operations there are no faster in it.
    """
    if jax.default_backend() == "cpu":
        channels = (scaled(count, config) for count in ENCODER_CHANNELS + DECODER_CHANNELS)
        pairs = all(count % 2 == 0 for count in channels)  # which the instructions take at once
        return jnp.bfloat16 if config.bfloat16 and config.fast_kernels and pairs and native.narrow() else jnp.float32
    return jnp.bfloat16 if config.bfloat16 else jnp.float32


def scaled(channels: int, config: VaeConfig) -> int:
    """A channel count of the paper's network times `config.width`.

    Raises:
      UserError: nothing would be left.
    """
    result = round(channels * config.width)
    if result < 1:
        raise UserError(f"vae.width {config.width}: {channels} channels become none; use a larger width")
    return result


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: float, gain: float = 1.0) -> nnx.Param[Array]:
    """Weights with variance gain / fan_in: gain 2 keeps the scale through a ReLU (He et al. 2015), 1 without one."""
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * jnp.float32(sqrt(gain / fan_in)))


class Dense(nnx.Module):
    """A linear layer."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.kernel = normal(rngs, (inputs, outputs), inputs)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """The weighted sums of the inputs."""
        return x @ self.kernel[...] + self.bias[...][None, :]


class EachPlace(nnx.Module):
    """A linear layer that all places share, a 1x1 convolution: numbers of all places to numbers of all places."""

    def __init__(self, places: int, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.places, self.inputs, self.outputs = places, inputs, outputs
        self.dense = Dense(inputs, outputs, rngs)

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """Flat, place by place, as its inputs are."""
        each = self.dense(x.reshape(len(x) * self.places, self.inputs))
        return each.reshape(len(x), self.places * self.outputs)


class Perceptron(nnx.Module):
    """Dense layers of these sizes, inputs first, with an activation between them.

    With tanh outputs are bounded, whatever goes in.
    """

    def __init__(self, sizes: Sequence[int], rngs: nnx.Rngs, activation: Callable[[jax.Array], jax.Array] = jnp.tanh):
        self.activation = activation
        self.layers = nnx.List([Dense(inputs, outputs, rngs) for inputs, outputs in pairwise(sizes)])

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """What the last layer makes of the inputs."""
        *inner, last = self.layers
        for layer in inner:
            x = self.activation(layer(x))
        return last(x)


def shared_out(numbers: int, places: int, network: str) -> int:
    """How many of the numbers each place gets.

    Args:
      network: as the settings name it, `encoder grid`.

    Raises:
      UserError: they are no multiple of the places.
    """
    if numbers % places:
        raise UserError(
            f"vae.{network}: {numbers} numbers cannot be shared out among {places} places; give a vae.latent that "
            f"makes them a multiple of {places}, or another network"
        )
    return numbers // places
