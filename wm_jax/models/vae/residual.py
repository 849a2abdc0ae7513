"""Deeper networks: residual blocks with group normalisation; and the same with a part of z for each place of a grid.

He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027), with SiLU for ReLU; Wu & He 2018,
"Group Normalization" (arXiv 1803.08494), which normalises each frame by itself, so that nothing depends on the batch.
Down- and upsampling use 2x2 kernels with stride 2, so only the 3x3 convolutions mix neighbouring cells of the grid.
The networks have the interface of `networks.py`.
"""

from itertools import pairwise
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import GRID_SIDES, BuiltInVaeConfig
from wm_jax.models.vae.layers import Dense, compute_type, scaled_channels
from wm_jax.models.vae.places import PlacedHead, PlacedStart, WholeStart

CHANNELS = (32, 64, 128, 256)
"""At sides of 32, 16, 8 and 4 pixels."""
GRID_SIDE = GRID_SIDES["grid"]
"""The side of the smallest image, which is the grid."""
PLACES = GRID_SIDE * GRID_SIDE
GROUP = 16
"""Channels that are normalised together, where their number allows it (Wu & He 2018, table 3)."""


class ResidualEncoder(nnx.Module):
    """Frames to F = 16 * 256 * width features: four times downsampling by 2 and a residual block."""

    def __init__(self, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        self.config = config
        dtype = convolution_type(config)
        self.halvings, self.blocks = nnx.List(), nnx.List()
        for inputs, outputs in pairwise((3, *(scaled_channels(count, config) for count in CHANNELS))):
            self.halvings.append(nnx.Conv(inputs, outputs, (2, 2), strides=2, dtype=dtype, rngs=rngs))
            self.blocks.append(Block(outputs, dtype, rngs))
        self.channels = scaled_channels(CHANNELS[-1], config)
        self.norm = group_norm(self.channels, rngs)
        self.features = PLACES * self.channels

    def head(self, outputs: int, rngs: nnx.Rngs) -> "Dense | PlacedHead":
        """A layer from the features to so many numbers, such as the means of z."""
        return Dense(self.features, outputs, rngs)

    def __call__(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B F"]:
        """The features of frames in [0, 1], place by place."""
        x = frames
        for halving, block in zip(self.halvings, self.blocks, strict=True):
            x = block(halving(x).astype(jnp.float32))
        return jax.nn.silu(self.norm(x)).reshape(len(frames), self.features)


class ResidualDecoder(nnx.Module):
    """Inputs, such as z, to frames: a 4x4 image, four times a residual block and upsampling by 2, sigmoid."""

    def __init__(self, inputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs, context: int = 0):
        dtype = convolution_type(config)
        channels = tuple(scaled_channels(count, config) for count in reversed(CHANNELS))
        self.start = self._start(inputs, context, channels[0], config, rngs)
        self.blocks, self.doublings = nnx.List(), nnx.List()
        for inner, outer in pairwise((*channels, 3)):
            self.blocks.append(Block(inner, dtype, rngs))
            self.doublings.append(nnx.ConvTranspose(inner, outer, (2, 2), strides=(2, 2), dtype=dtype, rngs=rngs))
        self.norm = group_norm(channels[-1], rngs)

    def _start(
        self, inputs: int, context: int, channels: int, config: BuiltInVaeConfig, rngs: nnx.Rngs
    ) -> "WholeStart | PlacedStart":
        """The layer from the inputs and the context to the 4x4 image."""
        return WholeStart(inputs + context, PLACES * channels, rngs)

    def __call__(
        self, z: Float[Array, "B I"], context: Float[Array, "B context"] | None = None
    ) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        x = self.start(z, context).reshape(len(z), GRID_SIDE, GRID_SIDE, -1)
        *inner, (last_block, last_doubling) = zip(self.blocks, self.doublings, strict=True)
        for block, doubling in inner:
            x = doubling(block(x)).astype(jnp.float32)
        x = jax.nn.silu(self.norm(last_block(x)))
        return jax.nn.sigmoid(last_doubling(x).astype(jnp.float32))


class GridEncoder(ResidualEncoder):
    """The residual encoder, but each place of the 4x4 grid has a part of z, which one layer makes of its features."""

    def head(self, outputs: int, rngs: nnx.Rngs) -> "Dense | PlacedHead":
        """A layer from the features to numbers of each place, those of the first place first, and of the frame."""
        return PlacedHead(PLACES, self.features, outputs, self.config, rngs)


class GridDecoder(ResidualDecoder):
    """The residual decoder, but each place of the first, 4x4 image is made of that place's part of z."""

    def _start(
        self, inputs: int, context: int, channels: int, config: BuiltInVaeConfig, rngs: nnx.Rngs
    ) -> "WholeStart | PlacedStart":
        return PlacedStart(PLACES, inputs, context, channels, config, rngs)


class Block(nnx.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))): He et al. 2016, figure 4 (e)."""

    def __init__(self, channels: int, dtype: Any, rngs: nnx.Rngs):
        self.norms = nnx.List(group_norm(channels, rngs) for _ in range(2))
        # A fresh block adds next to nothing, so that a deep network is easy to train (as in Goyal et al. 2017, 5.1).
        scales = (1.0, 0.01)
        self.convolutions = nnx.List(
            nnx.Conv(
                channels,
                channels,
                (3, 3),
                kernel_init=nnx.initializers.variance_scaling(scale, "fan_in", "normal"),
                dtype=dtype,
                rngs=rngs,
            )
            for scale in scales
        )

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """An image of the same size."""
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(jax.nn.silu(norm(y))).astype(jnp.float32)
        return x + y


def group_norm(channels: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Group normalisation in groups of `GROUP` channels, or of more where that does not divide their number."""
    return nnx.GroupNorm(channels, gcd(channels, max(channels // GROUP, 1)), rngs=rngs)


def convolution_type(config: BuiltInVaeConfig) -> Any:
    """The number type of these convolutions: on a CPU float32, since XLA's are no faster in bfloat16 there."""
    return jnp.float32 if jax.default_backend() == "cpu" else compute_type(config)
