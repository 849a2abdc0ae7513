"""The encoder and the decoder of the paper's V (Ha & Schmidhuber 2018, A.1)."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import VaeConfig
from wm_jax.kernels import native
from wm_jax.kernels.conv import fast_matmul, transposed_convolutions
from wm_jax.kernels.narrow import matmul
from wm_jax.models.vae.layers import (
    DECODER_CHANNELS,
    ENCODER_CHANNELS,
    ConvStack,
    Dense,
    compute_type,
    layers_of,
    normal,
    scaled_channels,
)
from wm_jax.models.vae.places import WholeStart
from wm_jax.utils.sizes import SIDE

DECODER_KERNELS = (5, 5, 6, 6)
"""Pixels of the kernels' sides."""


class Encoder(ConvStack):
    """Frames to F = 4 * 256 * width features: four k4 s2 convolutions with ReLU."""

    channels: ClassVar[tuple[int, ...]] = ENCODER_CHANNELS
    """Of each convolution, at a width of 1."""

    def __init__(self, config: VaeConfig, rngs: nnx.Rngs):
        super().__init__([scaled_channels(count, config) for count in self.channels], config, rngs)

    def head(self, outputs: int, rngs: nnx.Rngs) -> Dense:
        """A layer from the features to so many numbers, such as the means of z."""
        return Dense(self.features, outputs, rngs)


class TransposedStack(nnx.Module):
    """Transposed convolutions with stride 2, ReLUs between them and a sigmoid at the end: an image to a frame."""

    def __init__(self, side: int, sides: Sequence[int], channels: Sequence[int], config: VaeConfig, rngs: nnx.Rngs):
        """The kernels and biases.

        Args:
          side: of the image that the first one takes, in pixels.
          sides: of the kernels, in pixels.
          channels: of that image, and of each convolution's outputs.
        """
        self.fast = config.fast_kernels and native.available()
        self.dtype = compute_type(config)
        self.kernels, self.biases = nnx.List(), nnx.List()
        for k, (inner, outer) in zip(sides, pairwise(channels), strict=True):
            larger = 2 * side - 2 + k
            # The number of products that an output pixel is the sum of, on average: how much kernels overlap differs.
            fan_in = inner * (k * side / larger) ** 2
            gain = 1.0 if larger == SIDE else 2.0
            self.kernels.append(normal(rngs, (k, k, outer, inner), fan_in, gain))
            self.biases.append(nnx.Param(jnp.zeros(outer, jnp.float32)))
            side = larger

    def frames(self, image: Float[Array, "B s s C"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1] of the first image."""
        layers = layers_of(self.kernels, self.biases)
        return jax.nn.sigmoid(transposed_convolutions(image, layers, fast=self.fast, dtype=self.dtype))


def decoder_channels(config: VaeConfig) -> tuple[int, ...]:
    """Channels of the decoder's first image, and of the outputs of its transposed convolutions."""
    return (*(scaled_channels(count, config) for count in DECODER_CHANNELS), 3)


class Decoder(TransposedStack):
    """Inputs, such as z, to frames: dense, four transposed convolutions, sigmoid.

    The first transposed convolution sees a single pixel, so it is one more dense layer, whose bias is per channel.
    """

    def __init__(self, inputs: int, config: VaeConfig, rngs: nnx.Rngs, context: int = 0):
        hidden, channels = 4 * scaled_channels(256, config), decoder_channels(config)
        side = DECODER_KERNELS[0]
        self.dense = WholeStart(inputs + context, hidden, rngs)
        self.first_kernel = normal(rngs, (hidden, side * side * channels[0]), hidden, gain=2.0)
        self.first_bias = nnx.Param(jnp.zeros(channels[0], jnp.float32))
        super().__init__(side, DECODER_KERNELS[1:], channels, config, rngs)

    def __call__(
        self, z: Float[Array, "B I"], context: Float[Array, "B context"] | None = None
    ) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        side = DECODER_KERNELS[0]
        narrow = self.fast and self.dtype == jnp.bfloat16
        multiply = fast_matmul if narrow else partial(matmul, dtype=self.dtype)
        x = multiply(self.dense(z, context), self.first_kernel[...])
        return self.frames(
            jax.nn.relu(x.reshape(z.shape[0], side, side, -1) + self.first_bias[...][None, None, None, :])
        )
