"""benchmark: throughput of the stages beside PyTorch, on this machine.

    bin/benchmark --stage vae --stage encode --against torch --rounds 10
    bin/benchmark --accelerator-report OUT

Before anything is timed, losses and gradients of both sides are compared on the same weights and data. Contenders take
turns in one process (`timing.py`); memory is measured in a process of each contender's own. The report of an
accelerator is `accelerator/report.py`.
"""

import argparse
import importlib.util
import math
import multiprocessing
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wm_jax.distributed.progress import log
from wm_jax.tools.benchmark.case import ENVIRONMENTS, FLOAT32, OURS, PLAIN, TUNED, WRITTEN, Case, Options
from wm_jax.tools.benchmark.timing import Timing, alternate, matmul_peak
from wm_jax.utils.arguments import Parser
from wm_jax.utils.errors import UsageError, UserError
from wm_jax.utils.files import to_json
from wm_jax.utils.process import cores

STAGES = ("vae", "encode", "memory", "controller", "drawing", "dream")
"""Timed if none is asked for."""
GAMES = {"dream": ("carracing", "enduro", "doomtakecover")}
"""Stages that are timed for some games, one after the other: dream:carracing, ..."""
ALONE = ("drawing", *GAMES)
"""Stages that nothing else is held against."""
LONGER = ("vaes",)
"""Timed if asked for: thirty contenders."""
AGAINST = {"torch": (TUNED, WRITTEN), "plain": (PLAIN,), "float32": (FLOAT32,), "none": ()}
ROUNDS = 7
MINUTES = 8.5
"""Of the report."""
ARITHMETIC = 0.6
"""From this share of the peak on, arithmetic is what takes the time."""


def main(arguments: Sequence[str]) -> int:
    """Run the benchmarks that are asked for and print what came of them."""
    parser = Parser(prog="bin/benchmark", description="Throughput of the stages beside PyTorch's, on this machine.")
    parser.add_argument("--stage", action="append", choices=(*STAGES, *LONGER, *_of_games()), help=f"one of "
                        f"{', '.join((*STAGES, *LONGER))} [all but {', '.join(LONGER)}]")  # fmt: skip
    parser.add_argument("--against", action="append", choices=AGAINST, help="torch (tuned by an expert, and as users "
                        "write it), plain (ours without the fast kernels), float32 (ours without bfloat16), none "
                        "[torch]")  # fmt: skip
    parser.add_argument("--float32", action="store_true", help="V computes in float32, ours and tuned PyTorch's, where "
                        "the device has bfloat16")  # fmt: skip
    parser.add_argument("--batch", action="append", type=int, metavar="N", help="batch sizes [the stage's own]")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="that share the batches of our V and M [1]")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"timed rounds [{ROUNDS}]")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it all run here?")
    parser.add_argument("--plot", metavar="FILE", help="write a bar chart of the throughputs (PNG)")
    parser.add_argument("--accelerator-report", metavar="OUT", help="instead of all that: measure the accelerator, the "
                        "game, V and M beside PyTorch, the loop, and a short training on it, most valuable first, into "
                        "this folder; given again, it goes on with what is missing")  # fmt: skip
    parser.add_argument("--minutes", type=float, metavar="M", help=f"that the report may take [{MINUTES}]")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line of standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--memory-of", metavar="NAME", help=argparse.SUPPRESS)  # one contender, in its own process
    options = parser.parse_args(arguments)
    if options.accelerator_report or options.minutes is not None:
        return _report(options, parser.parse_args([]))
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds}: give 1 or more")
    if options.devices < 1:
        raise UsageError(f"--devices {options.devices}: give 1 or more")
    if any(batch < 1 for batch in options.batch or ()):
        raise UsageError("--batch: give 1 or more")
    # Some stages have no counterpart in PyTorch, and are timed without it.
    by_default = ["torch" if any(name.split(":")[0] not in ALONE for name in options.stage or STAGES) else "none"]
    names = (OURS, *(name for against in options.against or by_default for name in AGAINST[against]))
    names = (options.memory_of,) if options.memory_of else names
    if any(name.startswith("torch") for name in names) and importlib.util.find_spec("torch") is None:
        raise UserError(
            f"--against torch: PyTorch is not installed; {sys.executable} -m pip install torch==2.13.0, "
            "or give --against none"
        )
    with tempfile.TemporaryDirectory(prefix="wm_jax-benchmark-") as folder:
        asked = Options(names, Path(folder), options.small, devices=options.devices, bfloat16=not options.float32)
        if options.memory_of:
            return _show_memory(options, asked)
        return _run(options, asked)


