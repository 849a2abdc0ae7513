"""What of the game's state can be read from z: by a linear regression, and by a small network.

z is [N, Z] and the state [N, K]: positions, speeds, counts, all taken as numbers (an unordered class must be given as
one column for each value). Consecutive frames are nearly the same, so whole episodes are held out (`held_out`). Each
figure is R^2 on these, the share of a factor's variance that is predicted: 1 is perfect, 0 no better than the mean,
negative is worse. NaN where a factor does not vary, nothing is left to train on or to hold out, or z is not finite.

For Gaussian latents give samples rather than means. A dimension that is mere noise to the decoder also has a mean that
varies a little, and a probe would read it, however little it varies.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float64, Int, Num

HELD_OUT = 0.25
"""The share of all episodes that probes are tested on."""
PENALTIES = 10.0 ** np.arange(-5, 2)
"""Penalties that the linear probe chooses from, for data with a variance of 1."""
HIDDEN = 64
"""Units of each of the two layers of the small network."""
UPDATES, RATE = 300, 3e-3
"""Of the small network: updates on all data, and the initial learning rate."""


def held_out(episode: Int[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
    """Which frames probes are tested on: the last quarter of the episodes, and none if there is only one.

    Args:
      episode: the number of each frame's episode.
    """
    numbers = np.unique(episode)
    count = max(round(HELD_OUT * len(numbers)), 1) if len(numbers) > 1 else 0
    return np.isin(episode, numbers[len(numbers) - count :])


def linear_probe(
    z: Num[np.ndarray, "N Z"], factors: Num[np.ndarray, "N K"], held_out: Bool[np.ndarray, "N"]
) -> Float64[np.ndarray, "K"]:
    """R^2 of each factor by ridge regression."""
    data = standardised(z, factors, held_out)
    if data is None:
        return np.full(factors.shape[1], np.nan)
    return r_squared(data.test_factors, data.test_z @ ridge(data.z, data.factors))


def mlp_probe(
    z: Num[np.ndarray, "N Z"], factors: Num[np.ndarray, "N K"], held_out: Bool[np.ndarray, "N"], seed: int = 0
) -> Float64[np.ndarray, "K"]:
    """R^2 of each factor by one network with two layers of 64 units, which corrects the linear probe."""
    data = standardised(z, factors, held_out)
    if data is None:
        return np.full(factors.shape[1], np.nan)
    weights = ridge(data.z, data.factors)
    left = data.factors - data.z @ weights
    z, left, test_z = (each.astype(np.float32) for each in (data.z, left, data.test_z))
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with floats
        correction = np.asarray(_fitted(z, left, test_z, jax.random.key(seed)), np.float64)
    return r_squared(data.test_factors, data.test_z @ weights + correction)


def r_squared(real: Float[np.ndarray, "N K"], predicted: Float[np.ndarray, "N K"]) -> Float64[np.ndarray, "K"]:
    """1 - squared error / variance around the mean; NaN where nothing varies."""
    variance = np.square(real - real.mean(0)[None]).sum(0)
    error = np.square(real - predicted).sum(0)
    varies = np.ptp(real, 0) > 0
    return np.where(varies, 1 - error / np.where(varies, variance, 1.0), np.nan)


class Standardised(NamedTuple):
    """z and factors to learn from, each with mean 0 and variance 1, and those held out on the same scale."""

    z: Float[np.ndarray, "N Z"]
    factors: Float[np.ndarray, "N K"]
    test_z: Float[np.ndarray, "M Z"]
    test_factors: Float[np.ndarray, "M K"]


def standardised(z: np.ndarray, factors: np.ndarray, held_out: np.ndarray) -> Standardised | None:
    """None where there is nothing to learn from or to hold out, or something is not finite."""
    if held_out.all() or not held_out.any() or not (np.isfinite(z).all() and np.isfinite(factors).all()):
        return None
    z, test_z = _standardised(z.astype(np.float64), held_out)
    factors, test_factors = _standardised(factors.astype(np.float64), held_out)
    return Standardised(z, factors, test_z, test_factors)


def ridge(
    z: Float[np.ndarray, "N Z"], factors: Float[np.ndarray, "N K"], *, one_penalty: bool = False
) -> Float64[np.ndarray, "Z K"]:
    """Weights w that predict factors from z: they minimise mean |z w - factor|^2 + penalty |w|^2.

    The penalty is the one whose weights, fitted on the other rows, predict the last quarter best.

    Args:
      z, factors: with mean 0 and variance 1.
      one_penalty: the same for all factors, so that their weights compare; else each factor has its own.
    """
    first = _validation(len(z))
    error = np.square(z[None, first:] @ _ridges(z[:first], factors[:first]) - factors[None, first:]).sum(1)
    best = np.broadcast_to(error.sum(1).argmin() if one_penalty else error.argmin(0), factors.shape[1])
    return _ridges(z, factors)[best, :, np.arange(len(best))].T


def _ridges(z: np.ndarray, factors: np.ndarray) -> Float64[np.ndarray, "penalties Z K"]:
    """Weights for each of `PENALTIES`, (z'z / N + penalty)^-1 z'factors / N, by one eigendecomposition."""
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    turned = vectors.T @ (z.T @ factors / len(z))
    return vectors[None] @ (turned[None] / (np.maximum(values, 0.0)[None] + PENALTIES[:, None])[:, :, None])


def _validation(rows: int) -> int:
    """The index of the first row of the last quarter, on which a probe is validated."""
    return rows - rows // 4


def _standardised(values: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    train = values[~held_out]
    deviation = np.where(np.ptp(train, 0) > 0, train.std(0), 1.0)
    scaled = (values - train.mean(0)[None]) / np.where(deviation > 0, deviation, 1.0)[None]
    return scaled[~held_out], scaled[held_out]


@jax.jit
def _fitted(z: Array, factors: Array, test_z: Array, key: Array) -> Array:
    """The predictions for other z by a network that is trained on z and factors.

    For each factor, these are the predictions after the update that was best on the last quarter. They start at 0.
    """
    first = _validation(len(z))
    inner, outer = jax.random.split(key)
    normal = jax.nn.initializers.he_normal()
    params = {
        "inner": (normal(inner, (z.shape[1], HIDDEN), jnp.float32), jnp.zeros(HIDDEN, jnp.float32)),
        "outer": (normal(outer, (HIDDEN, HIDDEN), jnp.float32), jnp.zeros(HIDDEN, jnp.float32)),
        "last": (jnp.zeros((HIDDEN, factors.shape[1]), jnp.float32), jnp.zeros(factors.shape[1], jnp.float32)),
    }

    def predict(params: Any, x: Array) -> Array:
        for name in ("inner", "outer"):
            x = jax.nn.relu(x @ params[name][0] + params[name][1][None])
        return x @ params["last"][0] + params["last"][1][None]

    def loss(params: Any) -> Array:
        return jnp.mean(jnp.square(predict(params, z[:first]) - factors[:first]))

    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, UPDATES))

    def update(state: Any, _: None) -> tuple[Any, None]:
        params, memory, least_error, best = state
        step, memory = optimiser.update(jax.grad(loss)(params), memory, params)
        params = optax.apply_updates(params, step)
        error = jnp.sum(jnp.square(predict(params, z[first:]) - factors[first:]), axis=0)
        best = jnp.where((error < least_error)[None], predict(params, test_z), best)
        return (params, memory, jnp.minimum(error, least_error), best), None

    error, predictions = jnp.sum(jnp.square(factors[first:]), axis=0), predict(params, test_z)
    start = params, optimiser.init(params), error, predictions
    (_, _, _, best), _ = jax.lax.scan(update, start, None, UPDATES)
    return best
