"""Deeper networks: residual blocks with group normalisation; and the same with a part of z for each place of a grid.

He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027); Wu & He 2018, "Group Normalization"
(arXiv 1803.08494), which normalises each frame by itself, so that nothing depends on the batch; SiLU for ReLU. Between
blocks 2x2 pixels become one or one 2x2, so that it is blocks alone that look around: a place of the grid stays one.
They have the paper's interface (`networks.py`): `features`, `head`, and the call.
"""

from itertools import pairwise
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.models.vae.layers import Dense, EachPlace, compute_type, scaled, shared_out

CHANNELS = (32, 64, 128, 256)
"""At sides 32, 16, 8 and 4."""
SIDE = 4
"""Of the smallest image, and of the grid."""
PLACES = SIDE * SIDE
GROUP = 16
"""Channels that are normalised together, where their number allows it (Wu & He 2018, table 3)."""


class ResidualEncoder(nnx.Module):
    """Frames to F = 16 * 256 * width features: four times half the side, and after each a residual block."""

    def __init__(self, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        dtype = multiplied_in(config)
        self.halvings, self.blocks = nnx.List(), nnx.List()
        for inputs, outputs in pairwise((3, *(scaled(count, config) for count in CHANNELS))):
            self.halvings.append(nnx.Conv(inputs, outputs, (2, 2), strides=2, dtype=dtype, rngs=rngs))
            self.blocks.append(Block(outputs, dtype, rngs))
        self.channels = scaled(CHANNELS[-1], config)
        self.norm = group_norm(self.channels, rngs)
        self.features = PLACES * self.channels

    def head(self, outputs: int, rngs: nnx.Rngs) -> "Dense | EachPlace":
        """A layer from the features to so many numbers, such as the means of z."""
        return Dense(self.features, outputs, rngs)

    def __call__(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B F"]:
        """The features of frames in [0, 1]."""
        x = frames
        for halving, block in zip(self.halvings, self.blocks, strict=True):
            x = block(halving(x).astype(jnp.float32))
        return jax.nn.silu(self.norm(x)).reshape(len(frames), self.features)


class ResidualDecoder(nnx.Module):
    """Inputs, such as z, to frames: to a 4x4 image, four times a residual block and twice the side; sigmoid."""

    def __init__(self, inputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        dtype = multiplied_in(config)
        channels = tuple(scaled(count, config) for count in reversed(CHANNELS))
        self.start = self._start(inputs, channels[0], rngs)
        self.blocks, self.doublings = nnx.List(), nnx.List()
        for inner, outer in pairwise((*channels, 3)):
            self.blocks.append(Block(inner, dtype, rngs))
            self.doublings.append(nnx.ConvTranspose(inner, outer, (2, 2), strides=(2, 2), dtype=dtype, rngs=rngs))
        self.norm = group_norm(channels[-1], rngs)

    def _start(self, inputs: int, channels: int, rngs: nnx.Rngs) -> "Dense | EachPlace":
        """The layer from the inputs to the 4x4 image."""
        return Dense(inputs, PLACES * channels, rngs)

    def __call__(self, z: Float[Array, "B I"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        x = self.start(z).reshape(len(z), SIDE, SIDE, -1)
        for place, (block, doubling) in enumerate(zip(self.blocks, self.doublings, strict=True)):
            x = block(x)
            last = place == len(self.blocks) - 1
            x = doubling(jax.nn.silu(self.norm(x)) if last else x).astype(jnp.float32)
        return jax.nn.sigmoid(x)


class GridEncoder(ResidualEncoder):
    """Residual; but what it says of each place of a 4x4 grid is read by one layer for all places, from there alone."""

    def head(self, outputs: int, rngs: nnx.Rngs) -> "Dense | EachPlace":
        """A layer to outputs / 16 numbers for each place: first those of the first place, then of the second."""
        return EachPlace(PLACES, self.channels, shared_out(outputs, PLACES, "encoder grid"), rngs)


class GridDecoder(ResidualDecoder):
    """Residual; but each place of the 4x4 image it starts from is made of that place's part of z."""

    def _start(self, inputs: int, channels: int, rngs: nnx.Rngs) -> "Dense | EachPlace":
        return EachPlace(PLACES, shared_out(inputs, PLACES, "decoder grid"), channels, rngs)


class Block(nnx.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))): He et al. 2016, figure 4 (e)."""

    def __init__(self, channels: int, dtype: Any, rngs: nnx.Rngs):
        self.norms = nnx.List(group_norm(channels, rngs) for _ in range(2))
        # At first a block adds next to nothing, so that depth costs nothing (as in Goyal et al. 2017, 5.1).
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
    """In groups of `GROUP` channels, or of more where that does not divide their number."""
    return nnx.GroupNorm(channels, gcd(channels, max(channels // GROUP, 1)), rngs=rngs)


def multiplied_in(config: BuiltInVaeConfig) -> Any:
    """What convolutions multiply in: on CPU float32, since they are XLA's, which is no faster in bfloat16 there."""
    return jnp.float32 if jax.default_backend() == "cpu" else compute_type(config)
