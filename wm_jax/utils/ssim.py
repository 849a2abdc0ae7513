"""The window and the constants of structural similarity (SSIM), which a loss and a measure share.

Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III.C.
"""

import numpy as np
from jaxtyping import Float64

WINDOW, SIGMA = 11, 1.5
"""The side of the Gaussian window in pixels, and the Gaussian's standard deviation."""
C1, C2 = 0.01**2, 0.03**2
"""They keep quotients defined where pictures are black or flat; for colours in [0, 1]."""


def gaussian_windows(side: int) -> Float64[np.ndarray, "windows side"]:
    """Rows of weights, each with the sum 1, that average along an axis: one for each window that lies within it.

    Args:
      side: pixels along the axis, at least `WINDOW`.
    """
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (distance / SIGMA) ** 2)
    rows = np.zeros((side - WINDOW + 1, side))
    for i, row in enumerate(rows):
        row[i : i + WINDOW] = weights / weights.sum()
    return rows
