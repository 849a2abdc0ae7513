"""The report: parts in the order of their worth, in the time that there is.

    OUT/results.jsonl    everything, a line as soon as it is there (`records.py`)
    OUT/report.md        the same for people, written anew after every measurement
    OUT/run/             what the last part trained, for `bin/evaluate --run OUT/run`

Started again with the same folder it goes on: what was measured stays, what failed is tried once more. A measurement
that fails is recorded with its error, and the next one begins.
"""

import gc
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import jax

from wm_jax.distributed.mesh import started
from wm_jax.distributed.progress import clock, log
from wm_jax.tools.benchmark.accelerator import agreement, device, game, loop, networks, profile, training
from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Part, Setting, sentence
from wm_jax.tools.benchmark.accelerator.page import render
from wm_jax.tools.benchmark.accelerator.records import WHOLE, Records
from wm_jax.utils.files import write_atomically

PARTS = (
    Part("device", "The device", 0.05, device.measurements),
    Part("agreement", "Agreement with the CPU", 0.1, agreement.measurements),
    Part("game", "CarRacing", 0.14, game.measurements),
    Part("networks", "V and M, beside PyTorch", 0.26, networks.measurements),
    Part("loop", "Game, V, M and C", 0.1, loop.measurements),
    Part("profile", "Where the time goes", 0.1, profile.measurements),
    Part("training", "Preset gpu", 1.0, training.measurements),
)
LEAST = 8.0
"""Seconds that must be left for a part, or a measurement, to begin."""
TRIES = 2
"""Of a measurement. One that ended the process twice is not begun again."""
TRACE = 2000
"""Letters that are kept of the end of an error's traceback."""


def write(folder: Path, *, small: bool, minutes: float) -> Figures:
    """Measure what is missing, as far as the time allows; a summary.

    Raises:
      UserError: the folder holds another report.
    """
    # PyTorch needs memory too. Set before JAX looks for its devices.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    began, budget = time.monotonic(), 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    about = {"small": small, "device": started()[0].device_kind}
    records = Records(folder / "results.jsonl", about)
    for part in PARTS:
        left = began + budget - time.monotonic()
        deadline = time.monotonic() + (left if small else min(left, max(part.share * budget, 2 * LEAST)))
        setting = Setting(folder, small, lambda deadline=deadline: deadline - time.monotonic(), records.figures)
        log(f"== {part.title} (at most {clock(max(setting.seconds_left(), 0))})")
        for _ in _taken(part, setting, records):
            write_atomically(folder / "report.md", render(records, PARTS).encode())
        jax.clear_caches()
        gc.collect()
    counts = {state: records.count(part.name for part in PARTS)[state] for state in ("done", "failed", "skipped")}
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    log(f"{folder / 'report.md'}: {said}, in {clock(time.monotonic() - began)}")
    return {**about, **counts, "report": str(folder / "report.md")}


def _taken(part: Part, setting: Setting, records: Records) -> Iterator[None]:
    """Take the measurements of a part; yields whenever there is another line."""
    if setting.seconds_left() < LEAST:
        records.add(part.name, WHOLE, "skipped", error="no time was left")
        yield
        return
    offered = iter(part.measurements(setting))
    while True:
        try:
            measurement = next(offered, None)
        except Exception as error:  # what the rest of them need could not be made
            records.add(part.name, WHOLE, "failed", **_said(error))
            yield
            return
        if measurement is None:
            return
        if not records.is_done(part.name, measurement.name):
            _measure(part.name, measurement, setting, records)
            yield


def _measure(part: str, measurement: Measurement, setting: Setting, records: Records) -> None:
    """One measurement; what comes of it is written, whatever that is."""
    name = measurement.name
    if records.tries(part, name) >= TRIES:
        if records.last(part)[name]["state"] == "begun":
            records.add(part, name, "failed", error="the process ended, or was ended, in the middle of it")
        return
    if setting.seconds_left() < LEAST:
        records.add(part, name, "skipped", error="no time was left")
        return
    records.add(part, name, "begun")
    began = time.monotonic()
    try:
        figures = measurement.take()
    except Exception as error:
        records.add(part, name, "failed", **_said(error))
        log(f"   {name}: failed ({type(error).__name__})")
        return
    seconds = round(time.monotonic() - began, 1)
    records.add(part, name, "done", seconds=seconds, figures=figures)
    log(f"   {name} ({seconds} s)")


def _said(error: Exception) -> dict[str, str]:
    """What is kept of an error: its first line, and the end of its traceback."""
    return {"error": sentence(error), "trace": traceback.format_exc()[-TRACE:]}
