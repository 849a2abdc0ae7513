"""Does the device compute what a CPU computes? V's and M's loss and gradient, and the game, from the same numbers.

The reference are XLA's own programs on the CPU beside the accelerator, in float32: no kernels of ours.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.data.sequences import SequenceBatches
from wm_jax.envs.car_racing import dynamics
from wm_jax.envs.car_racing.camera import view
from wm_jax.envs.car_racing.drawing import picture
from wm_jax.envs.car_racing.game import CarRacingGame, Tracks
from wm_jax.envs.car_racing.raster import FRAME
from wm_jax.envs.car_racing.state import CarState
from wm_jax.envs.families import CAR_ACTIONS
from wm_jax.models import memory, vae
from wm_jax.models.latents import LatentKind
from wm_jax.rollout.exploration import plan
from wm_jax.run.artifacts import init_memory, init_vae
from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Setting, on_cpu
from wm_jax.tools.benchmark.memory import ACTION, LATENT, wandering_latents
from wm_jax.tools.benchmark.vae import difference, game_frames

Computed = tuple[Any, Any]
"""A loss and its gradients, as NumPy arrays."""
PRECISIONS = {"": None, ", highest precision": "highest"}
STEPS = (0, 1, 25, 100)
"""After which cars are compared, and their pictures."""


def measurements(setting: Setting) -> Iterator[Measurement]:
    """See above."""
    for name, compute in {"V": partial(_vae, setting), "M": partial(_memory, setting)}.items():
        theirs = cache(partial(_on_reference, compute))
        for said, precision in PRECISIONS.items():
            yield Measurement(f"{name}, float32{said}", partial(_compared, compute, theirs, precision))
        if name == "V" and not on_cpu():
            yield Measurement("V, bfloat16", partial(_compared, partial(compute, bfloat16=True), theirs, None))
    yield from _game(setting)


def reference() -> Any:
    """What is computed inside is computed on the CPU."""
    return jax.default_device(jax.devices("cpu")[0])


def _on_reference(compute: Callable[..., Computed]) -> Computed:
    """What the CPU computes, by plain programs."""
    with reference():
        return compute(fast=False)


def _compared(compute: Callable[..., Computed], reference: Callable[[], Computed], precision: str | None) -> Figures:
    """How far loss and gradients of the device are from the reference's."""
    loss, gradients = reference()
    with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
        our_loss, ours = compute(fast=True)
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(gradients), strict=True))
    error, size = (np.sqrt(sum(np.sum(np.square(each, dtype=np.float64)) for each in found))
                   for found in ([a - b for a, b in pairs], [b for _, b in pairs]))  # fmt: skip
    return {
        "loss": float(loss),
        "loss differs by": difference(our_loss, loss),
        "gradient differs by": float(error / size),
        "at most, of a tensor": max(difference(a, b) for a, b in pairs),
    }


def _vae(setting: Setting, *, fast: bool, bfloat16: bool = False) -> Computed:
    config = VanillaConfig(width=setting.size(1.0, 0.125), bfloat16=bfloat16, fast_kernels=fast)
    graphdef, params = _same(partial(init_vae, config, 0))
    frames = jnp.asarray(game_frames(setting.size(64, 4)))
    update = vae.Update(jax.random.key(3))
    metrics, gradients, _ = jax.jit(lambda p, x: vae.loss_and_grad(graphdef, p, vae.Batch(x), update))(params, frames)
    return jax.device_get((metrics["loss"], gradients))


def _memory(setting: Setting, *, fast: bool) -> Computed:
    steps, batch = setting.size((250, 16), (8, 2))
    config = MemoryConfig(hidden=setting.size(256, 16), fast_kernels=fast)
    graphdef, params = _same(partial(init_memory, config, LatentKind(LATENT), ACTION, 0))
    batches = SequenceBatches(wandering_latents(batch, steps), steps, batch, 0, False)
    shown = batches.fetch(batches.data, jax.tree.map(jnp.asarray, batches.windows.places(0)))
    carry, key = nnx.merge(graphdef, params).init_carry(batch), jax.random.key(1)
    metrics, _, gradients, _ = jax.jit(lambda p, x: memory.loss_and_grad(graphdef, p, x, carry, key))(params, shown)
    return jax.device_get((metrics["loss"], gradients))


