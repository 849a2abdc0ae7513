"""Progress and records: JSON lines (the truth), TensorBoard (a view of it), and a progress bar or plain lines.

Of several processes (`hosts.py`) the first alone records and shows anything.
"""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX import SummaryWriter
from tqdm import tqdm

from wm_jax import hosts
from wm_jax.files import plain, to_json

PLAIN_LINE_EVERY_S = 10.0


class Metrics:
    """Appends records to `<folder>/metrics.jsonl` and to TensorBoard event files beside it.

    Args:
      folder: the stage's folder.
      resume_at: records of later steps are dropped, for they will be made again.
    """

    def __init__(self, folder: Path, resume_at: int = 0):
        self.path = folder / "metrics.jsonl"
        self._recording = hosts.is_main_process()
        if not self._recording:
            return
        kept = [row for row in read_metrics(self.path) if row["step"] <= resume_at]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(to_json(row) + "\n" for row in kept))
        temporary.replace(self.path)
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)

    def write(self, step: int, **values: float | int | None) -> None:
        """Record named numbers of one step; one that is not finite is null in the file, and as it is in TensorBoard."""
        if not self._recording:
            return
        row = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(to_json(row) + "\n")
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recording:
            self._file.close()
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, without lines that a crash tore; no file gives no records.

    Earlier versions wrote NaN and Infinity, which are null here as they are now in the file.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = plain(json.loads(line))
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


class Progress:
    """Rate, time left and key figures on standard error: a bar on a terminal, else a line now and then.

    Args:
      name: what is going on.
      total: units of work in all.
      unit: what is counted.
      done: units that were done before this process.
    """

    def __init__(self, name: str, total: int, unit: str, done: int = 0):
        self.name, self.total, self.unit = name, total, unit
        self.done = self._start = done
        self._began = self._last_line = time.monotonic()
        self._bar = None
        self._shown = hosts.is_main_process()
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
    if everywhere or hosts.is_main_process():
        tqdm.write(line, file=sys.stderr)
