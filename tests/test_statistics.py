"""The figures of scores: against SciPy and by simulation, and what is said of few of them."""

import numpy as np
import pytest
import scipy.stats

from wm_jax.evaluation.statistics import STATISTICS, half_width, is_approximate, standard_error, statistics
from wm_jax.tools.pipeline import report


@pytest.mark.parametrize("n", [2, 3, 20, 100])
def test_figures_agree_with_scipy(n: int) -> None:
    scores = np.random.default_rng(n).normal(860.0, 50.0, n)
    found = statistics(scores)
    low, high = scipy.stats.t.interval(0.95, n - 1, loc=scores.mean(), scale=scipy.stats.sem(scores))
    expected = (scores.mean(), scores.std(ddof=1), np.median(scores), scores.min(), scores.max(), low, high)
    assert found["episodes"] == n and list(found) == ["episodes", *STATISTICS]
    np.testing.assert_allclose([found[name] for name in STATISTICS], expected, atol=6e-4)
    assert standard_error(scores) == pytest.approx(scipy.stats.sem(scores))
    assert half_width(scores) == pytest.approx((high - low) / 2)


def test_a_single_episode_has_no_interval() -> None:
    found = statistics(np.array([7.0]))
    assert found == {"episodes": 1, "median": 7.0, "mean": 7.0, "min": 7.0, "max": 7.0} | dict.fromkeys(
        ("std", "ci_low", "ci_high")
    )
    assert standard_error(np.array([7.0])) is None and half_width(np.array([7.0])) is None


def test_a_report_shows_no_interval_of_a_single_episode() -> None:
    """Earlier versions wrote one without width."""
    score = report._score({"mean": 7.0, "ci_low": 7.0, "ci_high": 7.0, "std": 0.0, "episodes": 1})
    assert score is not None and (score.low, score.high, score.std) == (None, None, None)
    score = report._score({**statistics(np.array([6.0, 8.0]))})
    assert score is not None and score.low is not None


def test_intervals_of_few_episodes_are_called_approximate() -> None:
    assert [is_approximate(n) for n in (1, 5, 19, 20, 1000)] == [True, True, True, False, False]


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize(("n", "least"), [(5, {"normal": 0.93, "skewed": 0.86}), (20, {"normal": 0.93, "skewed": 0.9})])
def test_intervals_cover_the_true_mean(kind: str, n: int, least: dict[str, float]) -> None:
    """Of 2,000 samples; skewed scores are 0 at best, with an exponential tail of bad episodes."""
    random = np.random.default_rng(1)
    samples = random.normal(0, 1, (2000, n)) if kind == "normal" else 1 - random.exponential(1, (2000, n))
    covered = 0
    for scores in samples:
        found = statistics(scores)
        covered += found["ci_low"] <= 0 <= found["ci_high"]
    assert least[kind] < covered / len(samples) < 0.97


def test_intervals_of_many_episodes_cover_what_they_say() -> None:
    for samples in (
        np.random.default_rng(2).normal(0, 1, (2000, 100)),
        1 - np.random.default_rng(2).exponential(1, (2000, 100)),
    ):
        ends = [(found["ci_low"], found["ci_high"]) for found in map(statistics, samples)]
        assert np.mean([low <= 0 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.02)
