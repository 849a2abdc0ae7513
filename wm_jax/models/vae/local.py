"""The paper's networks without the layers that see the whole frame: a part of z for each place of a 6x6 grid.

A small thing that may be anywhere is learned once for all places, and what is said of it lies in the numbers of its own
place. Convolutions are the paper's, by the same fast kernels; there is no large dense layer.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.kernels import native
from wm_jax.kernels.conv import transposed_convolutions
from wm_jax.models.vae.layers import (
    DECODER_CHANNELS,
    ENCODER_CHANNELS,
    Dense,
    EachPlace,
    compute_type,
    scaled,
    shared_out,
)
from wm_jax.models.vae.paper import Encoder, layers_of, transposed_layers

SIDE = 6
"""Of the grid: what three of the paper's convolutions make of 64 pixels."""
PLACES = SIDE * SIDE
KERNELS = (3, 6, 6)
"""Of the decoder: from 6 pixels to 13, and on as in the paper to 30 and 64."""


class LocalEncoder(Encoder):
    """Frames to F = 36 * 128 * width features: three k4 s2 convolutions with ReLU. A place sees 22x22 pixels."""

    channels = ENCODER_CHANNELS[:3]

    def head(self, outputs: int, rngs: nnx.Rngs) -> "Dense | EachPlace":
        """A layer to outputs / 36 numbers for each place: first those of the first place, then of the second."""
        each = shared_out(outputs, PLACES, "encoder local")
        return EachPlace(PLACES, self.features // PLACES, each, rngs)


class LocalDecoder(nnx.Module):
    """Inputs, such as z, to frames: a layer that all places share, three transposed convolutions, sigmoid."""

    def __init__(self, inputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        self.fast = config.fast_kernels and native.available()
        self.dtype = compute_type(config)
        channels = (*(scaled(count, config) for count in DECODER_CHANNELS), 3)
        self.start = EachPlace(PLACES, shared_out(inputs, PLACES, "decoder local"), channels[0], rngs)
        kernels, biases = transposed_layers(SIDE, KERNELS, channels, rngs)
        self.kernels, self.biases = nnx.List(kernels), nnx.List(biases)

    def __call__(self, z: Float[Array, "B I"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        x = jax.nn.relu(self.start(z).reshape(len(z), SIDE, SIDE, -1))
        layers = layers_of(self.kernels, self.biases)
        return jax.nn.sigmoid(transposed_convolutions(x, layers, fast=self.fast, dtype=self.dtype))
