"""How near reconstructions are to frames: the error of all pixels, and of small objects alone.

There is one figure for each frame, to be averaged by the caller. Frames are as stored; reconstructions are uint8 too,
or floats in [0, 1]. `utils.moving_pixels` measures which share of all movement is reproduced.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, UInt8

from wm_jax.utils import moving_pixels
from wm_jax.utils.rare_pixels import Palette
from wm_jax.utils.ssim import C1, C2, WINDOW, gaussian_windows

Frames = UInt8[np.ndarray, "F side side 3"]
Decoded = UInt8[np.ndarray, "F side side 3"] | Float[np.ndarray, "F side side 3"]

FINEST = 1 / 255**2 / 12
"""The mean squared error of rounding to 255 levels: stored frames are not known any better."""
CHUNK = 64
"""Frames that are converted to floats at a time."""


def squared_error(frames: Frames, decoded: Decoded) -> Float64[np.ndarray, "F"]:
    """Squared error summed over a frame's pixels and channels, as in the losses."""
    return _per_frame(len(frames), (np.square(a - b).sum((1, 2, 3), np.float64) for a, b in _pairs(frames, decoded)))


def psnr(frames: Frames, decoded: Decoded) -> Float64[np.ndarray, "F"]:
    """Peak signal to noise ratio, in decibels: -10 log10 of the mean squared error of a frame's levels in [0, 1].

    It is at most 58.9, that of rounding (`FINEST`): for an exact reconstruction it would be infinite, and so would
    every mean.
    """
    mean = squared_error(frames, decoded) / max(int(np.prod(frames.shape[1:])), 1)
    return -10 * np.log10(np.maximum(mean, FINEST))


def ssim(frames: Frames, decoded: Decoded) -> Float64[np.ndarray, "F"]:
    """Structural similarity (Wang et al. 2004, "Image Quality Assessment"): 1 where both are equal, else less.

    Their equation 13 in a Gaussian window of 11 pixels for each channel; averaged over channels and over all windows
    that lie within the frame. NaN where frames are smaller than the window.
    """
    side = frames.shape[1]
    if side < WINDOW:
        return np.full(len(frames), np.nan)
    blur = gaussian_windows(side)

    def of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = (np.ascontiguousarray(np.moveaxis(each, 3, 1), np.float64) for each in (x, y))
        mean_x, mean_y, squares, product = (blur @ each @ blur.T for each in (x, y, x * x + y * y, x * y))
        means = mean_x**2 + mean_y**2
        variances, covariance = squares - means, product - mean_x * mean_y
        similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
        return (similarity / ((means + C1) * (variances + C2))).mean((1, 2, 3))

    return _per_frame(len(frames), (of(x, y) for x, y in _pairs(frames, decoded)))


class PixelError(NamedTuple):
    """The error of chosen pixels of F frames.

    pixels: float64[F], how many are chosen.
    squared: float64[F], their squared errors, summed over pixels and channels.
    """

    pixels: Float64[np.ndarray, "F"]
    squared: Float64[np.ndarray, "F"]

    @property
    def mean(self) -> float:
        """The mean error of a pixel, summed over its three channels; all pixels of all frames weigh the same.

        NaN without pixels.
        """
        pixels = float(self.pixels.sum())
        return float(self.squared.sum()) / pixels if pixels else float("nan")

    @staticmethod
    def concatenate(parts: "Sequence[PixelError]") -> "PixelError":
        """The errors of several stretches of frames, one after the other."""
        return PixelError(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def moving_error(
    frames: UInt8[np.ndarray, "T side side 3"],
    decoded: UInt8[np.ndarray, "T side side 3"] | Float[np.ndarray, "T side side 3"],
    places: Int[np.ndarray, "F"],
) -> PixelError:
    """The error of moving pixels, which differ by more than 0.1 in some channel from the median of the frames around.

    Unlike `moving_pixels.Moving.missed`, this is the error of the picture itself, not of how it changes.

    Args:
      frames: consecutive frames of an episode; those within 25 steps count as around.
      places: indices of the frames to look at; the background of each takes some milliseconds.
    """
    chosen = np.array([_moves(frames, place) for place in places.tolist()], bool)
    return _pixel_error(frames[places], decoded[places], chosen.reshape(len(places), *frames.shape[1:3]))


def rare_error(frames: Frames, decoded: Decoded, palette: Palette) -> PixelError:
    """The error of pixels with one of the game's rarest colours, which together cover 2 % of its pixels.

    Args:
      palette: the game's colours, the same for all auto-encoders that are compared.
    """
    return _pixel_error(frames, decoded, palette.rare(frames))


def as_floats(frames: Decoded) -> Float32[np.ndarray, "F side side 3"]:
    """Frames as floats in [0, 1]."""
    return frames.astype(np.float32) / np.float32(255) if frames.dtype == np.uint8 else frames.astype(np.float32)


def _moves(frames: np.ndarray, place: int) -> np.ndarray:
    return moving_pixels.moves(moving_pixels.difference(frames, place))


def _pixel_error(frames: np.ndarray, decoded: np.ndarray, chosen: Bool[np.ndarray, "F side side"]) -> PixelError:
    """The error of the chosen pixels."""
    each = (np.square(a - b).sum(-1, np.float64) for a, b in _pairs(frames, decoded))
    squared = ((error * chosen[i * CHUNK : (i + 1) * CHUNK]).sum((1, 2)) for i, error in enumerate(each))
    return PixelError(chosen.sum((1, 2)).astype(np.float64), _per_frame(len(frames), squared))


def _pairs(frames: np.ndarray, decoded: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames and reconstructions as floats, `CHUNK` at a time."""
    for start in range(0, len(frames), CHUNK):
        yield as_floats(frames[start : start + CHUNK]), as_floats(decoded[start : start + CHUNK])


def _per_frame(count: int, parts: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts)) if count else np.zeros(0)
