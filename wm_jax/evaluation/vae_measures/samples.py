"""How far frames that are decoded from the prior are from real ones, without a network that must be downloaded.

These are three distances between two sets of frames. Two compare features of a convolutional network with fixed random
weights: the Fréchet distance between Gaussians fitted to them (Heusel et al. 2017, arXiv 1706.08500, eq. 6), and the
squared maximum mean discrepancy with a cubic kernel (Bińkowski et al. 2018, arXiv 1801.01401, section 4). The third is
the sliced Wasserstein distance between patches of three sizes (Karras et al. 2018, arXiv 1710.10196, section 5).

None of them is an FID or KID: a random network knows no objects. For pictures unlike ImageNet's its features tell sets
apart as well (Naeem et al. 2020, arXiv 2002.09797, section 5), but the numbers mean nothing by themselves. They order
auto-encoders on the same real frames and with the same number of samples; the distance between two halves of the real
frames says which differences are chance.

The Fréchet distance between 500 frames of random play and 500 frames of another one, changed in several ways:

                                     Breakout   Ms. Pac-Man   Enduro
    unchanged                           0.026         0.016    0.018
    noise of 25 of 255                  0.35          0.32     0.41
    blurred by a Gaussian of 1 pixel    0.30          1.42     0.29
    one frame 500 times                 0.088         0.16     3.0
    all that moves taken out            0.075         0.11     2.5

So all of these differ from chance, but sharpness weighs more than variety where little of a game's picture changes, and
small objects weigh least: `pictures` shows sooner that they are missing.
"""

import itertools
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, UInt8

from wm_jax.evaluation.vae_measures.pictures import as_floats
from wm_jax.models.preprocess import to_float
from wm_jax.utils.arrays import evenly_spaced, in_batches

Frames = UInt8[np.ndarray, "_ side side 3"]

SEED = 20180327
"""Of the network, the directions and the patches: always the same, so that all figures compare."""
CHANNELS = (3, 16, 32, 64)
"""Channels of the network's input and layers. Features are the last layer's means and maxima over the picture."""
KERNEL, STRIDE = 4, 2
BATCH = 64
"""Frames that the network is given at a time."""

PATCH, PATCHES = 7, 16
"""The side of a patch in pixels, and how many patches are taken of each frame and scale."""
SCALES = (1, 2, 4)
"""Before patches are taken, so many pixels along each side are averaged to one."""
DIRECTIONS = 128
"""Random directions on which patches are projected."""


class Distances(NamedTuple):
    """The three distances between two sets of frames; see above."""

    frechet: float
    mmd: float
    sliced_wasserstein: float


def distances(real: Frames, drawn: Frames) -> Distances:
    """All three distances. NaN where a set has fewer than two frames."""
    a, b = features(real), features(drawn)
    return Distances(frechet(a, b), cubic_mmd(a, b), sliced_wasserstein(real, drawn))


def features(frames: Frames) -> Float64[np.ndarray, "_ 128"]:
    """The features of each frame by the random network."""
    if not len(frames):
        return np.zeros((0, 2 * CHANNELS[-1]))
    return in_batches(lambda piece, _: _features(_weights(), piece), frames, BATCH).astype(np.float64)


def frechet(a: Float[np.ndarray, "_ D"], b: Float[np.ndarray, "_ D"]) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^1/2), of means and covariances.

    Fewer rows make it larger, so only figures of the same numbers of rows compare. NaN for fewer than two.
    """
    if not _enough(a, b):
        return float("nan")
    cov_a, cov_b = (np.cov(each, rowvar=False).reshape(each.shape[1], -1) for each in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[None]) @ vectors.T
    # C_a C_b has the eigenvalues of this symmetric product.
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0.0)).sum()
    distance = float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * overlap)
    return max(distance, 0.0)


def cubic_mmd(a: Float[np.ndarray, "_ D"], b: Float[np.ndarray, "_ D"]) -> float:
    """Squared maximum mean discrepancy with the cubic kernel (x y / D + 1)^3.

    The estimate is unbiased: for two sets of the same distribution it is 0 on average, so sometimes below. NaN for
    fewer than two rows.
    """
    if not _enough(a, b):
        return float("nan")
    aa, bb, ab = ((x @ y.T / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = sum((each.sum() - np.trace(each)) / (len(each) * (len(each) - 1)) for each in (aa, bb))
    return float(within - 2 * ab.mean())


def sliced_wasserstein(real: Frames, drawn: Frames) -> float:
    """The mean distance between patches' sorted projections on random directions, over directions and scales.

    Of the larger set, evenly spaced frames are taken. NaN for fewer than two frames, or frames smaller than a patch.
    """
    side = real.shape[1]
    scales = [scale for scale in SCALES if side % scale == 0 and side // scale >= PATCH]
    count = min(len(real), len(drawn))
    if count < 2 or not scales:
        return float("nan")
    rng = np.random.default_rng(SEED)
    chosen = [each[evenly_spaced(len(each), count)] for each in (real, drawn)]
    found = []
    for scale in scales:
        directions = rng.standard_normal((PATCH * PATCH * 3, DIRECTIONS)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=0)[None]
        corners = rng.integers(0, side // scale - PATCH + 1, (2, count, PATCHES))
        a, b = (np.sort((_patches(each, scale, corners) @ directions).T, axis=1) for each in chosen)
        found.append(np.abs(a - b).mean(dtype=np.float64))
    return float(np.mean(found))


def _enough(a: np.ndarray, b: np.ndarray) -> bool:
    return min(len(a), len(b)) >= 2 and bool(np.isfinite(a).all() and np.isfinite(b).all())


def _patches(frames: np.ndarray, scale: int, corners: np.ndarray) -> Float32[np.ndarray, "patches numbers"]:
    """The patches of downscaled frames whose upper left pixels are at the corners, int[2, F, PATCHES]: row, column."""
    size = frames.shape[1] // scale
    row, column = (each[..., None] + np.arange(PATCH) for each in corners)
    pieces = []
    for start in range(0, len(frames), BATCH):
        here = slice(start, start + BATCH)
        small = as_floats(frames[here]).reshape(-1, size, scale, size, scale, 3).mean((2, 4))
        which = np.arange(len(small))[:, None, None, None]
        pieces.append(small[which, row[here][..., :, None], column[here][..., None, :]])
    return np.concatenate(pieces).reshape(-1, PATCH * PATCH * 3)


@cache
def _weights() -> tuple[Float32[np.ndarray, "rows columns inputs outputs"], ...]:
    """Normal weights of each layer, which keep the activations' variance (He et al. 2015, arXiv 1502.01852)."""
    rng = np.random.default_rng(SEED)
    shapes = [(KERNEL, KERNEL, inputs, outputs) for inputs, outputs in itertools.pairwise(CHANNELS)]
    return tuple((rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))).astype(np.float32) for shape in shapes)


@jax.jit
def _features(weights: tuple[Array, ...], frames: Array) -> Array:
    x = to_float(frames) - 0.5
    for each in weights:
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(x, each, (STRIDE, STRIDE), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        )
    return jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=1)
