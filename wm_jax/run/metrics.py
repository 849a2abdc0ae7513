"""A stage's figures over its steps: JSON lines (the truth) and TensorBoard (a view of it).

Of several processes the main one alone records anything.
"""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX import SummaryWriter

from wm_jax.distributed import processes
from wm_jax.utils.files import plain, to_json


class Metrics:
    """Appends records to `<folder>/metrics.jsonl` and to TensorBoard event files beside it.

    Args:
      folder: the stage's folder.
      resume_at: records of later steps are dropped, for they will be made again.
    """

    def __init__(self, folder: Path, resume_at: int = 0):
        self.path = folder / "metrics.jsonl"
        self._recording = processes.is_main_process()
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
