"""The paper's V and M in PyTorch, as its users write them: the baseline that ours is held against.

Both are made with the weights of one of our models, so that losses can be compared before anything is timed. They live
on the GPU where PyTorch sees one.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wm_jax.distributed.progress import log
from wm_jax.models.memory import LSTM, MDNRNN, Sequences
from wm_jax.models.vae.gaussian import PenalisedGaussianVae

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


WORDS = 30
"""Of an error that are shown."""


def tune(*, narrow: bool) -> Any:
    """What an expert turns on: TF32, and if `narrow`, the returned context, which computes in bfloat16."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return torch.autocast(DEVICE.type, torch.bfloat16) if narrow else contextlib.nullcontext()


@contextlib.contextmanager
def exactly() -> Iterator[None]:
    """Inside, nothing is rounded to TF32: for comparisons."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


_failures: list[str] = []


def compile_failure() -> str:
    """Why `torch.compile` failed since this was last asked, if it did."""
    said = f"eager, for torch.compile failed ({_failures[0]})" if _failures else ""
    _failures.clear()
    return said


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`torch.compile`, or where its first call fails, such as without a C compiler, the function as it is."""
    chosen: Callable[..., Any] = torch.compile(function, **options)
    tried = False

    def call(*arguments: Any) -> Any:
        nonlocal chosen, tried
        if tried:
            return chosen(*arguments)
        tried = True
        try:
            return chosen(*arguments)
        except Exception as error:
            reason = " ".join([f"{type(error).__name__}:", *str(error).split()[:WORDS]])
            log(f"PyTorch runs eagerly, for torch.compile fails here ({reason})")
            _failures.append(reason)
            chosen = function
            return chosen(*arguments)

    return call


def release() -> None:
    """Give back the GPU's memory that PyTorch keeps for later."""
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def wait() -> None:
    """Until the GPU has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


class TorchVae(nn.Module):
    """V; frames are float [B, 3, 64, 64] in [0, 1]."""

    def __init__(self, ours: PenalisedGaussianVae):
        super().__init__()
        self.floor = ours.config.free_nats * ours.config.latent
        self.beta = ours.config.beta
        kernels = [_array(kernel) for kernel in ours.encoder.kernels]
        self.convolutions = nn.ModuleList(
            _filled(nn.Conv2d(k.shape[2], k.shape[3], k.shape[0], 2), k.transpose(3, 2, 0, 1), bias)
            for k, bias in zip(kernels, ours.encoder.biases, strict=True)
        )
        # Features lie as (row, column, channel) in ours, as (channel, row, column) here.
        channels = kernels[-1].shape[3]
        side = int((ours.encoder.features // channels) ** 0.5)
        self.mean, self.log_var = (
            _linear(_array(head.kernel).reshape(side, side, channels, -1).transpose(2, 0, 1, 3), head.bias)
            for head in (ours.mean, ours.log_var)
        )
        decoder = ours.decoder
        self.dense = _linear(_array(decoder.dense.kernel), decoder.dense.bias)
        hidden, first = decoder.first_kernel.shape[0], decoder.first_bias.shape[0]
        side = int((decoder.first_kernel.shape[1] // first) ** 0.5)
        weights = [_array(decoder.first_kernel).reshape(hidden, side, side, first).transpose(0, 3, 1, 2)]
        weights += [_array(kernel).transpose(3, 2, 0, 1) for kernel in decoder.kernels]
        self.deconvolutions = nn.ModuleList(
            _filled(nn.ConvTranspose2d(w.shape[0], w.shape[1], w.shape[2], 2), w, bias)
            for w, bias in zip(weights, [decoder.first_bias, *decoder.biases], strict=True)
        )
        self.to(DEVICE)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, [B, Z] each."""
        x = frames
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        x = x.flatten(1)
        return self.mean(x).float(), self.log_var(x).float()

    def decode(self, z: Tensor) -> Tensor:
        """Frames [B, 3, 64, 64] in [0, 1]."""
        x = self.dense(z)[:, :, None, None]
        *inner, last = self.deconvolutions
        for deconvolution in inner:
            x = functional.relu(deconvolution(x))
        return torch.sigmoid(last(x))

    def loss(self, frames: Tensor, noise: Tensor | None = None) -> Tensor:
        """Summed squared error + beta * max(KL, floor), averaged over B; `noise` [B, Z] is drawn if not given."""
        mean, log_var = self.encode(frames)
        noise = torch.randn_like(mean) if noise is None else noise
        decoded = self.decode(mean + noise * torch.exp(log_var / 2)).float()
        error = (decoded - frames).square().sum((1, 2, 3))
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
        return (error + self.beta * kl.clamp(min=self.floor)).mean()


class TorchMemory(nn.Module):
    """M over `nn.LSTM`, whole sequences from the zero state; tensors are time first."""

    def __init__(self, ours: MDNRNN):
        super().__init__()
        assert isinstance(ours.cell, LSTM)
        self.latent, self.mixtures = ours.latent.size, ours.config.mixtures
        self.lstm = nn.LSTM(ours.latent.size + ours.action, ours.config.hidden)
        # Both order the gates as input, forget, candidate, output; torch has two biases that are added.
        with torch.no_grad():
            self.lstm.weight_ih_l0.copy_(tensor(_array(ours.cell.wx).T))
            self.lstm.weight_hh_l0.copy_(tensor(_array(ours.cell.wh).T))
            self.lstm.bias_ih_l0.copy_(tensor(_array(ours.cell.b)))
            self.lstm.bias_hh_l0.zero_()
        self.head = _linear(_array(ours.kernel), ours.bias)
        self.to(DEVICE)

    def loss(self, z: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        """Mean negative log-likelihood of the next latent, over real steps and latent dimensions.

        Args:
          z: [T + 1, B, Z].
          action: [T, B, A].
          mask: [T, B], 1 where the step is real.
        """
        h, _ = self.lstm(torch.cat([z[:-1], action], -1))
        raw = self.head(h).unflatten(-1, (3, self.mixtures, self.latent))
        logits, mean, log_std = raw.unbind(-3)
        score = (z[1:, :, None] - mean) * torch.exp(-log_std)
        components = functional.log_softmax(logits, -2) - 0.5 * score.square() - log_std - 0.5 * np.log(2 * np.pi)
        log_prob = torch.logsumexp(components, -2).sum(-1)
        return -(log_prob * mask).sum() / mask.sum() / self.latent


def sequences_of(batch: Sequences, noise: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The arguments of `TorchMemory.loss`: z drawn from one of our batches with the given noise [T + 1, B, Z]."""
    z = np.asarray(batch.latent.mean) + np.exp(0.5 * np.asarray(batch.latent.log_var)) * noise
    return tensor(z), tensor(np.asarray(batch.action)), tensor(np.asarray(batch.weight))


def _array(parameter: Any) -> np.ndarray:
    return np.asarray(jax.device_get(parameter[...]))


def tensor(array: np.ndarray) -> Tensor:
    """float32, where the models are."""
    return torch.from_numpy(np.array(array, np.float32)).to(DEVICE)


def _linear(kernel: np.ndarray, bias: Any) -> nn.Linear:
    """From a kernel [..., outputs], whose leading axes are the inputs."""
    flat = kernel.reshape(-1, kernel.shape[-1])
    return _filled(nn.Linear(*flat.shape), flat.T, bias)


def _filled(layer: Any, weight: np.ndarray, bias: Any) -> Any:
    with torch.no_grad():
        layer.weight.copy_(tensor(weight))
        layer.bias.copy_(tensor(_array(bias)))
    return layer
