"""What one stage's benchmark is: contenders that do the same work, and how much work that is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wm_jax.tools.benchmark.timing import Timing, Work

OURS, PLAIN, TUNED, WRITTEN = "wm_jax", "wm_jax plain", "torch tuned", "torch as written"
FLOAT32 = "wm_jax in float32"
"""The contenders' names. `plain` is ours without the fast kernels; `tuned` is what an expert makes of PyTorch, at the
arithmetic of ours, `as written` what its users write; ours in float32 where bfloat16 is asked for."""
ENVIRONMENTS, NETWORK, ON_DEVICE = "environments alone", "network alone", "wm_jax on device"
"""Halves of our own work where environments and network share the machine; and the game beside the network."""

DECODED, REAL = "frames decoded", "the real game"
"""The dream in which V draws every frame, and the game that it is the dream of."""


@dataclass(frozen=True)
class Options:
    """What is asked for.

    names: contenders to run.
    folder: a scratch folder.
    small: tiny sizes, to see that everything runs.
    batch: of the stage; 0 for its own.
    devices: that share the batches of our V and M.
    bfloat16: V's convolutions multiply in it where the device can, ours and those of PyTorch where it is tuned.
    """

    names: tuple[str, ...]
    folder: Path
    small: bool = False
    batch: int = 0
    devices: int = 1
    bfloat16: bool = True


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
    compared: what it compares, for people.
    parts: parts of our work that are timed beside the contenders.
    remark: what the timings of the contenders and the parts say together.
    narrow: whether V of ours and of tuned PyTorch multiply in bfloat16 here.
    """

    name: str
    unit: str
    amount: int
    flops: float
    makers: Mapping[str, Callable[[], Work]]
    agreement: Callable[[], float]
    tolerance: float
    compared: str = "loss and gradient"
    parts: tuple[str, ...] = ()
    remark: Callable[[Mapping[str, Timing]], str] | None = None
    narrow: bool = False
