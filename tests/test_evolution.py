"""The search against the `cma` package; resuming, failed episodes, ties; every strategy that we offer."""

import copy
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import get_args

import cma
import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.config.schema import Strategy
from wm_jax.training import evolution
from wm_jax.training.evolution import Evolution, EvolutionState, decomposition_period, distinct_ranks, to_costs
from wm_jax.utils.errors import UserError

N, P, SIGMA = 6, 16, 0.3
Cost = Callable[[np.ndarray], np.ndarray]


def sphere(x: np.ndarray) -> np.ndarray:
    return (x**2).sum(-1)


def rosenbrock(x: np.ndarray) -> np.ndarray:
    return (100.0 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1.0 - x[..., :-1]) ** 2).sum(-1)


@cache
def compiled(strategy: Strategy) -> Evolution:
    return Evolution(strategy, N, P, SIGMA, jax.random.key(0))


def make(strategy: Strategy, seed: int = 0) -> Evolution:
    """A search with its own random stream; strategies are compiled once for this file."""
    search = copy.copy(compiled(strategy))
    search._key = jax.random.key(seed)
    return search


def generation(search: Evolution, state: EvolutionState, cost: Cost = sphere) -> EvolutionState:
    state, population = search.ask(state)
    return search.tell(state, -cost(np.asarray(population)))


def run(search: Evolution, state: EvolutionState, generations: int, cost: Cost = sphere) -> EvolutionState:
    for _ in range(generations):
        state = generation(search, state, cost)
    return state


@pytest.mark.parametrize(("cost", "start", "generations"), [(sphere, 1.0, 60), (rosenbrock, 0.0, 150)])
def test_cma_es_is_as_good_as_the_reference(cost: Cost, start: float, generations: int) -> None:
    """The same evaluations, the median of seven seeds: the logarithm of the mean's cost falls about as far."""
    ours, theirs = [], []
    for seed in range(7):
        search = make("CMA_ES", seed)
        state = run(search, search.init(jnp.full(N, start)), generations, cost)
        ours.append(float(cost(np.asarray(search.mean(state), np.float64))))
        options = {"popsize": P, "seed": seed + 1, "verbose": -9}
        reference = cma.CMAEvolutionStrategy(N * [start], SIGMA, options)
        for _ in range(generations):
            candidates = reference.ask()
            reference.tell(candidates, [float(cost(candidate)) for candidate in candidates])
        theirs.append(float(cost(reference.mean)))
    begin = float(cost(np.full(N, start)))
    fallen, expected = (np.log10(begin / np.median(costs)) for costs in (ours, theirs))
    assert expected > 3.0
    assert fallen > 0.7 * expected


def test_how_often_cma_es_decomposes_its_matrix() -> None:
    def period(n: int, population: int) -> int:
        search = Evolution("CMA_ES", n, population, SIGMA, jax.random.key(0))
        return int(decomposition_period(n, search._params.c_1 + search._params.c_mu))

    def reference(n: int, population: int) -> int:
        strategy = cma.CMAEvolutionStrategy(n * [0.0], SIGMA, {"popsize": population, "verbose": -9})
        return int(np.ceil(strategy.sm.lazy_update_gap))  # pyright: ignore[reportAttributeAccessIssue]

    sizes = [(6, 16), (100, 64), (100, 16), (867, 64)]
    assert [period(*size) for size in sizes] == [reference(*size) for size in sizes] == [1, 1, 2, 3]

    search = Evolution("CMA_ES", 100, 16, SIGMA, jax.random.key(0))
    state, bases = search.init(), []
    for _ in range(5):
        state = generation(search, state)
        bases.append(np.asarray(state.strategy.B))
    changed = [not np.array_equal(before, after) for before, after in pairwise(bases)]
    assert changed == [False, True, False, True]


