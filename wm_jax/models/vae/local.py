"""The paper's networks without the layers that see the whole frame: each place of a 6x6 grid has a part of z.

What a small object looks like is learned once for all places, and what is said about it lies in the part of z of its
own place. Convolutions are like the paper's and use the same fast kernels; there is no large dense layer.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import GRID_SIDES, BuiltInVaeConfig
from wm_jax.models.vae.layers import ENCODER_CHANNELS, Dense
from wm_jax.models.vae.paper import Encoder, TransposedStack, decoder_channels
from wm_jax.models.vae.places import PlacedHead, PlacedStart

GRID_SIDE = GRID_SIDES["local"]
"""What three of the paper's convolutions make of 64 pixels."""
PLACES = GRID_SIDE * GRID_SIDE
KERNELS = (3, 6, 6)
"""Pixels of the decoder's kernels' sides: from 6 pixels to 13, and then as in the paper to 30 and 64."""


class LocalEncoder(Encoder):
    """Frames to F = 36 * 128 * width features: three k4 s2 convolutions with ReLU. A place sees 22x22 pixels."""

    channels = ENCODER_CHANNELS[:3]

    def __init__(self, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.config = config

    def head(self, outputs: int, rngs: nnx.Rngs) -> "Dense | PlacedHead":
        """A layer from the features to numbers of each place, those of the first place first, and of the frame."""
        return PlacedHead(PLACES, self.features, outputs, self.config, rngs)


class LocalDecoder(TransposedStack):
    """Inputs, such as z, to frames: one layer for each place, three transposed convolutions, sigmoid."""

    def __init__(self, inputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs, context: int = 0):
        channels = decoder_channels(config)
        self.start = PlacedStart(PLACES, inputs, context, channels[0], config, rngs)
        super().__init__(GRID_SIDE, KERNELS, channels, config, rngs)

    def __call__(
        self, z: Float[Array, "B I"], context: Float[Array, "B context"] | None = None
    ) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.frames(jax.nn.relu(self.start(z, context).reshape(len(z), GRID_SIDE, GRID_SIDE, -1)))
