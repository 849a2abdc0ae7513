"""What the user is told while work goes on: a progress bar or plain lines, and single sentences.

Of several processes (`processes.py`) the main one alone shows anything.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from wm_jax.distributed import processes

PLAIN_LINE_EVERY_S = 10.0
_wording: Callable[[str], str] = str


class Progress:
    """Rate, time left and key figures on standard error: a bar on a terminal, else a line now and then.

    Args:
      name: what is going on.
      total: units of work in all.
      unit: what is counted.
      done: units that were done before this process.
      quiet: show nothing.
    """

    def __init__(self, name: str, total: int, unit: str, done: int = 0, *, quiet: bool = False):
        self.name, self.total, self.unit = name, total, unit
        self.done = self._start = done
        self._began = self._last_line = time.monotonic()
        self._bar = None
        self._shown = processes.is_main_process() and not quiet
        if self._shown and sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, unit=unit, desc=name, dynamic_ncols=True, leave=True)

    def advance(self, amount: int, **figures: float) -> None:
        """Count `amount` more units and show the key figures."""
        self.done += amount
        reached = self.done >= self.total > self.done - amount
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(amount)
        elif self._shown and (reached or time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S):
            self._last_line = time.monotonic()
            print(f"{self.name}: {self.done:,}/{self.total:,} {self.unit}s  {self._pace()}  {shown}", file=sys.stderr)

    def rate(self) -> float:
        """Units per second since this process began."""
        return (self.done - self._start) / max(time.monotonic() - self._began, 1e-9)

    def _pace(self) -> str:
        rate = self.rate()
        left = clock(max(self.total - self.done, 0) / rate) if rate else "unknown"
        return f"{rate:,.3g} {self.unit}s/s  {left} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class Stopwatch:
    """Seconds of work, those of earlier processes included."""

    def __init__(self, before: float = 0.0):
        self._before, self._began = before, time.monotonic()

    def seconds(self) -> float:
        """Until now, to a tenth."""
        return round(self._before + time.monotonic() - self._began, 1)


def clock(seconds: float) -> str:
    """Seconds as 12s, 3m05s or 2h07m."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def log(line: str, *, everywhere: bool = False) -> None:
    """Tell the user one thing, on standard error, past any progress bar; `everywhere`: by every process."""
    if everywhere or processes.is_main_process():
        tqdm.write(_wording(line), file=sys.stderr)


def set_wording(wording: Callable[[str], str]) -> None:
    """Have every line of `log` worded so: the command line shows settings and stages as they are typed."""
    global _wording
    _wording = wording
