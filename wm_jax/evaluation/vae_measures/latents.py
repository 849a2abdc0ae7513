"""What a latent is: how much it says of a frame, in which of its dimensions, and how they hang together.

N frames' latents of Z dimensions. Everything is in nats.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

ACTIVE = 0.01
"""A dimension is active whose mean varies by more than this between frames (Burda et al. 2016, appendix C)."""
LEAST_LOG_VAR = -20.0
"""Narrower posteriors are taken for this wide, so that their densities can be computed: none overlap by then."""
ROWS = 256
"""Of the table of N times N densities, at a time."""


def kl_per_dimension(mean: Float[np.ndarray, "N Z"], log_var: Float[np.ndarray, "N Z"]) -> Float64[np.ndarray, "Z"]:
    """KL(N(mean, exp(log_var)) || N(0, 1)), averaged over frames; its sum is the KL of the ELBO. NaN without frames."""
    if not len(mean):
        return np.full(mean.shape[1], np.nan)
    mean, log_var = mean.astype(np.float64), log_var.astype(np.float64)
    return 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).mean(0)  # Kingma & Welling 2014, appendix B


def effective_dimensions(kl: Float[np.ndarray, "Z"]) -> float:
    """Over how many dimensions a KL is spread: the exponential of the entropy of their shares, from 1 to Z.

    NaN where there is no KL.
    """
    total = float(kl.sum())
    return _perplexity(kl / total) if np.isfinite(total) and total > 0 else float("nan")


def active_units(mean: Float[np.ndarray, "N Z"]) -> float:
    """How many dimensions have a variance of the posterior's mean over frames above 0.01 (Burda et al. 2016,
    arXiv 1509.00519). NaN of fewer than two frames.
    """
    if len(mean) < 2 or not np.isfinite(mean).all():
        return float("nan")
    return float((mean.astype(np.float64).var(0) > ACTIVE).sum())


def mutual_information(
    mean: Float[np.ndarray, "N Z"], log_var: Float[np.ndarray, "N Z"], rng: np.random.Generator
) -> float:
    """I(x; z) = E[log q(z | x) - log q(z)], with q(z) the mixture of the N posteriors at hand, and one z of each.

    It can't be larger than log N, however much z says of a frame, for it is then enough to tell N frames apart: a
    figure near log N says "at least". NaN of fewer than two frames.
    """
    if len(mean) < 2 or not (np.isfinite(mean).all() and np.isfinite(log_var).all()):
        return float("nan")
    mean, log_var = mean.astype(np.float64), np.maximum(log_var.astype(np.float64), LEAST_LOG_VAR)
    z = mean + np.exp(log_var / 2) * rng.standard_normal(mean.shape)
    precision = np.exp(-log_var)
    own = (mean**2 * precision + log_var).sum(1)
    total = 0.0
    for start in range(0, len(z), ROWS):
        rows = z[start : start + ROWS]
        # log q(z_i | x_j), but for a constant: the square multiplied out, so that products of matrices do the work.
        density = -0.5 * (rows**2 @ precision.T - 2 * rows @ (mean * precision).T + own[None])
        itself = density[np.arange(len(rows)), start + np.arange(len(rows))]
        highest = density.max(1)
        together = highest + np.log(np.exp(density - highest[:, None]).mean(1))
        total += float((itself - together).sum())
    return total / len(z)


def total_correlation(z: Float[np.ndarray, "N Z"]) -> float:
    """How far z's dimensions are from independent, if they were Gaussian together: -1/2 log det of their correlations.

    0 where no two correlate, and without bound where some say the same. It sees no other dependence. Dimensions that do
    not vary are left out; NaN where fewer than two do, or no more frames than dimensions are given.
    """
    if not len(z) or not np.isfinite(z).all():
        return float("nan")
    varying = z[:, np.ptp(z, 0) > 0].astype(np.float64)
    if varying.shape[1] < 2 or len(z) <= varying.shape[1]:
        return float("nan")
    sign, log_det = np.linalg.slogdet(np.corrcoef(varying, rowvar=False))
    return max(-0.5 * float(log_det), 0.0) if sign > 0 else float("inf")


class Usage(NamedTuple):
    """How much of a codebook is used: by how many entries, and by how many if all of these were used alike."""

    used: float
    perplexity: float


def usage(indices: Int[np.ndarray, "N G"], classes: int, *, shared: bool) -> Usage:
    """Of latents that are G codes each, out of so many classes.

    N * G codes, or N where each has its own, can't use more entries than that. NaN without frames.

    Args:
      shared: one codebook for all G, as in a VQ-VAE; else each has its own, and the figures are means over the G.
    """
    if not indices.size:
        return Usage(float("nan"), float("nan"))
    books = indices.reshape(-1, 1) if shared else indices
    shares = [np.bincount(book, minlength=classes) / len(book) for book in books.T]
    return Usage(float(np.mean([(each > 0).sum() for each in shares])), float(np.mean([*map(_perplexity, shares)])))


def _perplexity(shares: np.ndarray) -> float:
    some = shares[shares > 0].astype(np.float64)
    return float(np.exp(-(some * np.log(some)).sum()))
