"""Two of the other auto-encoders in PyTorch as their users write them: eager, `.item()` after every update."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.tools.benchmark.pytorch import vae
from wm_jax.tools.benchmark.pytorch.models import DEVICE, TorchVae
from wm_jax.tools.benchmark.timing import Work


def written_training(
    ours: PenalisedGaussianVae, variant: str, frames: np.ndarray, batch: int, updates: int, learning_rate: float
) -> Work:
    """Frames as floats in memory, which is more than most users have: this is about the losses."""
    model, data = TorchVae(ours), vae.floats(frames).cpu()
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)

    def work() -> None:
        for _ in range(updates):
            optimizer.zero_grad()
            seen = data[torch.randint(len(data), (batch,))].to(DEVICE)
            noise, prior = torch.randn((2, batch, ours.config.latent), device=DEVICE)
            loss = _LOSSES[variant](model, ours.config, seen, noise, prior, len(data))
            loss.backward()
            optimizer.step()
            loss.item()

    return work


def loss_and_gradient(
    ours: PenalisedGaussianVae, variant: str, frames: np.ndarray, noise: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """See `vae.loss_and_gradient`; noise and samples of the prior are [B, Z]."""

    def loss_of(model: TorchVae, seen: Tensor, noise: Tensor, prior: Tensor) -> Tensor:
        return _LOSSES[variant](model, ours.config, seen, noise, prior, len(seen))

    return vae.loss_and_gradient(ours, frames, noise, prior, loss_of=loss_of)


def _beta_tc(model: TorchVae, config: Any, frames: Tensor, noise: Tensor, prior: Tensor, data_size: int) -> Tensor:
    mean, log_var = model.encode(frames)
    z = mean + noise * torch.exp(log_var / 2)
    error = (model.decode(z) - frames).square().sum((1, 2, 3)).mean()
    log_q_given_frame = _log_normal(z, mean, log_var).sum(1)
    log_prior = _log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(1)
    each = _log_normal(z[:, None], mean[None], log_var[None])
    size = math.log(len(z) * data_size)
    log_q = torch.logsumexp(each.sum(2), 1) - size
    log_q_of_each = (torch.logsumexp(each, 1) - size).sum(1)
    kl, floor = log_q_given_frame - log_prior, config.free_nats * config.latent
    kl = (kl.clamp(min=floor) if floor else kl).mean()
    beyond = (
        (config.mutual_information_weight - 1) * (log_q_given_frame - log_q)
        + (config.total_correlation_weight - 1) * (log_q - log_q_of_each)
        + (config.dimension_wise_weight - 1) * (log_q_of_each - log_prior)
    )
    return error + config.beta * (kl + beyond.mean())


def _info(model: TorchVae, config: Any, frames: Tensor, noise: Tensor, prior: Tensor, data_size: int) -> Tensor:
    mean, log_var = model.encode(frames)
    z = mean + noise * torch.exp(log_var / 2)
    error = (model.decode(z) - frames).square().sum((1, 2, 3)).mean()
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
    floor = config.free_nats * config.latent
    scale = 2.0 * z.shape[1]

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        return scale / (scale + (a[:, None] - b[None]).square().sum(2))

    def among(a: Tensor) -> Tensor:
        alike = similarity(a, a)
        return (alike.sum() - alike.trace()) / (len(a) * (len(a) - 1))

    mmd = among(z) + among(prior) - 2 * similarity(z, prior).mean()
    of_each = (1 - config.alpha) * config.beta * kl.clamp(min=floor).mean()
    return error + of_each + (config.alpha + config.divergence_weight - 1) * mmd


_LOSSES = {"beta_tc": _beta_tc, "info": _info}


def _log_normal(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    return -0.5 * ((x - mean).square() * torch.exp(-log_var) + log_var + math.log(2 * math.pi))
