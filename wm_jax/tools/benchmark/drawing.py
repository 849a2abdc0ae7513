"""The benchmark of CarRacing's pictures: what episodes at their beginning cost, where the camera is far away."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.envs.car_racing.camera import view
from wm_jax.envs.car_racing.drawing import Shot, picture
from wm_jax.envs.car_racing.raster import FRAME
from wm_jax.envs.car_racing.track import Tracks
from wm_jax.tools.benchmark.case import OURS, Case, Options
from wm_jax.tools.benchmark.driving import starting, tracks
from wm_jax.tools.benchmark.timing import Timing, Work

BATCH = 16
CALLS = 20
"""Batches drawn in one call."""
LATE = 500
"""Steps after which the camera has long been near."""
AGES: Mapping[str, Callable[[int], np.ndarray]] = {
    OURS: lambda rows: np.full(rows, LATE),
    "one of 16 begins": lambda rows: np.where(np.arange(rows) % 16, LATE, 1),
    "one of 8 begins": lambda rows: np.where(np.arange(rows) % 8, LATE, 1),
    "one of 8 comes near": lambda rows: np.where(np.arange(rows) % 8, LATE, 11),
    "as in training": lambda rows: np.linspace(1, 1000, rows).astype(int),
    "all begin": lambda rows: np.ones(rows, int),
}
"""How old each row's game is, in steps (a start is 1 old); ours is what a batch costs in which nobody begins."""


def pictures(options: Options) -> Case:
    """Frames of many cars, in the formulation for accelerators, whatever the device."""
    rows, calls = (8, 1) if options.small else (options.batch or BATCH, CALLS)
    params = tracks(options.small)

    @jax.jit
    def draw(bank: Tracks, shots: Shot) -> jax.Array:
        def again(total: jax.Array, _: None) -> tuple[jax.Array, None]:
            # What is seen depends on the round before: else the compiler would draw once.
            turned = shots._replace(numbers=shots.numbers + 1e-6 * total[0, 0, 0, 0])
            seen = jax.vmap(lambda shot: picture(bank, shot, FRAME, fast=False))(turned)
            return total + seen.astype(jnp.float32), None

        return jax.lax.scan(again, jnp.zeros((rows, FRAME, FRAME, 3), jnp.float32), None, calls)[0]

    def drawn(steps: np.ndarray) -> Work:
        cars = starting(params, rows)._replace(steps=jnp.asarray(steps, jnp.int32))
        shots = jax.vmap(view)(cars)

        def work() -> None:
            draw(params.bank, shots).block_until_ready()

        return work

    makers = {name: partial(drawn, ages(rows)) for name, ages in AGES.items()}
    name = f"CarRacing's pictures, {rows} at once, formulation for accelerators"
    parts = tuple(name for name in AGES if name != OURS)
    return Case(name, "frames", rows * calls, 0.0, makers, lambda: 0.0, 1.0, parts=parts, remark=_shares)


def _shares(timings: Mapping[str, Timing]) -> str:
    """What the beginnings leave of the speed."""
    kept = {name: timing.faster_than(timings[OURS]) for name, timing in timings.items() if name != OURS}
    said = ", ".join(f"{name} {share:.2f}" for name, share in kept.items())
    return f"  Of the speed without beginnings: {said}."
