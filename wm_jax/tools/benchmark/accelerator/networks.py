"""Training V, encoding with it and training M, beside PyTorch at the same arithmetic.

The cases are those of `bin/benchmark`: float32 beside float32 (rounded to TF32 where the processor has that, on both
sides), bfloat16 beside bfloat16. Where PyTorch is not installed ours are timed alone.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from wm_jax.tools.benchmark import memory, vae
from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Setting, on_cpu, sentence
from wm_jax.tools.benchmark.case import OURS, TUNED, WRITTEN, Case, Options
from wm_jax.tools.benchmark.timing import Timing, Work, alternate

ROUNDS = 5
MAKERS: Mapping[str, Callable[[Options], Case]] = {
    "V training": vae.training,
    "V encoding": vae.encoding,
    "M training": memory.training,
}


class Comparison(NamedTuple):
    """What is timed.

    work: a name in `MAKERS`.
    batch: its size; 0 for the paper's, or what is usual.
    bfloat16: what convolutions multiply in, on both sides.
    written: beside PyTorch as users write it, too.
    """

    work: str
    batch: int = 0
    bfloat16: bool = False
    written: bool = False


COMPARISONS = (
    Comparison("V training", 100, bfloat16=True),
    Comparison("V encoding", 256, bfloat16=True),
    Comparison("M training", 100, written=True),
    Comparison("V training", 100, written=True),
    Comparison("V encoding", 256, written=True),
    Comparison("V training", 1000, bfloat16=True),
    Comparison("V encoding", 2048, bfloat16=True),
    Comparison("M training", 400),
)
ON_CPU = tuple(Comparison(work, 0, written=True) for work in MAKERS)
"""Where float32 is all there is."""


def measurements(setting: Setting) -> Iterator[Measurement]:
    """See above."""
    there = _has_pytorch()
    if not there:
        yield Measurement("PyTorch", lambda: {"installed": "no: ours alone are timed"})
    comparisons = ON_CPU if setting.small or on_cpu() else COMPARISONS
    for asked in comparisons:
        arithmetic = "bfloat16" if asked.bfloat16 else "float32"
        batch = f", batch {asked.batch:,}" if asked.batch else ""
        yield Measurement(f"{asked.work}{batch}, {arithmetic}", partial(_compare, setting, asked, there))
    for work in dict.fromkeys(asked.work for asked in comparisons) if there else ():
        yield Measurement(f"{work}, the same numbers", partial(_agreement, work))


def _has_pytorch() -> bool:
    with suppress(ImportError):
        return importlib.util.find_spec("torch") is not None
    return False


def _agreement(work: str) -> Figures:
    """How far apart loss and gradient are, on the same weights and data, in float32."""
    with tempfile.TemporaryDirectory() as folder, jax.default_matmul_precision("highest"):
        case = MAKERS[work](Options((OURS, TUNED), Path(folder), small=True))
        return {"ours and PyTorch's differ by": case.agreement(), "tolerated": case.tolerance}


def _compare(setting: Setting, asked: Comparison, there: bool) -> Figures:
    """All contenders in turns. One that fails is left out, and its error is kept."""
    names = (OURS, *((TUNED,) if there else ()), *((WRITTEN,) if there and asked.written else ()))
    with tempfile.TemporaryDirectory(prefix="wm_jax-report-") as folder:
        options = Options(names, Path(folder), setting.small, asked.batch, bfloat16=asked.bfloat16)
        case = MAKERS[asked.work](options)
        works: dict[str, Work] = {}
        first, errors = {}, {}
        for name in names:
            began = time.perf_counter()
            try:
                works[name] = case.makers[name]()
                works[name]()
            except Exception as error:
                works.pop(name, None)
                errors[name] = sentence(error)
            first[name] = time.perf_counter() - began
        timings = alternate(works, 2 if setting.small else ROUNDS)
        timings = {name: Timing(first[name], timing.seconds) for name, timing in timings.items()}
    peak = setting.found("device", f"matrix product, {'bfloat16' if asked.bfloat16 else 'float32'}").get("TFLOP/s")
    remarks = {TUNED: _remark()} if there else {}
    rows = [_row(case, name, timings, peak, remarks.get(name, "")) for name in timings]
    rows += [
        {**dict.fromkeys(rows[0] if rows else ()), "contender": name, "remark": text} for name, text in errors.items()
    ]
    _release()
    return {"MFLOP each": case.flops / 1e6, "contenders": rows}


def _row(case: Case, name: str, timings: Mapping[str, Timing], peak: float | None, remark: str) -> Figures:
    timing = timings[name]
    rate = case.amount / timing.median
    teraflops = rate * case.flops / 1e12
    return {
        "contender": name,
        f"{case.unit} a second": rate,
        "spread": timing.spread,
        "times ours": timing.faster_than(timings[OURS]) if OURS in timings else None,
        "TFLOP/s": teraflops,
        "of the peak": None if peak is None else teraflops / peak,
        "compiling, s": timing.compiling,
        "remark": remark,
    }


def _remark() -> str:
    """Of PyTorch, tuned."""
    from wm_jax.tools.benchmark.pytorch.models import compile_failure

    return compile_failure()


def _release() -> None:
    """Let PyTorch give back memory that it keeps for later, which JAX may need."""
    with suppress(ImportError):
        from wm_jax.tools.benchmark.pytorch.models import release

        release()
