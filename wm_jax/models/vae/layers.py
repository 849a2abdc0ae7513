"""The building blocks of all auto-encoders' networks: channel counts, number types, dense and convolutional layers."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import VaeConfig
from wm_jax.kernels import native
from wm_jax.kernels.conv import Layer, convolutions
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import SIDE

ENCODER_CHANNELS = (32, 64, 128, 256)
DECODER_CHANNELS = (128, 64, 32)
"""Of the paper's networks (Ha & Schmidhuber 2018, A.1)."""
ENCODER_KERNEL = 4
"""Pixels of the kernels' sides in the paper's encoder (likewise); their stride is 2."""


def compute_type(config: VaeConfig) -> Any:
    """The number type that convolutions multiply in, and the decoder's first one, which is a matrix product.

    Their gradients do, too. All else is float32: sums of these products, parameters and their gradients, biases,
    losses, and the other dense layers, which are less than a hundredth of the work. A CPU multiplies bfloat16 where it
    has instructions for that, and by our kernels alone: XLA's operations are no faster in bfloat16 there.

    Returns:
      `jnp.bfloat16` or `jnp.float32`.
    """
    if jax.default_backend() == "cpu":
        channels = (scaled_channels(count, config) for count in ENCODER_CHANNELS + DECODER_CHANNELS)
        pairs = all(count % 2 == 0 for count in channels)  # the instructions take two channels at once
        return jnp.bfloat16 if config.bfloat16 and config.fast_kernels and pairs and native.narrow() else jnp.float32
    return jnp.bfloat16 if config.bfloat16 else jnp.float32


def scaled_channels(channels: int, config: VaeConfig) -> int:
    """A channel count of the paper's network times `config.width`, rounded.

    Raises:
      UserError: the result is 0.
    """
    result = round(channels * config.width)
    if result < 1:
        raise UserError(f"vae.width {config.width}: {channels} channels become none; use a larger width")
    return result


def normal(
    rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: float, gain: float = 1.0, kind: type[nnx.Variable] = nnx.Param
) -> nnx.Variable:
    """Normal weights with variance gain / fan_in: gain 2 keeps the scale through a ReLU (He et al. 2015), else 1 does.

    Args:
      kind: of variable.
    """
    return kind(jax.random.normal(rngs.params(), shape, jnp.float32) * jnp.float32(sqrt(gain / fan_in)))


class Dense(nnx.Module):
    """A linear layer."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.kernel = normal(rngs, (inputs, outputs), inputs)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """The weighted sums of the inputs."""
        return x @ self.kernel[...] + self.bias[...][None, :]


class Perceptron(nnx.Module):
    """Dense layers with an activation between them.

    With tanh, outputs are bounded whatever the inputs are.
    """

    def __init__(self, sizes: Sequence[int], rngs: nnx.Rngs, activation: Callable[[jax.Array], jax.Array] = jnp.tanh):
        """The layers.

        Args:
          sizes: of the inputs and of each layer's outputs.
        """
        self.activation = activation
        self.layers = nnx.List([Dense(inputs, outputs, rngs) for inputs, outputs in pairwise(sizes)])

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """The last layer's outputs."""
        *inner, last = self.layers
        for layer in inner:
            x = self.activation(layer(x))
        return last(x)


class LogOdds(Perceptron):
    """A discriminator of latent vectors: the log odds log(D / (1 - D)) that z comes from the first of two sources."""

    def __init__(
        self,
        latent: int,
        width: int,
        layers: int,
        rngs: nnx.Rngs,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    ):
        """The network.

        Args:
          width, layers: units of each hidden layer, and how many of these there are.
        """
        super().__init__((latent, *[width] * layers, 1), rngs, activation)

    def __call__(self, z: Float[Array, "B Z"]) -> Float[Array, "B"]:
        """The log odds of each z."""
        return super().__call__(z)[:, 0]


class ConvStack(nnx.Module):
    """Convolutions with 4x4 kernels, stride 2 and ReLU, as in the paper's encoder (Ha & Schmidhuber 2018, A.1)."""

    def __init__(
        self, channels: Sequence[int], config: VaeConfig, rngs: nnx.Rngs, kind: type[nnx.Variable] = nnx.Param
    ):
        """The kernels and biases.

        Args:
          channels: of each convolution's outputs.
          kind: of variable; `Buffer` for a network that is not trained.
        """
        self.fast = config.fast_kernels and native.available()
        self.dtype = compute_type(config)
        self.kernels, self.biases = nnx.List(), nnx.List()
        side, k = SIDE, ENCODER_KERNEL
        for inputs, outputs in pairwise((3, *channels)):
            self.kernels.append(normal(rngs, (k, k, inputs, outputs), k * k * inputs, gain=2.0, kind=kind))
            self.biases.append(kind(jnp.zeros(outputs, jnp.float32)))
            side = (side - k) // 2 + 1
        self.features = side * side * channels[-1]

    def __call__(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B F"]:
        """The features of frames in [0, 1]: the last convolution's outputs."""
        layers = layers_of(self.kernels, self.biases)
        return convolutions(frames, layers, fast=self.fast, dtype=self.dtype).reshape(len(frames), self.features)

    def layer_outputs(self, frames: Float[Array, "B side side 3"]) -> list[Float[Array, "B _h _w _C"]]:
        """The outputs of each convolution for frames in [0, 1]."""
        outputs = []
        for layer in layers_of(self.kernels, self.biases):
            frames = convolutions(frames, [layer], fast=self.fast, dtype=self.dtype)
            outputs.append(frames)
        return outputs


def layers_of(kernels: Iterable[nnx.Variable], biases: Iterable[nnx.Variable]) -> list[Layer]:
    """Kernels and biases as `kernels.conv` takes them."""
    return [Layer(kernel[...], bias[...]) for kernel, bias in zip(kernels, biases, strict=True)]