def test_cma_es_loses_nothing_by_decomposing_less_often() -> None:
    """Axes from 1 to 1,000, which only the matrix can even out; the median of three seeds, as far as eagerly."""
    n, population, generations = 40, 8, 400

    def cost(x: np.ndarray) -> np.ndarray:
        return (np.logspace(0, 3, n) * x**2).sum(-1)

    def fallen(strategy: type) -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(evolution.STRATEGIES, "CMA_ES", strategy)
            search = Evolution("CMA_ES", n, population, SIGMA, jax.random.key(0))
        costs = []
        for seed in range(3):
            search._key = jax.random.key(seed)
            state = run(search, search.init(jnp.ones(n)), generations, cost)
            costs.append(cost(np.asarray(search.mean(state), np.float64)))
        return float(np.log10(cost(np.ones(n)) / np.median(costs)))

    lazily, eagerly = fallen(evolution.STRATEGIES["CMA_ES"]), fallen(evosax.algorithms.CMA_ES)
    assert eagerly > 2.0
    assert lazily != eagerly and lazily > 0.85 * eagerly


def test_a_resumed_search_repeats_the_uninterrupted_one_bit_for_bit() -> None:
    # Of 100 parameters, so that the matrix is not decomposed where the search is resumed.
    search, again = (Evolution("CMA_ES", 100, 8, 0.5, jax.random.key(3)) for _ in range(2))
    half = run(search, search.init(), 4)
    stored = jax.tree.map(np.asarray, half)
    assert all(leaf.dtype != object for leaf in jax.tree.leaves(stored))
    resumed = jax.tree.map(jnp.asarray, stored)
    jax.tree.map(np.testing.assert_array_equal, run(search, half, 4), run(again, resumed, 4))


@pytest.mark.parametrize("strategy", ["CMA_ES", "SimpleGA"])
def test_asking_is_repeatable_and_generations_differ(strategy: Strategy) -> None:
    search = make(strategy)
    state = search.init()
    first, second = search.ask(state)[1], search.ask(state)[1]
    np.testing.assert_array_equal(first, second)
    later = search.ask(generation(search, state))[1]
    assert not np.allclose(first, later)


@pytest.mark.parametrize("strategy", ["CMA_ES", "Open_ES", "PGPE", "SNES", "SimpleGA"])
def test_the_start_has_the_given_mean_and_deviation(strategy: Strategy) -> None:
    searches = [make(strategy, seed) for seed in range(30)]
    candidates = np.stack([search.ask(search.init(jnp.full(N, 2.0)))[1] for search in searches])
    assert candidates.mean() == pytest.approx(2.0, abs=4 * SIGMA / np.sqrt(candidates.size))
    assert candidates.std() == pytest.approx(SIGMA, rel=0.06)


@pytest.mark.parametrize("strategy", ["Sep_CMA_ES", "Open_ES", "PGPE", "SNES", "SimpleGA"])
def test_other_strategies_go_downhill(strategy: Strategy) -> None:
    search = make(strategy)
    end = search.mean(run(search, search.init(jnp.ones(N)), 40))
    assert sphere(np.asarray(end)) < sphere(np.ones(N))


def test_episodes_are_averaged() -> None:
    search = make("CMA_ES")
    state, _ = search.ask(search.init())
    returns = jax.random.normal(jax.random.key(1), (P, 5))
    one, other = search.tell(state, returns), search.tell(state, returns.mean(axis=1))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_failed_candidates_count_as_the_worst() -> None:
    returns = jnp.asarray([[5.0, 5.0], [jnp.nan, 900.0], [-3.0, -3.0], [jnp.inf, 0.0], [1.0, -jnp.inf]])
    costs, failed = to_costs(returns)
    np.testing.assert_array_equal(costs, [-5.0, 3.0, 3.0, 3.0, 3.0])
    assert int(failed) == 3
    costs, failed = to_costs(jnp.full(4, jnp.nan))
    np.testing.assert_array_equal(costs, np.zeros(4))
    assert int(failed) == 4


@pytest.mark.parametrize("strategy", ["CMA_ES", "Open_ES", "SNES", "SimpleGA"])
def test_a_search_survives_generations_with_failures(strategy: Strategy) -> None:
    search = make(strategy)
    state, _ = search.ask(search.init(jnp.ones(N)))
    state = search.tell(state, jnp.full(P, jnp.nan))
    assert int(state.failed) == P
    for _ in range(3):
        state, population = search.ask(state)
        state = search.tell(state, jnp.where(jnp.arange(P) == 2, jnp.nan, -jnp.square(population).sum(axis=1)))
        assert int(state.failed) == 1
    assert np.isfinite(search.mean(state)).all()


