"""From frames as they are stored to what a loss is given: noise in what is encoded, weights of what is to be drawn.

None of it belongs to an auto-encoder, so each of them can be combined with all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt8

from wm_jax.config.vaes import VaeConfig
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae.contract import Batch
from wm_jax.utils.errors import UserError
from wm_jax.utils.moving_pixels import MOVED
from wm_jax.utils.rare_pixels import Palette
from wm_jax.utils.sizes import SIDE

PATCHES = ((5, 10), (15, 20), (25, 30), (34, 39), (44, 49), (54, 59))
"""Rows, and columns, of the fixed noise patches: first and one past the last."""
PATCH = 5
"""Side of a patch where the frames say where they lie."""
SOFT = 0.02
"""Below a squared difference of about this, pixels count by their difference again: much of it is noise."""


@dataclass(frozen=True, eq=False)
class Examples:
    """How a training makes its batches.

    Attributes:
      moving_weight, rare_weight: see the settings.
      palette: the game's colours; None where rare ones count like others.
      patches: bool[side, side], the pixels that become noise; None for none.
    """

    moving_weight: float = 0.0
    rare_weight: float = 0.0
    palette: Palette | None = None
    patches: Bool[np.ndarray, "side side"] | None = None

    @staticmethod
    def of(config: VaeConfig, sample: UInt8[np.ndarray, "F side side 3"]) -> "Examples":
        """What the settings ask for.

        Args:
          sample: training frames, which say what colours are rare, and where frames are alike.

        Raises:
          UserError: the frames are nowhere alike.
        """
        palette = Palette.of(sample) if config.rare_weight else None
        patches = None
        if config.noise_patches == "common":
            patches = common_patches(sample)
            if not patches.any():
                raise UserError(
                    "--vae.noise_patches common: this game's frames are nowhere alike; give true for a fixed grid"
                )
        elif config.noise_patches:
            patches = fixed_patches()
        return Examples(config.moving_weight, config.rare_weight, palette, patches)

    def batch(self, raw: Any, key: Key[Array, ""]) -> Batch:
        """A batch of training.

        Args:
          raw: uint8 [B, 64, 64, 3]; or [B, 5, 64, 64, 3] with the frames around each, whose median is its background
            (`data.neighbours`); or a mapping with these as `frames`, and a `condition` [B, K].
          key: of the noise.
        """
        given = raw if isinstance(raw, Mapping) else {"frames": raw}
        frames = given["frames"]
        around = frames if frames.ndim == 5 else None
        frames = frames if around is None else frames[:, frames.shape[1] // 2]
        noised = None if self.patches is None else with_noise(to_float(frames), self.patches, key)
        return Batch(frames, noised, self._weights(frames, around), given.get("condition"))

    def _weights(self, frames: Array, around: Array | None) -> Array | None:
        weights = None
        if around is not None:
            weights = moving_weights(to_float(frames), to_float(background(around)), self.moving_weight)
        if self.palette is not None:
            rare = self.rare_weight * self.palette.rare(frames)[..., None].astype(jnp.float32)
            weights = 1.0 + rare if weights is None else weights + rare
        return weights


def background(around: UInt8[Array, "B 5 side side 3"]) -> UInt8[Array, "B side side 3"]:
    """The median of five frames, by minima and maxima alone: sorting takes far longer."""
    a, b, c, d, e = (around[:, i] for i in range(5))
    # The lowest and the highest of the first four are no median of five; it is that of the other two and the fifth.
    low = jnp.maximum(jnp.minimum(a, b), jnp.minimum(c, d))
    high = jnp.minimum(jnp.maximum(a, b), jnp.maximum(c, d))
    return jnp.maximum(jnp.minimum(low, high), jnp.minimum(jnp.maximum(low, high), e))


def moving_weights(
    target: Float[Array, "B side side 3"], still: Float[Array, "B side side 3"], weight: float
) -> Float[Array, "B side side 1"]:
    """What the error of each pixel counts: 1, and more where the pixel moves, that is, differs from its background.

    weight / (d^2 + SOFT), with d the largest difference of a channel: to lose a moving pixel costs about `weight`,
    however much or little it stands out. Grey lines in the snow then count as white ones at night.
    """
    difference = jnp.max(jnp.abs(target - still), axis=-1, keepdims=True)
    return jnp.where(difference > MOVED, 1 + weight / (jnp.square(difference) + SOFT), 1.0)


def fixed_patches() -> Bool[np.ndarray, "side side"]:
    """A 6x6 grid of 5-pixel squares."""
    line = np.zeros(SIDE, bool)
    for first, end in PATCHES:
        line[first:end] = True
    return line[:, None] & line[None, :]


def common_patches(sample: UInt8[np.ndarray, "F side side 3"]) -> Bool[np.ndarray, "side side"]:
    """Squares of `PATCH` pixels in each of which nearly all frames are alike: hardly a pixel moves from its median."""
    levels = sample[:: max(len(sample) // 200, 1)].astype(np.float32) / 255
    apart = np.abs(levels - np.median(levels, axis=0)).max(axis=-1) > MOVED
    alike = apart.mean(axis=0) < COMMON
    patches = np.zeros((SIDE, SIDE), bool)
    for row in range(0, SIDE - PATCH + 1, 2 * PATCH):
        for column in range(0, SIDE - PATCH + 1, 2 * PATCH):
            square = np.s_[row : row + PATCH, column : column + PATCH]
            patches[square] = alike[square].all()
    return patches


COMMON = 0.02
"""A pixel is common to all frames where fewer than this part of them differ from its median by more than `MOVED`."""


def with_noise(
    frames: Float[Array, "B side side 3"], patches: Bool[np.ndarray, "side side"], key: Key[Array, ""]
) -> Float[Array, "B side side 3"]:
    """Frames in [0, 1] with uniform random colours in these pixels."""
    return jnp.where(
        jnp.asarray(patches)[None, :, :, None], jax.random.uniform(key, frames.shape, frames.dtype), frames
    )
