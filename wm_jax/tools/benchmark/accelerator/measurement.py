"""What the report consists of: parts, and the measurements that each of them offers one after the other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax

from wm_jax.tools.benchmark.timing import Work, alternate

Figures = dict[str, Any]
"""What was found, by name: numbers, words, or tables (lists of `Figures` with equal names)."""
LINE = 300
"""Letters that are kept of an error."""
T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """One of them.

    name: unlike all others of its part.
    take: does it.
    """

    name: str
    take: Callable[[], Figures]


@dataclass(frozen=True)
class Setting:
    """Where and how measurements are taken.

    folder: of the report.
    small: tiny sizes, to see that everything runs.
    seconds_left: of the time that the part at hand has.
    found: the figures of a measurement of an earlier part, by the names of both; empty if there are none.
    """

    folder: Path
    small: bool
    seconds_left: Callable[[], float]
    found: Callable[[str, str], Figures]

    @property
    def rounds(self) -> int:
        """Timed calls, after two that aren't."""
        return self.size(3, 1)

    def size(self, usual: T, small: T) -> T:
        """The size to take."""
        return small if self.small else usual


@dataclass(frozen=True)
class Part:
    """A part of the report.

    title: for people.
    share: of all the time, at most; the last part has what is left.
    measurements: offers them. What all of them need is made as they are asked for.
    """

    name: str
    title: str
    share: float
    measurements: Callable[[Setting], Iterable[Measurement]]


def on_cpu() -> bool:
    """Is there no accelerator, so that the report only shows that it runs?"""
    return jax.default_backend() == "cpu"


def speed(work: Work, amount: float, unit: str, rounds: int) -> Figures:
    """How fast some work is that makes so many units."""
    timing = alternate({unit: work}, rounds)[unit]
    return {
        f"{unit} a second": amount / timing.median,
        "spread": timing.spread,
        "compiling, s": timing.compiling,
    }


def sentence(error: Exception) -> str:
    """The kind of an error, and its first line."""
    line = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {line}"[:LINE]
