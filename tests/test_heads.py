"""Mixture densities against SciPy, sampling against moments, and the limits of the temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from wm_jax.models.heads import LOG_SQRT_TWO_PI, MIN_LOG_STD, CategoricalHead, Mixture, MixtureHead

Z, K = 4, 3


@pytest.fixture
def mixture() -> Mixture:
    return MixtureHead(Z, K).read(jax.random.normal(jax.random.key(0), (2, 5, 3 * Z * K)))


def test_log_prob_agrees_with_scipy(mixture: Mixture) -> None:
    target = np.asarray(jax.random.normal(jax.random.key(1), (2, 5, Z)) * 2.0)
    log_weights, mean, log_std = (np.asarray(part, np.float64) for part in mixture)
    components = log_weights + stats.norm.logpdf(target[..., None, :], mean, np.exp(log_std))
    np.testing.assert_allclose(mixture.log_prob(jnp.asarray(target)), np.sum(logsumexp(components, -2), -1), rtol=2e-5)


def test_split_keeps_weights_means_and_deviations_apart() -> None:
    raw = jnp.concatenate([jnp.zeros(Z * K), jnp.arange(Z * K, dtype=jnp.float32), jnp.full(Z * K, -2.0)])
    mixture = MixtureHead(Z, K).read(raw)
    np.testing.assert_allclose(mixture.log_weights, np.full((K, Z), -np.log(K)), rtol=1e-6)
    np.testing.assert_array_equal(mixture.mean, np.arange(Z * K).reshape(K, Z))
    np.testing.assert_array_equal(mixture.log_std, np.full((K, Z), -2.0))


def test_a_far_target_has_a_finite_density_and_gradient() -> None:
    """exp(-score^2 / 2) is 0 in float32 here: probabilities outside log space would give -inf and NaN."""

    def loss(raw: jax.Array) -> jax.Array:
        return -MixtureHead(1, K).read(raw).log_prob(jnp.full(1, 1000.0))

    raw = jnp.zeros(3 * K)
    assert float(loss(raw)) == pytest.approx(500_000.0, rel=1e-3)
    assert np.isfinite(jax.grad(loss)(raw)).all()


def test_a_constant_target_cannot_raise_the_density_without_bound() -> None:
    raw = jnp.concatenate([jnp.zeros(2 * K), jnp.full(K, -1e6)])
    value, gradient = jax.value_and_grad(lambda raw: MixtureHead(1, K).read(raw).log_prob(jnp.zeros(1)))(raw)
    assert float(value) == pytest.approx(-MIN_LOG_STD - LOG_SQRT_TWO_PI, rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("below", [0.5, 1e6])
def test_a_component_at_the_floor_widens_through_its_own_gradient_and_sinks_no_further(below: float) -> None:
    """The gradient is that of the density at the floor, where it points upwards."""

    def density(log_std: jax.Array, target: float) -> jax.Array:
        raw = jnp.stack([jnp.zeros(()), jnp.zeros(()), log_std])
        return MixtureHead(1, 1).read(raw).log_prob(jnp.full(1, target))

    slope = jax.grad(density)
    at, under = jnp.float32(MIN_LOG_STD), jnp.float32(MIN_LOG_STD - below)
    std = np.exp(MIN_LOG_STD)
    assert density(under, 3.0) == density(at, 3.0)
    assert float(slope(under, 3.0)) == pytest.approx((3.0 / std) ** 2 - 1, rel=1e-4)
    assert float(slope(under, 0.5 * std)) == 0.0
    above = at + 0.5
    assert float(slope(above, 0.0)) == pytest.approx(-1.0), "free above the floor"
    # By its own gradient, step by step, from far from the target.
    for _ in range(40):
        at += 0.5 * jnp.clip(slope(at, 3.0), -1, 1)
    assert float(at) == pytest.approx(np.log(3.0), abs=0.5)


def test_samples_have_the_moments_of_the_mixture() -> None:
    mixture = MixtureHead(Z, K).read(jax.random.normal(jax.random.key(2), (3 * Z * K,)))
    draws = jax.vmap(lambda key: mixture.sample(key))(jax.random.split(jax.random.key(3), 40_000))
    weights, means, stds = np.exp(mixture.log_weights), np.asarray(mixture.mean), np.exp(mixture.log_std)
    mean = (weights * means).sum(0)
    std = np.sqrt((weights * (stds**2 + (means - mean) ** 2)).sum(0))
    assert np.abs(draws.mean(0) - mean).max() < 4 * std.max() / 200  # four standard errors of 40,000 draws
    np.testing.assert_allclose(draws.std(0), std, rtol=0.05)


def test_samples_follow_the_density() -> None:
    """Kolmogorov-Smirnov against the mixture's own distribution function, with a temperature."""
    temperature = 1.7
    mixture = MixtureHead(1, K).read(jax.random.normal(jax.random.key(4), (3 * K,)) * 1.5)
    draws = jax.vmap(lambda key: mixture.sample(key, temperature))(jax.random.split(jax.random.key(5), 5_000))
    log_weights, mean, std = np.asarray(mixture.log_weights[:, 0]), mixture.mean[:, 0], np.exp(mixture.log_std[:, 0])
    weights = np.exp(log_weights / temperature)
    weights /= weights.sum()

    def distribution(x: np.ndarray) -> np.ndarray:
        return (weights * stats.norm.cdf(x[:, None], mean, std * np.sqrt(temperature))).sum(-1)

    assert stats.kstest(np.asarray(draws[:, 0], np.float64), distribution).pvalue > 0.001