def _same(make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """A network with the weights that the CPU draws: devices round random numbers otherwise."""
    with reference():
        graphdef, params = make()
    return graphdef, jax.device_get(params)


def _game(setting: Setting) -> Iterator[Measurement]:
    """Cars that are driven alike in both places, and pictures of the same cars."""
    count = setting.size(16, 2)
    last = setting.size(max(STEPS), 2)
    shared: dict[str, Any] = {}

    def cars() -> list[CarState]:
        """Of the reference, after each of the steps that are compared; driven once."""
        if not shared:
            with reference():
                shared["tracks"] = jax.device_get(CarRacingGame().params_for(range(count)))
                shared["cars"] = jax.device_get(_driven(jax.device_put(shared["tracks"]), count, last))
        return shared["cars"]

    def motion() -> Figures:
        """The largest differences of any car."""
        theirs = cars()
        ours = jax.device_get(_driven(jax.device_put(shared["tracks"]), count, last))
        return {"cars": [_apart(a, b, steps) for a, b, steps in zip(ours, theirs, STEPS, strict=False)]}

    def frames() -> Figures:
        rows = []
        for state, steps in zip(cars(), STEPS, strict=False):
            with reference():
                theirs = np.asarray(_pictures(jax.device_put(shared["tracks"]), jax.device_put(state), fast=False))
            ours = np.asarray(_pictures(jax.device_put(shared["tracks"]), jax.device_put(state), fast=True))
            levels = np.abs(ours.astype(np.int32) - theirs.astype(np.int32))
            rows.append({
                "steps": steps,
                "levels, at most": int(levels.max()),
                "levels, mean": float(levels.mean()),
                "share of numbers that differ": float((levels > 0).mean()),
            })  # fmt: skip
        return {"pictures": rows}

    yield Measurement("the car", motion)
    yield Measurement("its pictures", frames)


def _driven(tracks: Tracks, count: int, last: int) -> list[CarState]:
    """Cars after so many of `STEPS` as are not later than `last`."""
    actions = jnp.asarray(
        np.stack([plan("brownian", CAR_ACTIONS, seed, max(last, 1), 8.0) for seed in range(count)], 1)
    )
    cars = jax.jit(jax.vmap(dynamics.start, (None, 0)))(tracks.bank, jnp.arange(count, dtype=jnp.int32))

    @jax.jit
    def drive(tracks: Tracks, cars: CarState, actions: jax.Array, begin: int, end: int) -> CarState:
        def step(i: jax.Array, cars: CarState) -> CarState:
            return jax.vmap(dynamics.step, (None, 0, 0))(tracks.bank, cars, actions[i])[0]

        return jax.lax.fori_loop(begin, end, step, cars)

    found = [cars]
    for before, steps in pairwise(steps for steps in STEPS if steps <= last):
        found.append(drive(tracks, found[-1], actions, before, steps))
    return found


@partial(jax.jit, static_argnames="fast")
def _pictures(tracks: Tracks, cars: CarState, *, fast: bool) -> jax.Array:
    return jax.vmap(lambda car: picture(tracks.bank, view(car), FRAME, fast=fast))(cars)


def _apart(ours: CarState, theirs: CarState, steps: int) -> Figures:
    def largest(name: str) -> float:
        return float(np.abs(np.asarray(getattr(ours, name)) - np.asarray(getattr(theirs, name))).max())

    return {
        "steps": steps,
        "place, u": largest("centre"),
        "angle, rad": largest("angle"),
        "velocity, u/s": largest("velocity"),
        "spin, rad/s": largest("spins"),
        "cars with other tiles": int((np.asarray(ours.visited) != np.asarray(theirs.visited)).any(-1).sum()),
    }
