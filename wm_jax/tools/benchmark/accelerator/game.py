"""CarRacing alone: frames a second of many slots that drive at random, with pictures and without."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp

from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Setting, on_cpu, speed
from wm_jax.tools.benchmark.driving import MIXES, Mix, actions, cars_of, driven, pictures, tracks
from wm_jax.tools.benchmark.timing import Work

SLOTS = (1024, 4096, 16384)
STEPS = 10
"""Of a call. All play the same ones again, so that fresh slots stay fresh."""


def measurements(setting: Setting) -> Iterator[Measurement]:
    """See above."""
    slots = setting.size((64, 512) if on_cpu() else SLOTS, (4,))
    for count in slots:
        for mix in MIXES:
            yield Measurement(f"{mix}, {count:,} slots", partial(_speed, setting, count, mix, frames=True))
    for count in slots:
        yield Measurement(f"without pictures, {count:,} slots", partial(_speed, setting, count, "late", frames=False))


def _speed(setting: Setting, count: int, mix: Mix, *, frames: bool) -> Figures:
    steps = setting.size(STEPS, 1)
    return speed(driving(setting, count, mix, steps, frames=frames), count * steps, "frames", setting.rounds)


def driving(setting: Setting, count: int, mix: Mix, steps: int, *, frames: bool) -> Work:
    """So many steps of as many cars, the same ones in every call."""
    params = tracks(setting.small)
    cars = cars_of(params, count, mix)
    begun = (pictures(params, cars), cars) if frames else cars
    play, moves = driven(frames=frames), jnp.asarray(actions(count, steps))

    def work() -> None:
        jax.block_until_ready(play(params, begun, moves))

    return work