def _report(options: argparse.Namespace, defaults: argparse.Namespace) -> int:
    """The report of an accelerator."""
    if not options.accelerator_report:
        raise UsageError(f"--minutes {options.minutes:g}: only --accelerator-report OUT has a time; give that, too")
    others = {name for name, value in vars(options).items() if value != getattr(defaults, name)}
    for name in sorted(others - {"accelerator_report", "minutes", "small", "json", "debug"}):
        raise UsageError(f"--{name.replace('_', '-')}: the report of an accelerator has sizes of its own; leave it out")
    minutes = MINUTES if options.minutes is None else options.minutes
    if not 0 < minutes < math.inf:
        raise UsageError(f"--minutes {minutes:g}: give more than 0")
    from wm_jax.tools.benchmark.accelerator import report

    summary = report.write(Path(options.accelerator_report), small=options.small, minutes=minutes)
    if options.json:
        print(to_json(summary))
    return 0


def _run(options: argparse.Namespace, asked: Options) -> int:
    import jax

    device = jax.devices()[0]
    log(f"{device.device_kind} ({device.platform}), {cores()} cores, jax {jax.__version__}, {platform.machine()}")
    peak = matmul_peak()
    log(f"float32 matrix products reach {peak / 1e9:,.0f} GFLOP/s here\n")
    results: list[dict[str, Any]] = []
    stages = [each for name in options.stage or STAGES for each in (_of_games(name) if name in GAMES else [name])]
    for stage in stages:
        for batch in options.batch or [0]:
            case = _case(stage)(replace(asked, batch=batch))
            names = tuple(name for name in asked.names if name in case.makers)
            timings = _time(case, names, options.rounds)
            memories = {name: _memory(options, stage, batch, name) for name in names}
            rows = [_row(case, name, timings, peak, memories.get(name)) for name in timings]
            _print(case, rows)
            print(_remark(case, rows[0]["of_peak"], timings), end="\n\n", flush=True)
            results += rows
    if options.plot:
        from wm_jax.render.plots import throughputs

        throughputs(options.plot, results)
    if options.json:
        print(to_json({"device": device.device_kind, "cores": cores(), "peak_gflops": peak / 1e9, "rows": results}))
    return 0


def _of_games(*stages: str) -> list[str]:
    """The stages of single games."""
    return [f"{stage}:{game}" for stage in stages or GAMES for game in GAMES.get(stage, ())]


def _case(stage: str) -> Callable[[Options], Case]:
    from wm_jax.tools.benchmark import controller, drawing, dreaming, memory, vae, vaes

    kind, _, game = stage.partition(":")
    cases = {
        "vae": vae.training,
        "vaes": vaes.training,
        "encode": vae.encoding,
        "memory": memory.training,
        "controller": controller.generation,
        "drawing": drawing.pictures,
        "dream": partial(dreaming.playing, game),
    }
    return cases[kind]


def _time(case: Case, names: Sequence[str], rounds: int) -> dict[str, Timing]:
    import jax

    if any(name.startswith("torch") for name in names):
        with jax.default_matmul_precision("highest"):
            found = case.agreement()
        if not found < case.tolerance:
            raise UserError(
                f"{case.name}: ours and PyTorch's differ by {found:.1e} on the same weights and data, more than "
                f"{case.tolerance:.0e}: nothing is timed; please report it"
            )
        log(f"{case.name}: the same weights and data give the same {case.compared} (within {found:.0e})")
    return alternate({name: case.makers[name]() for name in (*names, *case.parts)}, rounds, case.name)


