"""The encoder and the decoder of the paper's V (Ha & Schmidhuber 2018, A.1)."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import VaeConfig
from wm_jax.kernels import native
from wm_jax.kernels.conv import Layer, convolutions, fast_matmul, transposed_convolutions
from wm_jax.kernels.narrow import matmul
from wm_jax.models.vae.layers import DECODER_CHANNELS, ENCODER_CHANNELS, Dense, compute_type, normal, scaled
from wm_jax.utils.sizes import SIDE

ENCODER_KERNEL = 4
DECODER_KERNELS = (5, 5, 6, 6)


class Encoder(nnx.Module):
    """Frames to F = 4 * 256 * width features: four k4 s2 convolutions with ReLU."""

    channels: tuple[int, ...] = ENCODER_CHANNELS
    """Of each convolution, at a width of 1."""

    def __init__(self, config: VaeConfig, rngs: nnx.Rngs):
        self.fast = config.fast_kernels and native.available()
        self.dtype = compute_type(config)
        channels = (3, *(scaled(count, config) for count in self.channels))
        self.kernels, self.biases = nnx.List(), nnx.List()
        side, k = SIDE, ENCODER_KERNEL
        for inputs, outputs in pairwise(channels):
            self.kernels.append(normal(rngs, (k, k, inputs, outputs), k * k * inputs, gain=2.0))
            self.biases.append(nnx.Param(jnp.zeros(outputs, jnp.float32)))
            side = (side - k) // 2 + 1
        self.side, self.features = side, side * side * channels[-1]

    def head(self, outputs: int, rngs: nnx.Rngs) -> Dense:
        """A layer from the features to so many numbers, such as the means of z."""
        return Dense(self.features, outputs, rngs)

    def __call__(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B F"]:
        """The features of frames in [0, 1]."""
        layers = layers_of(self.kernels, self.biases)
        maps = convolutions(frames, layers, fast=self.fast, dtype=self.dtype)
        return maps.reshape(frames.shape[0], self.features)


class Decoder(nnx.Module):
    """Inputs, such as z, to frames: dense, four transposed convolutions, sigmoid.

    The first transposed convolution sees a single pixel, so it is one more dense layer, whose bias is per channel.
    """

    def __init__(self, inputs: int, config: VaeConfig, rngs: nnx.Rngs):
        self.fast = config.fast_kernels and native.available()
        self.dtype = compute_type(config)
        hidden = 4 * scaled(256, config)
        channels = (*(scaled(count, config) for count in DECODER_CHANNELS), 3)
        side = DECODER_KERNELS[0]
        self.dense = Dense(inputs, hidden, rngs)
        self.first_kernel = normal(rngs, (hidden, side * side * channels[0]), hidden, gain=2.0)
        self.first_bias = nnx.Param(jnp.zeros(channels[0], jnp.float32))
        kernels, biases = transposed_layers(side, DECODER_KERNELS[1:], channels, rngs)
        self.kernels, self.biases = nnx.List(kernels), nnx.List(biases)

    def __call__(self, z: Float[Array, "B I"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        side = DECODER_KERNELS[0]
        narrow = self.fast and self.dtype == jnp.bfloat16
        multiply = fast_matmul if narrow else partial(matmul, dtype=self.dtype)
        x = multiply(self.dense(z), self.first_kernel[...])
        x = jax.nn.relu(x.reshape(z.shape[0], side, side, -1) + self.first_bias[...][None, None, None, :])
        layers = layers_of(self.kernels, self.biases)
        return jax.nn.sigmoid(transposed_convolutions(x, layers, fast=self.fast, dtype=self.dtype))


def transposed_layers(
    side: int, sides: Sequence[int], channels: Sequence[int], rngs: nnx.Rngs
) -> tuple[list[nnx.Param[Array]], list[nnx.Param[Array]]]:
    """Kernels and biases of transposed convolutions with stride 2, ReLUs between them, from an image to a frame.

    Args:
      side: of that image.
      sides: of the kernels.
      channels: of that image, and of what each makes.
    """
    kernels, biases = [], []
    for k, (inner, outer) in zip(sides, pairwise(channels), strict=True):
        larger = 2 * side - 2 + k
        # How many products make one output pixel, on average: overlaps differ from layer to layer.
        fan_in = inner * (k * side / larger) ** 2
        gain = 1.0 if larger == SIDE else 2.0
        kernels.append(normal(rngs, (k, k, outer, inner), fan_in, gain))
        biases.append(nnx.Param(jnp.zeros(outer, jnp.float32)))
        side = larger
    return kernels, biases


def layers_of(kernels: Iterable[nnx.Param[Array]], biases: Iterable[nnx.Param[Array]]) -> list[Layer]:
    """As `kernels.conv` takes them."""
    return [Layer(kernel[...], bias[...]) for kernel, bias in zip(kernels, biases, strict=True)]
