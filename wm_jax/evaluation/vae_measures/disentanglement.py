"""Whether each factor of the game's state has a dimension of z of its own: MIG, SAP and DCI.

z is [N, Z] and the state [N, K], all numbers; see `probes` for what to give. Factors that do not vary are left out.
High figures mean nothing by themselves: read them beside what the probes recover. They say what a person can read from
single dimensions, not what M or C can.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Num

from wm_jax.evaluation.vae_measures.probes import r_squared, ridge, standardised

BINS = 20
"""Bins of equal width, for the entropies of MIG. A factor with no more values than that is not binned."""


def mig(z: Num[np.ndarray, "N Z"], factors: Num[np.ndarray, "N K"]) -> float:
    """The mutual information gap (Chen et al. 2018, arXiv 1802.04942, eq. 6).

    It is 1 where every factor can be read from one dimension and from no other, 0 where the second-best dimension says
    as much about it. If z has one dimension, the second counts as saying nothing. NaN where no factor varies.
    """
    if not _can_be_read(z, factors):
        return float("nan")
    codes = np.stack([_binned(each) for each in z.T.astype(np.float64)], axis=1)
    gaps = []
    for factor in factors.T:
        values = np.unique(factor, return_inverse=True)[1]
        values = values if values.max() < BINS else _binned(factor.astype(np.float64))
        own = _entropy(np.bincount(values))
        if own > 0:
            gaps.append(_gap(np.array([_information(code, values) for code in codes.T])) / own)
    return _mean(gaps)


def sap(z: Num[np.ndarray, "N Z"], factors: Num[np.ndarray, "N K"]) -> float:
    """Separated attribute predictability (Kumar et al. 2018, arXiv 1711.00848, section 3).

    It is how much more of a factor's variance the best single dimension predicts, linearly, than the second-best,
    averaged over factors. Factors with few values are predicted as numbers, too; the paper takes the accuracy of a
    classifier, by which a factor with two values can reach at most 1/2. NaN where no factor varies.
    """
    if not _can_be_read(z, factors):
        return float("nan")
    z, factors = _scaled(z), _scaled(factors)
    explained = np.square(z.T @ factors / len(z))  # [Z, K]: with one number, R^2 is the squared correlation
    return _mean([_gap(each) for each in explained[:, np.square(factors).sum(0) > 0].T])


class Dci(NamedTuple):
    """Eastwood & Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled Representations".

    disentanglement: 1 where every dimension is used for one factor, 0 where each is used for all factors equally.
      Dimensions weigh as much as they are used. NaN where fewer than two factors vary.
    completeness: 1 where every factor is read from one dimension, 0 where from all dimensions equally; averaged over
      factors. NaN where z has one dimension.
    informativeness: R^2 on held-out frames, averaged over factors. The paper gives the error: this is 1 minus its
      square.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def dci(z: Num[np.ndarray, "N Z"], factors: Num[np.ndarray, "N K"], held_out: Bool[np.ndarray, "N"]) -> Dci:
    """DCI by the weights of a linear regression: a dimension is used for a factor as much as its weight is large.

    The regression is `probes.ridge`, where the paper has a lasso or trees. Random weights are not equal, either: for
    dimensions that say nothing, or a random rotation of z, disentanglement is about 0.3 / log K above 0, and
    completeness 0.3 / log Z. NaN as in `probes`.
    """
    varying = np.ptp(factors[~held_out], 0) > 0 if (~held_out).any() else np.zeros(factors.shape[1], bool)
    data = standardised(z, factors[:, varying], held_out)
    if data is None or not varying.any():
        return Dci(float("nan"), float("nan"), float("nan"))
    weights = ridge(data.z, data.factors, one_penalty=True)
    score = r_squared(data.test_factors, data.test_z @ weights)
    return Dci(*_dci(np.abs(weights)), _mean(score[np.isfinite(score)]))


def _dci(importance: Float64[np.ndarray, "Z K"]) -> tuple[float, float]:
    """Disentanglement and completeness (section 2 there), by how much each dimension is used for each factor."""
    dimensions, factors = importance.shape
    of_dimensions, of_factors = importance.sum(1), importance.sum(0)
    disentangled = complete = float("nan")
    if factors > 1 and of_dimensions.any():
        each = [1 - _entropy(row) / np.log(factors) for row in importance[of_dimensions > 0]]
        disentangled = float(np.average(each, weights=of_dimensions[of_dimensions > 0]))
    if dimensions > 1 and of_factors.any():
        complete = _mean([1 - _entropy(column) / np.log(dimensions) for column in importance.T[of_factors > 0]])
    return disentangled, complete


def _can_be_read(z: np.ndarray, factors: np.ndarray) -> bool:
    return min(z.size, factors.size) > 0 and bool(np.isfinite(z).all() and np.isfinite(factors).all())


def _binned(values: np.ndarray) -> Int[np.ndarray, "N"]:
    """The index of the bin that each value lies in."""
    low, reach = values.min(), np.ptp(values)
    return np.minimum((values - low) / (reach if reach > 0 else 1.0) * BINS, BINS - 1).astype(np.int64)


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """The mutual information of two arrays of bin indices, in nats."""
    both = np.bincount(a * BINS + b, minlength=BINS * BINS).reshape(BINS, BINS)
    return _entropy(both.sum(1)) + _entropy(both.sum(0)) - _entropy(both)


def _entropy(counts: np.ndarray) -> float:
    """The entropy of a distribution in proportion to these counts, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _gap(values: np.ndarray) -> float:
    """The difference between the largest value and the second-largest, or 0 in its place."""
    second, first = np.sort(np.append(values, 0.0))[-2:]
    return float(first - second)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; 0 where a column does not vary."""
    values = values.astype(np.float64)
    varies = np.ptp(values, 0) > 0
    return np.where(varies[None], (values - values.mean(0)[None]) / np.where(varies, values.std(0), 1.0)[None], 0.0)


def _mean(values: "list[float] | np.ndarray") -> float:
    return float(np.mean(values)) if len(values) else float("nan")