def _row(case: Case, name: str, timings: dict[str, Timing], peak: float, memory: float | None) -> dict[str, Any]:
    timing = timings[name]
    rate = case.amount / timing.median
    flops = 0.0 if name == ENVIRONMENTS else case.flops
    return {
        "case": case.name,
        "contender": name,
        "unit": case.unit,
        "per_second": round(rate, 1),
        "spread": round(timing.spread, 3),
        "times_ours": round(timing.faster_than(timings[OURS]), 3),
        "gflops": round(rate * flops / 1e9, 1),
        "of_peak": round(rate * flops / peak, 3),
        "compile_seconds": round(timing.compiling, 1),
        "memory_gb": memory,
    }


def _print(case: Case, rows: Sequence[dict[str, Any]]) -> None:
    counted = case.flops > 0
    amount = f" ({case.flops / 1e6:,.1f} MFLOP per {case.unit.removesuffix('s')})" if counted else ""
    arithmetic = f"{'GFLOP/s':>9}{'of peak':>9}" if counted else ""
    print(case.name + amount)
    print(f"  {'':<18}{case.unit + '/s':>18}{'spread':>9}{'x ours':>9}{arithmetic}{'compile':>9}{'memory':>9}")
    for row in rows:
        memory = f"{row['memory_gb']:.1f} GB" if row["memory_gb"] is not None else ""
        arithmetic = f"{row['gflops']:>9,.0f}{row['of_peak']:>9.0%}" if counted else ""
        print(
            f"  {row['contender']:<18}{row['per_second']:>18,.0f}{row['spread']:>9.0%}{row['times_ours']:>9.2f}"
            f"{arithmetic}{row['compile_seconds']:>7.1f} s{memory:>9}"
        )


def _remark(case: Case, of_peak: float, timings: dict[str, Timing]) -> str:
    """What the figures say together."""
    said = [] if case.remark is None else [case.remark(timings)]
    if case.narrow:
        said.append("  V multiplies in bfloat16, ours and tuned PyTorch's; the peak is that of float32.")
    return "\n".join(said or [_limit(of_peak)])


def _limit(of_peak: float) -> str:
    """What keeps ours from being faster."""
    if of_peak > 1:
        return "  The machine was slower while its peak was measured than now: measure again to know what limits ours."
    taken = f"at full speed, matrix products would take {of_peak:.0%} of the time"
    if of_peak >= ARITHMETIC:
        return f"  What limits ours: arithmetic; {taken}."
    return f"  What limits ours: memory traffic, small operations or other processes; {taken}."


def _memory(options: argparse.Namespace, stage: str, batch: int, name: str) -> float | None:
    """Peak memory of a process that has run this contender alone, in GB."""
    words = ["--stage", stage, "--memory-of", name]
    words += ["--batch", str(batch)] if batch else []
    words += ["--small"] if options.small else []
    words += ["--devices", str(options.devices), *(["--float32"] if options.float32 else [])]
    command = [sys.executable, "-P", "-m", "wm_jax", "benchmark", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None


def _show_memory(options: argparse.Namespace, asked: Options) -> int:
    case = _case(options.stage[0])(replace(asked, batch=(options.batch or [0])[0]))
    work = case.makers[options.memory_of]()
    for _ in range(2):
        work()
    print(round(_peak_bytes() / 1e9, 2))
    return 0


def _peak_bytes() -> int:
    """The most memory that this process and its workers ever had; not getrusage's, which begins with the parent's."""
    workers = [process.pid for process in multiprocessing.active_children()]
    if Path("/proc/self/status").exists():
        return sum(_peak_of(process) for process in ("self", *workers))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _peak_of(process: str | int | None) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024
