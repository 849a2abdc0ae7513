"""V's updates and encoding in PyTorch."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.vanilla import Vanilla
from wm_jax.tools.benchmark.pytorch.models import DEVICE, TorchVae, compiled, exactly, tune, wait
from wm_jax.tools.benchmark.pytorch.png_folder import PngFolder
from wm_jax.tools.benchmark.timing import Work

WORKERS = 2


def tuned_training(
    ours: Vanilla, frames: np.ndarray, batch: int, updates: int, learning_rate: float, *, narrow: bool = True
) -> Work:
    """uint8 frames on the device, channels last, compiled, fused Adam, no synchronisation between updates.

    Args:
      narrow: in bfloat16.
    """
    model = TorchVae(ours).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=True)
    data = torch.from_numpy(frames).to(DEVICE).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    order = torch.Generator(DEVICE).manual_seed(0)
    loss_of = compiled(model.loss)
    arithmetic = tune(narrow=narrow)

    def work() -> None:
        for _ in range(updates):
            chosen = torch.randint(len(data), (batch,), generator=order, device=DEVICE)
            seen = data[chosen].contiguous(memory_format=torch.channels_last).float() / 255
            optimizer.zero_grad(set_to_none=True)
            with arithmetic:
                loss = loss_of(seen)
            loss.backward()
            optimizer.step()
        wait()

    return work


def written_training(
    ours: Vanilla, frames: np.ndarray, batch: int, updates: int, learning_rate: float, folder: Path
) -> Work:
    """One PNG per frame through a DataLoader with workers, eager, `.item()` after every update."""
    model = TorchVae(ours)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:06d}.png")
    workers: dict[str, Any] = {"num_workers": WORKERS, "persistent_workers": True, "multiprocessing_context": "spawn"}
    batches = _endless(DataLoader(PngFolder(folder), batch, shuffle=True, drop_last=True, **workers))

    def work() -> None:
        for _ in range(updates):
            optimizer.zero_grad()
            loss = model.loss(next(batches).to(DEVICE))
            loss.backward()
            optimizer.step()
            loss.item()

    return work


def encoding(ours: Vanilla, batches: list[np.ndarray], *, tuned: bool, narrow: bool = True) -> Work:
    """Means of uint8 batches; tuned: channels last and compiled, and if `narrow`, in bfloat16."""
    layout = torch.channels_last if tuned else torch.contiguous_format
    model = TorchVae(ours).eval().to(memory_format=layout)
    encode = compiled(model.encode) if tuned else model.encode
    arithmetic = tune(narrow=narrow) if tuned else contextlib.nullcontext()

    def work() -> None:
        with torch.inference_mode(), arithmetic:
            for frames in batches:
                encode(floats(frames).contiguous(memory_format=layout))
        wait()

    return work


def loss_and_gradient(
    ours: PenalisedGaussianVae, frames: np.ndarray, *drawn: np.ndarray, loss_of: Callable[..., Tensor] = TorchVae.loss
) -> tuple[np.ndarray, np.ndarray]:
    """The loss, and the gradient of the first convolution [k, k, 3, C], which has been through everything else.

    Args:
      drawn: the random numbers of the loss, each [B, Z].
      loss_of: (model, frames, *drawn) -> the loss.
    """
    model = TorchVae(ours)
    with exactly():
        loss = loss_of(model, floats(frames), *(torch.from_numpy(each).to(DEVICE) for each in drawn))
        loss.backward()
    return loss.detach().cpu().numpy(), model.convolutions[0].weight.grad.permute(2, 3, 1, 0).cpu().numpy()


def means(ours: Vanilla, frames: np.ndarray) -> np.ndarray:
    """[B, Z]."""
    with torch.inference_mode(), exactly():
        return TorchVae(ours).encode(floats(frames))[0].cpu().numpy()


def floats(frames: np.ndarray) -> Tensor:
    """Frames uint8 [B, 64, 64, 3] as [B, 3, 64, 64] in [0, 1]."""
    return torch.from_numpy(frames).to(DEVICE).permute(0, 3, 1, 2).float() / 255


def _endless(loader: DataLoader) -> Iterator[Tensor]:
    while True:
        yield from loader