def test_ranks_break_ties_by_index() -> None:
    np.testing.assert_array_equal(distinct_ranks(jnp.asarray([2.0, 1.0, 2.0, 0.0, 1.0])), [3, 1, 4, 0, 2])


def test_ranks_follow_their_candidates() -> None:
    costs = jax.random.normal(jax.random.key(0), (16,))
    shuffle = jax.random.permutation(jax.random.key(1), 16)
    np.testing.assert_array_equal(distinct_ranks(costs[shuffle]), distinct_ranks(costs)[shuffle])


def test_ties_lose_no_weight() -> None:
    """All equal: CMA-ES recombines with its full weights, so that its mean moves as with distinct returns."""
    search = make("CMA_ES")
    state, _ = search.ask(search.init())
    tied = search.tell(state, jnp.zeros(P))
    distinct = search.tell(state, -jnp.arange(P, dtype=jnp.float32))
    np.testing.assert_array_equal(search.mean(tied), search.mean(distinct))


@pytest.mark.parametrize("strategy", ["Open_ES", "PGPE"])
def test_ties_do_not_move_a_gradient_estimate(strategy: Strategy) -> None:
    """A generation without any reward, usual at the start, says nothing; broken ties would favour a direction."""
    search = make(strategy)
    state, _ = search.ask(search.init(jnp.ones(N)))
    np.testing.assert_allclose(search.mean(search.tell(state, jnp.zeros(P))), np.ones(N), atol=1e-6)


@pytest.mark.parametrize("strategy", ["CMA_ES", "Open_ES", "PGPE", "ARS"])
def test_only_the_order_of_returns_matters(strategy: Strategy) -> None:
    """Any increasing function of the returns teaches the same."""
    search = make(strategy)
    state, _ = search.ask(search.init())
    returns = jax.random.normal(jax.random.key(5), (P,))
    one, other = (search.mean(search.tell(state, each)) for each in (returns, 1e3 * jnp.exp(returns) + 7.0))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, search.mean(search.tell(state, -returns)))


def test_every_strategy_of_evosax_is_offered_or_left_out_on_purpose() -> None:
    unsuited = {"SV_CMA_ES", "SV_Open_ES", "RandomSearch", "DiffusionEvolution"}
    assert set(get_args(Strategy)) == set(evosax.algorithms.algorithms) - unsuited
    assert list(get_args(Strategy)) == sorted(get_args(Strategy))


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_every_strategy_that_is_offered_works(strategy: Strategy) -> None:
    n = 20  # LM_MA_ES keeps more directions than 6 numbers have, and then turns NaN; no controller is that small
    search = Evolution(strategy, n, P, SIGMA, jax.random.key(0))
    state = run(search, search.init(jnp.ones(n)), 2)
    assert int(state.generation) == 2
    mean = np.asarray(search.mean(state))
    assert mean.shape == (n,) and np.isfinite(mean).all()


def test_odd_populations_are_refused_where_pairs_are_drawn() -> None:
    with pytest.raises(UserError, match=r"controller\.population 7: PGPE .* use an even number"):
        Evolution("PGPE", N, 7, SIGMA, jax.random.key(0))
    assert Evolution("CMA_ES", N, 7, SIGMA, jax.random.key(0)).population == 7


def test_a_strategy_that_asks_for_other_numbers_is_refused() -> None:
    with pytest.raises(UserError, match=r"controller\.population 5: ESMC asks for 4 candidates then; use an even"):
        Evolution("ESMC", N, 5, SIGMA, jax.random.key(0))
    with pytest.raises(UserError, match=r"population 3: ESMC can't work with it .*; use a larger one, or another"):
        Evolution("ESMC", N, 3, SIGMA, jax.random.key(0))


def test_returns_of_another_shape_are_refused() -> None:
    search = make("CMA_ES")
    state, _ = search.ask(search.init())
    with pytest.raises(ValueError, match=rf"returns: \[{P}\]"):
        search.tell(state, jnp.zeros((2, P)))
