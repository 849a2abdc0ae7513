"""Fair timing: contenders take turns in one process, so that a machine whose speed drifts slows all of them.

A contender is a function that does some work and returns once it is done. Its first call, which compiles, is timed
apart; then all contenders are called round after round, each time in the same order. What is compared are medians of
the rounds, and the ratio is the median of the ratios within a round.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from wm_jax.distributed.progress import Progress

Work = Callable[[], None]

PEAK_SIZE = 2048
PEAK_ROUNDS = 5
PAUSE = 0.05
"""Seconds before every timed call: the idle threads of another library spin for a while before they sleep."""


@dataclass(frozen=True)
class Timing:
    """What came of one contender.

    first: seconds of the first call, compiling included.
    seconds: of every later call, in the order of the rounds.
    """

    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)

    @property
    def compiling(self) -> float:
        """Seconds that the first call took longer."""
        return max(self.first - self.median, 0.0)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    def faster_than(self, other: "Timing") -> float:
        """The median, over the rounds, of the other's time over this one's."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.seconds, other.seconds, strict=True))


def alternate(contenders: Mapping[str, Work], rounds: int, shown: str | None = None) -> dict[str, Timing]:
    """Time the contenders in turns.

    Args:
      contenders: by name; called once to compile, once to warm up, then `rounds` times.
      shown: what to call the progress that the user is shown, if any.
    """
    first: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with Progress(shown or "", (rounds + 2) * len(contenders), "call", quiet=shown is None) as progress:
        for turn in range(rounds + 2):
            for name, work in contenders.items():
                passed = _timed(work)
                if turn == 0:
                    first[name] = passed
                elif turn > 1:
                    seconds[name].append(passed)
                progress.advance(1)
    return {name: Timing(first[name], tuple(seconds[name])) for name in contenders}


def matmul_peak(
    kind: Any = jnp.float32, precision: str | None = None, size: int = PEAK_SIZE, repeats: int = 1
) -> float:
    """FLOP/s of a large matrix product on the first device: what no network can exceed.

    Args:
      kind: type of the numbers.
      precision: of the product, as JAX names it (None: the default).
      size: rows and columns.
      repeats: products in one call, each with what the one before gave, where a single one is too short to time.
    """
    # Random, since a processor that is limited by its power is faster on zeros; of a size that no product changes.
    numbers = jax.random.normal(jax.random.key(0), (size, size), jnp.float32) / jnp.float32(math.sqrt(size))
    a = numbers.astype(kind)

    @jax.jit
    def products(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, x: jnp.matmul(a, x, precision=precision), b)

    def work() -> None:
        products(a, a).block_until_ready()

    timing = alternate({"peak": work}, PEAK_ROUNDS)["peak"]
    return 2 * size**3 * repeats / min(timing.seconds)


def _timed(work: Work) -> float:
    time.sleep(PAUSE)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
