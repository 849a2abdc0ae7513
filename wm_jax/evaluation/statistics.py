"""What is said of the scores of a player's episodes: the one definition of each figure, wherever one is given.

The interval is Student's: mean -+ t(0.975, n - 1) s / sqrt(n). It is exact for normal scores. In simulation (2,000
samples each) it covered the true mean at n = 5, 20 and 100 in

    normal scores        94 %, 95 %, 95 %
    lognormal, 0.5       93 %, 92 %, 95 %
    exponential          89 %, 92 %, 94 %

A percentile bootstrap covered 78 % to 83 %, 90 % to 92 % and 94 %. A bootstrap of t covered up to four points more of
skewed scores, but at n = 5 its intervals were 1.3 to 1.6 times as wide (median), and unbounded where scores repeat.
"""

from typing import Any

import numpy as np
from scipy.special import stdtrit

STATISTICS = ("mean", "std", "median", "min", "max", "ci_low", "ci_high")
"""The figures of `statistics`, in its order, but for the number of episodes."""
APPROXIMATE_BELOW = 20
"""Episodes: an interval of fewer is called approximate, for scores are skewed more often than normal."""


def statistics(scores: np.ndarray) -> dict[str, Any]:
    """The figures of one score an episode, float[n], n > 0, rounded to 0.001: see `STATISTICS`, and `episodes`, n.

    The standard deviation divides by n - 1. ci_low and ci_high are the ends of the 95 % interval of the mean. A single
    episode says nothing about the spread: its standard deviation and its interval are None.
    """
    scores = np.asarray(scores, np.float64)
    error = half_width(scores)
    mean = float(scores.mean())
    spread = None if error is None else float(scores.std(ddof=1))
    ends = (None, None) if error is None else (mean - error, mean + error)
    figures = (mean, spread, float(np.median(scores)), float(scores.min()), float(scores.max()), *ends)
    rounded = (None if figure is None else round(figure, 3) for figure in figures)
    return {"episodes": len(scores), **dict(zip(STATISTICS, rounded, strict=True))}


def standard_error(scores: np.ndarray) -> float | None:
    """Of the mean of float[n]: s / sqrt(n), with n - 1 in s; None of a single score."""
    return None if len(scores) < 2 else float(np.std(scores, ddof=1, dtype=np.float64) / np.sqrt(len(scores)))


def half_width(scores: np.ndarray) -> float | None:
    """Of the 95 % interval of the mean, which is mean -+ this; None of a single score."""
    error = standard_error(scores)
    return None if error is None else float(stdtrit(len(scores) - 1, 0.975)) * error


def is_approximate(episodes: int) -> bool:
    """Are these too few episodes for an interval that covers what it says?"""
    return episodes < APPROXIMATE_BELOW
