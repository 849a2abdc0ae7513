"""Black-box search for the controller: ask / evaluate / tell over the strategies of evosax.

What evosax leaves to its caller is settled here: higher returns are better, failed episodes, ties, the starting
point, and randomness that depends on the generation alone, so that a resumed search repeats an uninterrupted one.
"""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np
from evosax.core.fitness_shaping import (
    centered_rank_fitness_shaping_fn,
    identity_fitness_shaping_fn,
    weights_fitness_shaping_fn,
)

from wm_jax.config.schema import Strategy
from wm_jax.utils.errors import UserError


class LazyCMA_ES(evosax.algorithms.CMA_ES):
    """CMA-ES that decomposes its covariance matrix only as often as that pays.

    Hansen 2016 (arXiv:1604.00772), B.2 and the code of its appendix C: as soon as 1 / (10 n (c_1 + c_mu)) generations
    have passed since the last time, in which the matrix changes by little. Candidates and step size meanwhile go by
    that decomposition, which is in the state. For 867 parameters and 64 candidates it is every third generation; for
    few parameters it is each.
    """

    def _ask(self, key: jax.Array, state: Any, params: Any) -> tuple[jax.Array, Any]:
        decompose = state.generation_counter % decomposition_period(self.num_dims, params.c_1 + params.c_mu) == 0
        return jax.lax.cond(decompose, super()._ask, self._sample, key, state, params)

    def _sample(self, key: jax.Array, state: Any, params: Any) -> tuple[jax.Array, Any]:
        """Candidates by the decomposition that is there; equations 38 to 40."""
        z = jax.random.normal(key, (self.population_size, self.num_dims))
        return state.mean + state.std * ((z * state.D) @ state.B.T), state


def decomposition_period(n: int, learning_rate: jax.Array) -> jax.Array:
    """Generations between two decompositions of an n x n matrix that is learned at this rate."""
    return jnp.ceil(1.0 / (10.0 * n * learning_rate)).astype(jnp.int32)


STRATEGIES: dict[str, Any] = {name: evosax.algorithms.algorithms[name] for name in get_args(Strategy)}
STRATEGIES["CMA_ES"] = LazyCMA_ES


class EvolutionState(NamedTuple):
    """Everything a search needs to go on: arrays only, ready for a checkpoint.

    strategy: the strategy's own state.
    population: [P, n], asked for last; for a strategy without a mean, before the first ask, the initial one.
    generation: int32, generations told so far.
    failed: int32, candidates of the last generation whose return was not finite.
    """

    strategy: Any
    population: jax.Array
    generation: jax.Array
    failed: jax.Array


class Evolution:
    """One search. The methods are pure functions of the state.

    Args:
      strategy: a name in `STRATEGIES`.
      n_params: n, the length of a candidate.
      population: P, candidates per generation.
      sigma: initial standard deviation.
      key: of all randomness of the search; not part of the state.

    Raises:
      UserError: a population that the strategy cannot work with.
    """

    def __init__(self, strategy: Strategy, n_params: int, population: int, sigma: float, key: jax.Array):
        self.n_params, self.population, self.sigma = n_params, population, sigma
        self._key = key
        with _evosax_rules():
            self._algorithm, self._ranked = _build(strategy, n_params, population, sigma)
            self._params = self._algorithm.default_params
            if hasattr(self._params, "std_init"):
                self._params = self._params.replace(std_init=jnp.asarray(sigma, jnp.float32))
        # Genetic algorithms and swarms have no mean: evosax starts them from an evaluated population.
        self._from_population = "population" in inspect.signature(type(self._algorithm).init).parameters
        if not self._from_population:
            asked = jax.eval_shape(lambda: self.ask(self.init())[1]).shape[0]
            if asked != population:
                raise UserError(
                    f"controller.population {population}: {strategy} asks for {asked} candidates then; "
                    "use an even number"
                )

    def init(self, mean: jax.Array | None = None) -> EvolutionState:
        """The state before the first generation, searching around mean [n] (default: zeros)."""
        mean = jnp.zeros(self.n_params, jnp.float32) if mean is None else jnp.asarray(mean, jnp.float32)
        key, first_key = jax.random.split(jax.random.fold_in(self._key, 0))
        shape = (self.population, self.n_params)
        with _evosax_rules():
            if self._from_population:
                first = mean + self.sigma * jax.random.normal(first_key, shape, jnp.float32)
                strategy = self._algorithm.init(key, first, jnp.zeros(self.population), self._params)
            else:
                first = jnp.zeros(shape, jnp.float32)
                strategy = self._algorithm.init(key, mean, self._params)
        return EvolutionState(_strong(strategy), first, jnp.int32(0), jnp.int32(0))

    def ask(self, state: EvolutionState) -> tuple[EvolutionState, jax.Array]:
        """The candidates of the next generation, [P, n], also kept in the state. Asking twice gives the same ones."""
        if self._from_population and int(state.generation) == 0:
            return state, state.population
        with _evosax_rules():
            population, strategy = self._algorithm.ask(self._keys(state)[0], state.strategy, self._params)
        return state._replace(strategy=_strong(strategy), population=population), population

    def tell(self, state: EvolutionState, returns: jax.Array | np.ndarray) -> EvolutionState:
        """Learn from the returns of the candidates asked for last.

        Args:
          returns: [P], or [P, E] for E episodes each, of which the mean counts. Higher is better. A candidate with
            any return that is not finite counts as the worst, and is counted in `failed`.
        """
        returns = jnp.asarray(returns, jnp.float32)
        if returns.shape[:1] != (self.population,) or returns.ndim > 2:
            raise ValueError(f"returns: [{self.population}] or [{self.population}, E] expected, got {returns.shape}")
        costs, failed = to_costs(returns)
        with _evosax_rules():
            key = self._keys(state)[1]
            if self._from_population and int(state.generation) == 0:
                strategy = self._algorithm.init(key, state.population, costs, self._params)
            else:
                costs = distinct_ranks(costs) if self._ranked else costs
                strategy, _ = self._algorithm.tell(key, state.population, costs, state.strategy, self._params)
        return EvolutionState(_strong(strategy), state.population, state.generation + 1, failed)

    def mean(self, state: EvolutionState) -> jax.Array:
        """The search's current answer, [n]: the mean of its distribution, which is what to evaluate and keep.

        Genetic algorithms and swarms have none: for them the best of the last generation, a lucky one if noise
        decides.
        """
        with _evosax_rules():
            if self._from_population:
                return self._algorithm.get_best_solution(state.strategy)
            return self._algorithm.get_mean(state.strategy)

    def _keys(self, state: EvolutionState) -> jax.Array:
        return jax.random.split(jax.random.fold_in(self._key, state.generation + 1))


