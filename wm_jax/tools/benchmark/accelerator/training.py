"""Preset gpu of CarRacing in the time that is left: how far it comes, how fast, and what came out.

The stages themselves are run, in `run` of the report's folder: `bin/evaluate --game carracing --run OUT/run` scores the
agent on Gymnasium's game, wherever that is installed. Each has a share of the time, and what it reaches by then counts
as its end. There are fewer episodes for M than in the preset, and V's rate of learning stays what it is, for nobody
knows how many updates there will be.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from wm_jax.config.layers import load
from wm_jax.config.schema import Config
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.metrics import read_metrics
from wm_jax.stages import collect, encode, train_controller, train_memory, train_vae
from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Setting
from wm_jax.utils.errors import UserError

GAME = "carracing"
SETTINGS: dict[str, dict[str, Any]] = {
    "collect": {"episodes": 128, "slots": 128, "test_fraction": 0.0625},
    "vae": {"final_learning_rate": None},
    "controller": {"evaluate_every": 10, "evaluate_episodes": 100, "confirm_episodes": 100},
}
SMALL: dict[str, dict[str, Any]] = {
    "env": {"episode_steps": 6},
    "collect": {"episodes": 4, "slots": 4, "episode_steps": 2, "test_fraction": 0.3},
    "vae": {"frames": "generated", "steps": 4, "steps_per_dispatch": 2},
    "memory": {"sequence": 4, "batch": 2, "steps": 4, "steps_per_dispatch": 2},
    "controller": {"generations": 1, "evaluate_every": 1, "evaluate_episodes": 2, "confirm_episodes": 2},
}
SHARES = {"vae": ("steps", 0.35), "memory": ("steps", 0.3), "controller": ("generations", 0.75)}
"""Of the time that is left then: of V's and M's updates, and of generations. What remains, the last one needs to be
evaluated and confirmed."""
STAGES: dict[str, Callable[[Config, Run, Stop], Figures]] = {
    "replays": collect.run,
    "vae": train_vae.run,
    "latents": encode.run,
    "memory": train_memory.run,
    "controller": train_controller.run,
}
CURVE = ("mean", "best", "evaluation_mean", "steps_per_second")


def measurements(setting: Setting) -> Iterator[Measurement]:
    """See above."""
    run = Run.open(setting.folder / "run")
    config = load(GAME, GAME, *(("smoke", SMALL) if setting.small else ("gpu", SETTINGS)))
    for name in STAGES:
        yield Measurement(name, partial(_stage, setting, run, config, name))


def _stage(setting: Setting, run: Run, config: Config, name: str) -> Figures:
    """Run a stage as far as its share of the time allows."""
    if name in SHARES:
        unit, share = SHARES[name]
        summary = within(share * setting.seconds_left(), STAGES[name], config, run, name, unit)
    else:
        summary = STAGES[name](config, run, Stop())
    figures = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    return {**figures, "curve": _curve(run)} if name == "controller" else figures


def within(
    seconds: float, stage: Callable[[Config, Run, Stop], Figures], config: Config, run: Run, name: str, unit: str
) -> Figures:
    """What a stage has reached after this time, brought to its end there.

    Args:
      unit: what the section of its settings counts, such as "steps".

    Raises:
      UserError: it has reached nothing.
    """
    try:
        with stopped_after(seconds) as stop:
            return stage(config, run, stop)
    except Interrupted:
        reached = run.stage(name).checkpoints.steps()
        if not reached:
            raise UserError(f"{name}: no {unit} were done in {seconds:.0f} s") from None
    section = getattr(config, name).model_copy(update={unit: reached[-1]})
    return stage(config.model_copy(update={name: section}), run, Stop())


@contextmanager
def stopped_after(seconds: float) -> Iterator[Stop]:
    """A `Stop` that is asked for after this time."""
    stop = Stop()
    timer = threading.Timer(max(seconds, 0.0), lambda: setattr(stop, "requested", True))
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()


def _curve(run: Run) -> list[Figures]:
    """Of the generations."""
    rows = read_metrics(run.stage("controller").path / "metrics.jsonl")
    return [{"generation": row["step"], **{name: row.get(name) for name in CURVE}} for row in rows]
