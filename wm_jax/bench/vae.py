"""V's benchmarks: training updates, and encoding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from wm_jax.artefacts import init_vae
from wm_jax.bench import flops
from wm_jax.bench.case import OURS, PLAIN, TUNED, WRITTEN, Case, Options
from wm_jax.bench.timing import Work
from wm_jax.config import VaeConfig
from wm_jax.data.frames import ResidentFrames
from wm_jax.models.frames import to_float
from wm_jax.models.vae import loss_and_grad
from wm_jax.training import Task, TrainState, adam, compile_dispatch

FRAMES = 2000
LEARNING_RATE = 1e-4
UPDATES = 4
"""Updates in one call."""
ENCODED = 1024
"""Frames encoded in one call, in batches."""


def training(options: Options) -> Case:
    """Updates of the paper's V at batch 100, float32: data, loss, gradient and Adam."""
    batch = options.batch or (8 if options.small else 100)
    config, frames = _config(options), game_frames(64 if options.small else FRAMES)

    def ours(*, fast: bool) -> Work:
        graphdef, params = init_vae(config.model_copy(update={"fast_kernels": fast}), 0)

        def gradient(params: Any, batch: jax.Array, carry: Any, key: jax.Array) -> tuple[Any, Any, Any]:
            (_, metrics), gradients = loss_and_grad(graphdef, params, batch, key)
            return metrics, carry, gradients

        task = Task(gradient, adam(LEARNING_RATE, None, 1), ResidentFrames(frames, batch, 0))
        dispatch = compile_dispatch(task)
        state = TrainState(params, task.optimizer.init(params), ())
        step = 0

        def work() -> None:
            nonlocal state, step
            references = task.batches.references(step, UPDATES, UPDATES)
            state, sums = dispatch(state, task.batches.data, references, step, UPDATES, jax.random.key(0))
            jax.block_until_ready(sums)
            step += UPDATES

        return work

    def tuned() -> Work:
        import torch

        model = _torch_vae(config).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
        data = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        order = torch.Generator().manual_seed(0)
        loss_of = torch.compile(model.loss)

        def work() -> None:
            for _ in range(UPDATES):
                chosen = torch.randint(len(data), (batch,), generator=order)
                seen = data[chosen].contiguous(memory_format=torch.channels_last).float() / 255
                optimizer.zero_grad(set_to_none=True)
                loss_of(seen).backward()
                optimizer.step()

        return work

    def written() -> Work:
        import torch

        model = _torch_vae(config)
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
        batches = _endless(_png_loader(frames, options.folder, batch))

        def work() -> None:
            for _ in range(UPDATES):
                optimizer.zero_grad()
                loss = model.loss(next(batches))
                loss.backward()
                optimizer.step()
                loss.item()

        return work

    def agreement() -> float:
        import torch

        graphdef, params = init_vae(config, 0)
        shown, key = frames[:8], jax.random.key(3)
        (value, _), gradients = jax.jit(lambda p, x: loss_and_grad(graphdef, p, x, key))(params, shown)
        noise = jax.random.normal(jax.random.split(key)[1], (len(shown), config.latent))
        model = _torch_vae(config)
        theirs = model.loss(
            torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(np.array(noise))
        )
        theirs.backward()
        # The first layer's gradient has been through everything else.
        first = np.asarray(nnx.merge(graphdef, gradients).encoder.kernels[0][...]).transpose(3, 2, 0, 1)
        return max(difference(value, theirs.detach()), difference(first, model.convolutions[0].weight.grad))

    makers = {OURS: lambda: ours(fast=True), PLAIN: lambda: ours(fast=False), TUNED: tuned, WRITTEN: written}
    return Case(
        f"V training, batch {batch}", "frames", UPDATES * batch, flops.vae_update(config), makers, agreement, 1e-3
    )


def encoding(options: Options) -> Case:
    """Uint8 frames to means, in batches of one size: what `encode` and every rollout do."""
    batch = options.batch or (8 if options.small else 64)
    config, frames = _config(options), game_frames(16 if options.small else ENCODED)
    starts = range(0, len(frames) - batch + 1, batch)

    def ours(*, fast: bool) -> Work:
        encode, params = _encoder(config.model_copy(update={"fast_kernels": fast}))

        def work() -> None:
            for start in starts:
                encode(params, frames[start : start + batch]).block_until_ready()

        return work

    def theirs(*, tuned: bool) -> Work:
        import torch

        model = _torch_vae(config).eval()
        layout = torch.channels_last if tuned else torch.contiguous_format
        model = model.to(memory_format=layout)
        encode = torch.compile(model.encode) if tuned else model.encode

        def work() -> None:
            with torch.inference_mode():
                for start in starts:
                    seen = torch.from_numpy(frames[start : start + batch]).permute(0, 3, 1, 2)
                    encode((seen.float() / 255).contiguous(memory_format=layout))

        return work

    def agreement() -> float:
        import torch

        encode, params = _encoder(config)
        shown = frames[:batch]
        with torch.inference_mode():
            mean, _ = _torch_vae(config).encode(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255)
        return difference(encode(params, shown), mean)

    makers = {
        OURS: lambda: ours(fast=True),
        PLAIN: lambda: ours(fast=False),
        TUNED: lambda: theirs(tuned=True),
        WRITTEN: lambda: theirs(tuned=False),
    }
    amount = len(starts) * batch
    return Case(f"V encoding, batch {batch}", "frames", amount, flops.encoding(config), makers, agreement, 1e-4)


def game_frames(count: int) -> np.ndarray:
    """uint8 [count, 64, 64, 3] that compress like a game's: a few soft shapes on a flat ground."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    frames = np.empty((count, 64, 64, 3), np.uint8)
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


def _config(options: Options) -> VaeConfig:
    return VaeConfig(width=0.125 if options.small else 1.0)


def _encoder(config: VaeConfig) -> tuple[Callable[..., jax.Array], Any]:
    graphdef, params = init_vae(config, 0)
    return jax.jit(lambda params, frames: nnx.merge(graphdef, params).encode(to_float(frames)).mean), params


def _torch_vae(config: VaeConfig) -> Any:
    from wm_jax.bench.torch_models import TorchVae

    return TorchVae(nnx.merge(*init_vae(config, 0)))


def _png_loader(frames: np.ndarray, folder: Path, batch: int) -> Any:
    """A DataLoader with two workers over a folder of one PNG per frame."""
    from torch.utils.data import DataLoader

    from wm_jax.bench.png_folder import PngFolder

    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:06d}.png")
    workers: dict[str, Any] = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "spawn"}
    return DataLoader(PngFolder(folder), batch, shuffle=True, drop_last=True, **workers)


def _endless(loader: Any) -> Any:
    while True:
        yield from loader