def to_costs(returns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns [P] or [P, E] -> costs [P] to be minimised, all finite, and how many candidates failed."""
    means = returns if returns.ndim == 1 else returns.mean(axis=1)
    finite = jnp.isfinite(means)
    worst = jnp.min(jnp.where(finite, means, jnp.inf))
    worst = jnp.where(jnp.isfinite(worst), worst, 0.0)
    return -jnp.where(finite, means, worst), jnp.sum(~finite).astype(jnp.int32)


def distinct_ranks(costs: jax.Array) -> jax.Array:
    """Ranks 0 (cheapest) to P - 1 as float32 [P]; of equal costs the first comes first."""
    order = jnp.argsort(costs, stable=True)
    return jnp.zeros_like(costs).at[order].set(jnp.arange(costs.shape[0], dtype=costs.dtype))


def _build(name: Strategy, n_params: int, population: int, sigma: float) -> tuple[Any, bool]:
    """The strategy, and whether it wants distinct ranks instead of costs.

    Weights by rank: equal ranks would all get the same weight and the weights no longer sum to 1, so ties are broken.
    Gradient estimates: half of each pair would profit from broken ties, so evosax's mean ranks stay; those that
    estimate from raw values get these ranks too, or the scale of the game's rewards would be the learning rate.
    Everything else compares costs of different generations, which ranks do not allow.
    """
    strategy = STRATEGIES[name]
    arguments = inspect.signature(strategy.__init__).parameters
    options: dict[str, Any] = {}
    shaping = arguments["fitness_shaping_fn"].default
    if "optimizer" in arguments and shaping is identity_fitness_shaping_fn:
        options["fitness_shaping_fn"] = centered_rank_fitness_shaping_fn
    if "std_schedule" in arguments:
        options["std_schedule"] = lambda _: jnp.float32(sigma)
    try:
        return strategy(population, jnp.zeros(n_params), **options), shaping is weights_fitness_shaping_fn
    except (AssertionError, TypeError, ValueError, ZeroDivisionError, IndexError) as error:
        # Some divide the population by numbers of their own, and fall over what comes of a small one.
        remedy = "use an even number" if "even" in str(error) else "use a larger one, or another strategy"
        raise UserError(f"controller.population {population}: {name} can't work with it ({error}); {remedy}") from None


@contextmanager
def _evosax_rules() -> Iterator[None]:
    """Evosax relies on NumPy's promotions; its covariance updates should not be rounded to TF32 on a GPU.

    And its arrays have the types that JAX gives them: those of 32 bits, also where JAX_ENABLE_X64 is set.
    """
    with (
        jax.enable_x64(False),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision("highest"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # Its PGPE calls a name that optax has moved.
        yield


def _strong(tree: Any) -> Any:
    """Python numbers and weakly typed arrays as plain arrays, so that a restored state is compiled for only once."""
    with jax.enable_x64(False):
        return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), tree)
