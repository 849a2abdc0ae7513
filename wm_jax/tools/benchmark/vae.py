"""V's benchmarks: training updates, and encoding."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.vaes import VaeConfig, VanillaConfig
from wm_jax.data.frames import ResidentFrames
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Update, gradient_of, loss_and_grad
from wm_jax.models.vae.layers import compute_type
from wm_jax.run.artifacts import init_vae
from wm_jax.tools.benchmark import flops
from wm_jax.tools.benchmark.case import FLOAT32, OURS, PLAIN, TUNED, WRITTEN, Case, Options
from wm_jax.tools.benchmark.timing import Work
from wm_jax.tools.benchmark.updates import updates
from wm_jax.training.task import Task, adam
from wm_jax.utils.sizes import FRAME

FRAMES = 2000
LEARNING_RATE = 1e-4
UPDATES = 4
"""Updates in one call."""
ENCODED = 1024
"""Frames encoded in one call, in batches: at least."""


def training(options: Options) -> Case:
    """Updates of the paper's V at batch 100: data, loss, gradient and Adam."""
    batch = options.batch or (8 if options.small else 100)
    config, frames = _config(options), game_frames(64 if options.small else FRAMES)

    def ours(**settings: bool) -> Work:
        graphdef, params = init_vae(config.model_copy(update=settings), 0)
        task = Task.single(gradient_of(graphdef), adam(LEARNING_RATE, None, 1), ResidentFrames(frames, batch, 0))
        return updates(task, params, (), batch=batch, count=UPDATES, devices=options.devices)

    def tuned() -> Work:
        from wm_jax.tools.benchmark.pytorch import vae

        return vae.tuned_training(_model(config), frames, batch, UPDATES, LEARNING_RATE, narrow=is_narrow(config))

    def written() -> Work:
        from wm_jax.tools.benchmark.pytorch import vae

        return vae.written_training(_model(config), frames, batch, UPDATES, LEARNING_RATE, options.folder)

    def agreement() -> float:
        from wm_jax.tools.benchmark.pytorch import vae

        shown, key = frames[:8], jax.random.key(3)
        noise = jax.random.normal(jax.random.split(key)[0], (len(shown), config.latent))
        return apart(config, shown, Update(key), vae.loss_and_gradient(_model(config), shown, np.array(noise)))

    makers = {
        OURS: ours,
        FLOAT32: lambda: ours(bfloat16=False),
        PLAIN: lambda: ours(fast_kernels=False),
        TUNED: tuned,
        WRITTEN: written,
    }
    return Case(
        name=f"V training, batch {batch}",
        unit="frames",
        amount=UPDATES * batch,
        flops=flops.vae_update(config),
        makers=makers,
        agreement=agreement,
        tolerance=1e-3,
        narrow=is_narrow(config),
    )


def encoding(options: Options) -> Case:
    """Uint8 frames to means, in batches of one size: what `encode` and every rollout do."""
    batch = options.batch or (8 if options.small else 64)
    config, frames = _config(options), game_frames(16 if options.small else max(ENCODED, 2 * batch))
    batches = [frames[start : start + batch] for start in range(0, len(frames) - batch + 1, batch)]

    def ours(**settings: bool) -> Work:
        encode, params = _encoder(config.model_copy(update=settings))

        def work() -> None:
            for shown in batches:
                encode(params, shown).block_until_ready()

        return work

    def theirs(*, tuned: bool) -> Work:
        from wm_jax.tools.benchmark.pytorch import vae

        return vae.encoding(_model(config), batches, tuned=tuned, narrow=is_narrow(config))

    def agreement() -> float:
        from wm_jax.tools.benchmark.pytorch import vae

        encode, params = _encoder(config.model_copy(update={"bfloat16": False}))
        return difference(encode(params, batches[0]), vae.means(_model(config), batches[0]))

    makers = {
        OURS: ours,
        FLOAT32: lambda: ours(bfloat16=False),
        PLAIN: lambda: ours(fast_kernels=False),
        TUNED: lambda: theirs(tuned=True),
        WRITTEN: lambda: theirs(tuned=False),
    }
    return Case(
        name=f"V encoding, batch {batch}",
        unit="frames",
        amount=len(batches) * batch,
        flops=flops.encoding(config),
        makers=makers,
        agreement=agreement,
        tolerance=1e-4,
        narrow=is_narrow(config),
    )


def apart(config: VaeConfig, frames: np.ndarray, update: Update, theirs: tuple[np.ndarray, np.ndarray]) -> float:
    """How far PyTorch's loss and gradient of the first convolution are from ours, in float32 and with fresh weights."""
    graphdef, params = init_vae(config.model_copy(update={"bfloat16": False}), 0)
    metrics, gradients, _ = jax.jit(lambda p, x: loss_and_grad(graphdef, p, Batch(x), update))(params, frames)
    first = nnx.merge(graphdef, gradients).encoder.kernels[0][...]
    return max(difference(metrics["loss"], theirs[0]), difference(first, theirs[1]))


def game_frames(count: int) -> np.ndarray:
    """uint8 [count, 64, 64, 3] that compress like a game's: a few soft shapes on a flat ground."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    frames = np.empty((count, *FRAME), np.uint8)
    for frame in frames:
        frame[:] = random.integers(0, 256, 3)
        for _ in range(4):
            centre, size = random.uniform(0, 64, 2), random.uniform(3, 20)
            frame[np.hypot(rows - centre[0], columns - centre[1]) < size] = random.integers(0, 256, 3)
    return frames


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference, relative to the largest number."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


def is_narrow(config: VaeConfig) -> bool:
    """Do ours multiply in bfloat16 here?"""
    return compute_type(config) == jnp.bfloat16


def _config(options: Options) -> VaeConfig:
    return VanillaConfig(width=0.125 if options.small else 1.0, bfloat16=options.bfloat16)


def _encoder(config: VaeConfig) -> tuple[Callable[..., jax.Array], Any]:
    graphdef, params = init_vae(config, 0)
    return jax.jit(lambda params, frames: nnx.merge(graphdef, params).encode(to_float(frames)).mode()), params


def _model(config: VaeConfig) -> Any:
    return nnx.merge(*init_vae(config, 0))
