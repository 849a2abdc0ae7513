"""The update of every auto-encoder beside the paper's: what each loss, posterior and network costs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from wm_jax.config.vaes import VARIANTS, VaeConfig
from wm_jax.data.frames import ResidentFrames
from wm_jax.data.neighbours import Neighbours
from wm_jax.models.vae import Examples, Update
from wm_jax.run.artifacts import init_vae
from wm_jax.stages.train_vae import optimizer_steps
from wm_jax.tools.benchmark.case import OURS, WRITTEN, Case, Options
from wm_jax.tools.benchmark.timing import Timing, Work
from wm_jax.tools.benchmark.updates import updates
from wm_jax.tools.benchmark.vae import FRAMES, LEARNING_RATE, UPDATES, apart, game_frames
from wm_jax.training.task import Task

OTHERS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"variant": name} for name in VARIANTS if name != "vanilla"},
    "residual": {"encoder": "residual", "decoder": "residual"},
    "grid": {"encoder": "grid", "decoder": "grid"},
    "noise, weights": {"noise_patches": True, "rare_weight": 5.0},
}
"""Contenders beside the paper's V -> their settings."""
IN_TORCH = ("beta_tc", "info")
"""Those that are held against PyTorch, too."""


def training(options: Options) -> Case:
    """Updates of each at batch 100: data, loss, gradient and Adam, of the discriminators too."""
    batch = options.batch or (8 if options.small else 100)
    frames = game_frames(64 if options.small else FRAMES)
    size = {"width": 0.125 if options.small else 1.0, "bfloat16": options.bfloat16, "batch": batch}

    def of(variant: str = "vanilla", **settings: Any) -> VaeConfig:
        return VARIANTS[variant](variant=variant, **size, **settings)

    def ours(settings: Mapping[str, Any]) -> Work:
        return work_of(of(**settings), frames, UPDATES, options.devices)

    def written(variant: str) -> Work:
        from wm_jax.tools.benchmark.pytorch import variants

        return variants.written_training(_model(of(variant)), variant, frames, batch, UPDATES, LEARNING_RATE)

    def agreement() -> float:
        from wm_jax.tools.benchmark.pytorch import variants

        return max(_apart(variants.loss_and_gradient, of(variant), frames[:8]) for variant in IN_TORCH)

    theirs = {f"torch {name}": partial(written, name) for name in IN_TORCH} if WRITTEN in options.names else {}
    makers = {OURS: partial(ours, {}), **{name: partial(ours, each) for name, each in OTHERS.items()}, **theirs}
    return Case(
        name=f"Auto-encoders' training, batch {batch}",
        unit="frames",
        amount=UPDATES * batch,
        flops=0.0,
        makers=makers,
        agreement=agreement,
        tolerance=1e-3,
        parts=(*OTHERS, *theirs),
        remark=costs,
    )


def work_of(config: VaeConfig, frames: np.ndarray, count: int, devices: int = 1) -> Work:
    """So many updates of an auto-encoder in each call, on these frames as of one episode, as `train_vae` makes them."""
    graphdef, params = init_vae(config, 0)
    steps = optimizer_steps(config, graphdef, params, len(frames), Examples.of(config, frames))
    neighbours = Neighbours(np.array([len(frames)])) if config.moving_weight else None
    data = ResidentFrames(frames, config.batch, 0, neighbours)
    return updates(Task(steps, data), params, (), batch=config.batch, count=count, devices=devices)


def costs(timings: Mapping[str, Timing]) -> str:
    """How much longer than the paper's each takes, the costliest first."""
    ours = timings[OURS]
    times = {name: 1 / timing.faster_than(ours) for name, timing in timings.items() if name != OURS}
    listed = ", ".join(f"{name} {times[name]:.2f}" for name in sorted(times, key=lambda each: -times[each]))
    return f"  ours is `vanilla`. Time of an update beside it: {listed}."


def _model(config: VaeConfig) -> Any:
    return nnx.merge(*init_vae(config, 0))


def _apart(theirs: Callable[..., Any], config: VaeConfig, frames: np.ndarray) -> float:
    """See `vae.apart`: PyTorch's is given the random numbers that ours draws."""
    model, key, shape = _model(config), jax.random.key(3), (len(frames), config.latent)
    noise, prior = (np.array(jax.random.normal(each, shape)) for each in jax.random.split(key))
    found = theirs(model, config.variant, frames, noise, prior)
    return apart(config, frames, Update(key, data_size=len(frames)), found)
