"""How fast our game is beside Gymnasium's and EnvPool's: steps with 64 x 64 frames, in turns in one process.

All play random actions, a new one in every step, from the start of an episode on, and none gets to its end. The first
second of the game, in which the camera is far away and our pictures take longer, falls into a call that isn't timed.
"""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing as TheirCarRacing

from wm_jax.config.schema import EnvConfig
from wm_jax.envs.car_racing.raster import OBSERVATION, ROWS_SEEN
from wm_jax.envs.games import find
from wm_jax.envs.host.resize import shrink
from wm_jax.envs.make import open_pool
from wm_jax.envs.types import Pool
from wm_jax.tools.benchmark import driving
from wm_jax.tools.benchmark.timing import Work, alternate

GYMNASIUM, ENVPOOL = "Gymnasium, one process", "EnvPool"
BLIND = ", no frames"
CROP = (0, ROWS_SEEN, 0, OBSERVATION)


@dataclass(frozen=True)
class Size:
    """How much is timed: environments of ours, of EnvPool, steps of each in a call, and timed rounds."""

    counts: tuple[int, ...] = (64, 512)
    pool: int = 64
    steps: int = 90
    rounds: int = 7


@dataclass(frozen=True)
class Speed:
    """Of one contender: steps a second, how far they spread, and how many times those of the other games they are."""

    per_second: float
    spread: float
    gymnasium: float
    envpool: float


def measure(size: Size) -> dict[str, Speed]:
    """Time all contenders."""
    works: dict[str, Work] = {}
    amounts: dict[str, int] = {}
    game = find("carracing", EnvConfig(backend="envpool"))
    with closing(open_pool(game, size.pool)) as pool, closing(TheirCarRacing()) as theirs:
        for count in size.counts:
            for end, frames in (("", True), (BLIND, False)):
                name = f"ours, {count} at once{end}"
                works[name], amounts[name] = _ours(count, size.steps, frames=frames), count * size.steps
        works[GYMNASIUM], amounts[GYMNASIUM] = _gymnasium(theirs, size), size.steps
        pooled = f"{ENVPOOL}, {size.pool} at once"
        works[pooled], amounts[pooled] = _envpool(pool, size), size.pool * size.steps
        timings = alternate(works, size.rounds, "speed")

    def times(name: str, other: str) -> float:
        return timings[name].faster_than(timings[other]) * amounts[name] / amounts[other]

    return {
        name: Speed(amounts[name] / timing.median, timing.spread, times(name, GYMNASIUM), times(name, pooled))
        for name, timing in timings.items()
    }


def _ours(count: int, steps: int, *, frames: bool) -> Work:
    """The steps of a call are one program; the next call goes on where it ended."""
    params, play = driving.tracks(), driving.driven(frames=frames)
    moves, cars = jnp.asarray(driving.actions(count, steps)), driving.starting(params, count)
    now: Any = (driving.pictures(params, cars), cars) if frames else cars

    def work() -> None:
        nonlocal now
        now, _ = jax.block_until_ready(play(params, now, moves))

    return work


def _gymnasium(game: TheirCarRacing, size: Size) -> Work:
    """Without wrappers, which would only cost time; its picture is made into V's frame."""
    game.reset(seed=0)
    actions = driving.actions(1, size.steps)[:, 0]

    def work() -> None:
        for action in actions:
            screen, *_ = game.step(action)
            shrink(np.asarray(screen)[None], CROP)

    return work


def _envpool(pool: Pool, size: Size) -> Work:
    """As fast as it goes: whoever is ready is sent on at once, while the others are still stepped."""
    pool.reset(range(size.pool))
    actions = driving.actions(size.pool, size.steps)

    def work() -> None:
        played = np.zeros(size.pool, np.int64)
        pool.send(np.arange(size.pool), actions[0])
        while (played < size.steps).any():
            step = pool.recv()
            played[step.ids] += 1
            ended = step.terminated | step.truncated
            played[step.ids[ended]] = size.steps
            on = step.ids[played[step.ids] < size.steps]
            pool.send(on, actions[played[on], on])

    return work
