"""From stored frames to the batches of training: mirrored frames, noise in the encoder's input, weights of pixels.

None of this belongs to an auto-encoder, so all of it combines with each of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt8

from wm_jax.config.vaes import VaeConfig
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae.contract import Batch
from wm_jax.utils.errors import UserError
from wm_jax.utils.moving_pixels import median_of_five, moves
from wm_jax.utils.rare_pixels import Palette
from wm_jax.utils.sizes import SIDE

PATCHES = ((5, 10), (15, 20), (25, 30), (34, 39), (44, 49), (54, 59))
"""The rows, and the columns, of the fixed grid of noise patches: the first one and the one after the last."""
PATCH = 5
"""The side in pixels of the patches that are placed where frames are alike."""
COMMON = 0.02
"""A pixel is alike in all frames where less than this share of them differ from its median."""
SOFT = 0.02
"""Squared differences much smaller than this are mostly noise: their weight does not grow any further."""


FLIPPED = {"none": (), "left_right": (2,), "up_down": (1,), "both": (1, 2)}
"""The axes that each setting `flips` mirrors."""
FLIPS = 1000
"""The first of the random streams that decide it; they are far from those of what else has this key."""


@dataclass(frozen=True, eq=False)
class Examples:
    """How training makes its batches.

    Attributes:
      moving_weight, rare_weight: see the settings.
      palette: the game's colours; None where rare colours have no weight of their own.
      patches: bool[side, side], the pixels that are replaced by noise; None for none.
      flipped: axes of [B, rows, columns, 3] along which frames are mirrored, each for half of them.
    """

    moving_weight: float = 0.0
    rare_weight: float = 0.0
    palette: Palette | None = None
    patches: Bool[np.ndarray, "side side"] | None = None
    flipped: tuple[int, ...] = ()

    @staticmethod
    def of(config: VaeConfig, sample: UInt8[np.ndarray, "F side side 3"]) -> "Examples":
        """What the settings ask for.

        Args:
          sample: training frames; they decide which colours are rare, and where frames are alike.

        Raises:
          UserError: noise is wanted where frames are alike, and there is no such place.
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
        return Examples(config.moving_weight, config.rare_weight, palette, patches, FLIPPED[config.flips])

    def batch(self, raw: "Array | Mapping[str, Array]", key: Key[Array, ""]) -> Batch:
        """A batch of training.

        Args:
          raw: what `data.frames.Batches.fetch` gives: frames uint8 [B, 64, 64, 3], or [B, 5, 64, 64, 3] with the frames
            around each, whose median is its background (`data.neighbours`); or a mapping with one of these as `frames`
            and a `condition` [B, condition].
          key: for the noise, and what is mirrored.
        """
        given = raw if isinstance(raw, Mapping) else {"frames": raw}
        frames = given["frames"]
        around = frames if frames.ndim == 5 else None
        frames = frames if around is None else frames[:, frames.shape[1] // 2]
        weights = self._weights(frames, around)
        for axis in self.flipped:
            chosen = jax.random.bernoulli(jax.random.fold_in(key, FLIPS + axis), shape=(len(frames),))
            frames = _flip_chosen(frames, chosen, axis)
            weights = None if weights is None else _flip_chosen(weights, chosen, axis)
        noisy_input = None if self.patches is None else with_noise(to_float(frames), self.patches, key)
        return Batch(frames, noisy_input, weights, given.get("condition"))

    def _weights(self, frames: Array, around: Array | None) -> Array | None:
        weights = None
        if around is not None:
            weights = moving_weights(to_float(frames), to_float(median_of_five(around)), self.moving_weight)
        if self.palette is not None:
            rare = self.rare_weight * self.palette.rare(frames)[..., None].astype(jnp.float32)
            weights = 1.0 + rare if weights is None else weights + rare
        return weights


def _flip_chosen(pixels: Array, chosen: Bool[Array, "B"], axis: int) -> Array:
    """Pixels [B, rows, columns, _], mirrored along an axis in some rows of the batch."""
    return jnp.where(chosen[:, None, None, None], jnp.flip(pixels, axis), pixels)


def moving_weights(
    target: Float[Array, "B side side 3"], background: Float[Array, "B side side 3"], weight: float
) -> Float[Array, "B side side 1"]:
    """The weight of each pixel's error: 1, and more where the pixel moves, that is, differs from its background.

    It is 1 + weight / (d^2 + SOFT) there, with d the largest difference of a channel. So to miss a moving pixel costs
    about `weight` in squared error, however much or little it stands out: grey lines in the snow as much as white ones
    at night.
    """
    difference = target - background
    largest = jnp.max(jnp.abs(difference), axis=-1, keepdims=True)
    return jnp.where(moves(difference)[..., None], 1 + weight / (jnp.square(largest) + SOFT), 1.0)


def fixed_patches() -> Bool[np.ndarray, "side side"]:
    """A 6x6 grid of 5-pixel squares."""
    line = np.zeros(SIDE, bool)
    for first, end in PATCHES:
        line[first:end] = True
    return line[:, None] & line[None, :]


def common_patches(sample: UInt8[np.ndarray, "F side side 3"]) -> Bool[np.ndarray, "side side"]:
    """Squares of `PATCH` pixels in which nearly all frames are alike: hardly a pixel differs from its median."""
    levels = sample[:: max(len(sample) // 200, 1)].astype(np.float32) / 255
    alike = moves(levels - np.median(levels, axis=0)).mean(axis=0) < COMMON
    patches = np.zeros((SIDE, SIDE), bool)
    for row in range(0, SIDE - PATCH + 1, 2 * PATCH):
        for column in range(0, SIDE - PATCH + 1, 2 * PATCH):
            square = np.s_[row : row + PATCH, column : column + PATCH]
            patches[square] = alike[square].all()
    return patches


def with_noise(
    frames: Float[Array, "B side side 3"], patches: Bool[np.ndarray, "side side"], key: Key[Array, ""]
) -> Float[Array, "B side side 3"]:
    """Frames in [0, 1] with uniform random colours in these pixels."""
    return jnp.where(
        jnp.asarray(patches)[None, :, :, None], jax.random.uniform(key, frames.shape, frames.dtype), frames
    )
