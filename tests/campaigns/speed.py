"""How fast this checkout is beside another one: `bin/benchmark`'s work of both, in turns, call by call.

    python tests/campaigns/speed.py OTHER [--stage vae --stage memory] [--rounds 40]

Each checkout builds its own contender in a process of its own, which waits while the other one is timed; so a machine
whose speed drifts slows both. OTHER is used with its own `.venv`, or with this Python where it has none. Ends with a
row for each stage: the geometric mean of the other's time over ours within a round, its 95 % interval, and the median;
above 1, this checkout is faster.
"""

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from wm_jax.evaluation.statistics import half_width

HERE = Path(__file__).resolve().parents[2]
STAGES = ("vae", "encode", "memory", "controller")
WARM_UP = 2
"""Calls of each that are not counted; the first one compiles."""
WORKER = """
import importlib, sys, tempfile
from pathlib import Path
try:
    from wm_jax.utils import process
except ImportError:
    from wm_jax import process
process.prepare()
where = "wm_jax.tools.benchmark"
try:
    importlib.import_module(where)
except ImportError:
    where = "wm_jax.bench"  # in checkouts from before the rooms
Options = importlib.import_module(where + ".case").Options
folder = tempfile.TemporaryDirectory()
case = importlib.import_module(where + ".command")._case(sys.argv[1])(Options(("wm_jax",), Path(folder.name)))
work = case.makers["wm_jax"]()
print(Path(importlib.import_module("wm_jax").__file__).parents[1], flush=True)
timed = importlib.import_module(where + ".timing")._timed
for _ in sys.stdin:
    print(timed(work), flush=True)
"""
"""Times a call for every line that it is sent."""


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--stage", action="append", choices=STAGES, help=f"one of {', '.join(STAGES)} [all]")
    parser.add_argument("--rounds", type=int, default=40, help="timed calls of each [40]")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: give 2 or more, for an interval")
    for stage in options.stage or STAGES:
        seconds = in_turns(stage, options.other.resolve(), options.rounds)
        print(row(stage, seconds), flush=True)
    return 0


def in_turns(stage: str, other: Path, rounds: int) -> np.ndarray:
    """Seconds of each call: [rounds, 2], the other checkout's and ours. Who is first alternates."""
    with ExitStack() as stack:
        pair = [stack.enter_context(start(stage, checkout)) for checkout in (other, HERE)]
        for worker, checkout in zip(pair, (other, HERE), strict=True):
            assert worker.stdout is not None
            said = worker.stdout.readline().strip()
            if said != str(checkout):
                raise SystemExit(f"{stage}: {checkout} could not start, or runs another checkout's package: {said!r}")
        seconds = np.zeros((WARM_UP + rounds, 2))
        for count, both in enumerate(seconds):
            for place in (0, 1) if count % 2 else (1, 0):
                both[place] = timed(pair[place])
        return seconds[WARM_UP:]


def start(stage: str, checkout: Path) -> subprocess.Popen[str]:
    """The worker of one checkout."""
    python = checkout / ".venv" / "bin" / "python"
    return subprocess.Popen(
        [python if python.exists() else sys.executable, "-P", "-c", WORKER, stage],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def timed(worker: subprocess.Popen[str]) -> float:
    """Seconds of one call."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def row(stage: str, seconds: np.ndarray) -> str:
    """What came of one stage."""
    ratios = np.log(seconds[:, 0] / seconds[:, 1])
    mean, half = float(ratios.mean()), half_width(ratios) or 0.0
    low, middle, high = np.exp([mean - half, mean, mean + half])
    other, ours = np.median(seconds, axis=0)
    return (
        f"{stage:<10} {len(seconds)} rounds: {other:.3f} s the other, {ours:.3f} s ours (medians); the other's over "
        f"ours {middle:.3f} ({low:.3f} to {high:.3f}), median {np.exp(statistics.median(ratios)):.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
