"""Game, V, M and C as one program: a generation of CMA-ES with the paper's networks, from its question to its answer.

All candidates play the same few episodes, as in training, and these are short: 50 of their 125 steps are in the first
second, which costs more than the others. Generations of their usual length are in the last part.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Setting, on_cpu
from wm_jax.tools.benchmark.controller import STEPS
from wm_jax.tools.benchmark.controller import Setting as Play
from wm_jax.tools.benchmark.timing import alternate

POPULATIONS = (64, 1024, 256, 4096)
EPISODES = 16
"""Different ones."""


def measurements(setting: Setting) -> Iterator[Measurement]:
    """See above."""
    for population in setting.size((64,) if on_cpu() else POPULATIONS, (4,)):
        yield Measurement(f"population {population:,}", partial(_generation, setting, population))


def generation(setting: Setting, population: int, steps: int) -> Play:
    """So many candidates on the same few episodes."""
    play = Play.make(population, steps, small=setting.small, bfloat16=True)
    return replace(play, seeds=[i % EPISODES for i in range(population)])


def _generation(setting: Setting, population: int) -> Figures:
    """Its speed, and what of its time the search takes, which decomposes its matrix in each of these generations."""
    play = generation(setting, population, setting.size(STEPS, 8))
    returns = np.zeros(population, np.float32)

    def search() -> None:
        asked, _ = play.evolution.ask(play.start)
        jax.block_until_ready(play.evolution.tell(asked, returns))

    timings = alternate({"all": play.on_device(), "search": search}, setting.rounds)
    return {
        "steps a second": play.amount / timings["all"].median,
        "spread": timings["all"].spread,
        "compiling, s": timings["all"].compiling,
        "seconds": timings["all"].median,
        "of them in the search": timings["search"].median,
    }
