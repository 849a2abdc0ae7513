"""Measures of latents: how much z says about a frame, in which of its dimensions, and how these depend on each other.

All take the latents of N frames, of Z dimensions. Everything is in nats.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

ACTIVE = 0.01
"""A dimension is active if the variance of its posterior mean over frames is above this (Burda et al. 2016, 5.2)."""
LEAST_LOG_VAR = -20.0
"""Narrower posteriors are widened to this log variance, so that their densities can be computed: none overlap then."""
ROWS = 256
"""Rows of the N times N densities that are computed at a time."""


def kl_per_dimension(mean: Float[np.ndarray, "N Z"], log_var: Float[np.ndarray, "N Z"]) -> Float64[np.ndarray, "Z"]:
    """KL(N(mean, exp(log_var)) || N(0, 1)), averaged over frames; its sum is the KL of the ELBO. NaN without frames."""
    if not len(mean):
        return np.full(mean.shape[1], np.nan)
    mean, log_var = mean.astype(np.float64), log_var.astype(np.float64)
    return 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).mean(0)  # Kingma & Welling 2014, appendix B


def effective_dimensions(kl: Float[np.ndarray, "Z"]) -> float:
    """The number of dimensions that a KL is spread over, from 1 to Z: exp(entropy) of the dimensions' shares of it.

    NaN where the KL is 0.
    """
    total = float(kl.sum())
    return _perplexity(kl / total) if np.isfinite(total) and total > 0 else float("nan")


def active_units(mean: Float[np.ndarray, "N Z"]) -> float:
    """How many dimensions are active: their posterior means have a variance over frames above `ACTIVE`.

    Burda et al. 2016 (arXiv 1509.00519), section 5.2. NaN for fewer than two frames, or means that are not finite.
    """
    if len(mean) < 2 or not np.isfinite(mean).all():
        return float("nan")
    return float((mean.astype(np.float64).var(0) > ACTIVE).sum())


def mutual_information(
    mean: Float[np.ndarray, "N Z"], log_var: Float[np.ndarray, "N Z"], rng: np.random.Generator
) -> float:
    """I(x; z) = E[log q(z | x) - log q(z)], where q(z) is the mixture of the N posteriors, with one z of each.

    It is at most log N, however much z says about a frame, since that is enough to tell N frames apart: read a figure
    near log N as "at least". NaN for fewer than two frames.
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
        # log q(z_i | x_j) up to a constant. The square is multiplied out, so that matrix products do the work.
        density = -0.5 * (rows**2 @ precision.T - 2 * rows @ (mean * precision).T + own[None])
        itself = density[np.arange(len(rows)), start + np.arange(len(rows))]
        highest = density.max(1)
        together = highest + np.log(np.exp(density - highest[:, None]).mean(1))
        total += float((itself - together).sum())
    return total / len(z)


def total_correlation(z: Float[np.ndarray, "N Z"]) -> float:
    """The total correlation of z's dimensions if they were jointly Gaussian: -1/2 log det of their correlation matrix.

    It is 0 if no two correlate, and infinite if one is a linear function of others; other dependence is not seen.
    Dimensions that do not vary are left out. NaN where fewer than two vary, or there are not more frames than
    dimensions.
    """
    if not len(z) or not np.isfinite(z).all():
        return float("nan")
    varying = z[:, np.ptp(z, 0) > 0].astype(np.float64)
    if varying.shape[1] < 2 or len(z) <= varying.shape[1]:
        return float("nan")
    sign, log_det = np.linalg.slogdet(np.corrcoef(varying, rowvar=False))
    return max(-0.5 * float(log_det), 0.0) if sign > 0 else float("inf")


class Usage(NamedTuple):
    """How much of a codebook is used.

    used: entries that are used at all.
    perplexity: exp(entropy), the number of entries with the same entropy if all were used equally often.
    """

    used: float
    perplexity: float


def usage(indices: Int[np.ndarray, "N G"], classes: int, *, shared: bool) -> Usage:
    """The usage of the codebook by latents that consist of G codes.

    N frames cannot use more entries than they have codes: N * G of a shared codebook, else N. NaN without frames.

    Args:
      classes: entries of a codebook.
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