def test_low_temperature_gives_the_mean_of_the_likeliest_component(mixture: Mixture) -> None:
    best = np.take_along_axis(
        np.asarray(mixture.mean), np.asarray(mixture.log_weights).argmax(-2)[..., None, :], axis=-2
    ).squeeze(-2)
    np.testing.assert_allclose(mixture.sample(jax.random.key(6), 1e-10), best, atol=1e-3)


def test_high_temperature_evens_out_the_components() -> None:
    logits = jnp.asarray([5.0, 0.0, 0.0, -5.0])[:, None]
    mean = jnp.asarray([-3e6, -1e6, 1e6, 3e6])[:, None]
    mixture = Mixture(jax.nn.log_softmax(logits, 0), mean, jnp.full((4, 1), MIN_LOG_STD))
    draws = jax.vmap(lambda key: mixture.sample(key, 1e4))(jax.random.split(jax.random.key(7), 8_000))
    shares = np.bincount(np.searchsorted([-2e6, 0, 2e6], np.asarray(draws[:, 0])), minlength=4) / 8_000
    np.testing.assert_allclose(shares, 0.25, atol=0.02)


def test_temperature_widens_the_components_by_its_root() -> None:
    mixture = MixtureHead(Z, 1).read(jnp.zeros(3 * Z))
    keys = jax.random.split(jax.random.key(8), 10)
    plain, hot = (jax.vmap(lambda key, tau=tau: mixture.sample(key, tau))(keys) for tau in (1.0, 4.0))
    np.testing.assert_allclose(hot, 2.0 * plain, rtol=1e-5)


def test_odds_of_classes_agree_with_a_softmax() -> None:
    raw = jax.random.normal(jax.random.key(8), (5, 2 * 4))
    head = CategoricalHead(2, 4)
    assert (head.outputs, head.predicted) == (8, 2)
    target = jnp.array([[0, 3], [1, 1], [2, 0], [3, 3], [0, 0]], jnp.int32)
    chances = np.asarray(jax.nn.softmax(raw.reshape(5, 2, 4), -1), np.float64)
    expected = [
        sum(np.log(row[group, choice]) for group, choice in enumerate(wanted))
        for row, wanted in zip(chances, np.asarray(target), strict=True)
    ]
    np.testing.assert_allclose(head.read(raw).log_prob(target), expected, rtol=1e-5)


def test_classes_are_drawn_as_often_as_they_are_likely_and_at_low_temperature_the_likeliest() -> None:
    odds = CategoricalHead(1, 3).read(jnp.log(jnp.array([0.6, 0.3, 0.1])))
    draws = jax.vmap(lambda key: odds.sample(key))(jax.random.split(jax.random.key(9), 20_000))
    assert draws.shape == (20_000, 1) and draws.dtype == jnp.int32
    np.testing.assert_allclose(np.bincount(np.asarray(draws)[:, 0]) / 20_000, [0.6, 0.3, 0.1], atol=0.015)
    assert (jax.vmap(lambda key: odds.sample(key, 1e-6))(jax.random.split(jax.random.key(9), 50)) == 0).all()
