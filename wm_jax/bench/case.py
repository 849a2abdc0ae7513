"""What one stage's benchmark is: contenders that do the same work, and how much work that is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wm_jax.bench.timing import Work

OURS, PLAIN, TUNED, WRITTEN = "wm_jax", "wm_jax plain", "torch tuned", "torch as written"
"""The contenders' names. `plain` is ours without the fast kernels; `tuned` is what an expert makes of PyTorch, `as
written` what its users write."""


@dataclass(frozen=True)
class Options:
    """What is asked for.

    names: contenders to run.
    folder: a scratch folder.
    small: tiny sizes, to see that everything runs.
    batch: of the stage; 0 for its own.
    """

    names: tuple[str, ...]
    folder: Path
    small: bool = False
    batch: int = 0


@dataclass(frozen=True)
class Case:
    """One comparison.

    name: for people.
    unit: what is counted.
    amount: units in one call of a contender.
    flops: floating-point operations per unit.
    makers: builds each contender; what it builds is the work of one call.
    agreement: compares the contenders' results on the same weights and data: the largest relative difference.
    tolerance: what that may be.
    """

    name: str
    unit: str
    amount: int
    flops: float
    makers: Mapping[str, Callable[[], Work]]
    agreement: Callable[[], float]
    tolerance: float
