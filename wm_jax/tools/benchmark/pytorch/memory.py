"""M's updates in PyTorch."""

import numpy as np
import torch

from wm_jax.data.sequences import FlatLatents
from wm_jax.models.memory import MDNRNN, Sequences
from wm_jax.tools.benchmark.pytorch.models import (
    DEVICE,
    TorchMemory,
    compiled,
    exactly,
    sequences_of,
    tensor,
    tune,
    wait,
)
from wm_jax.tools.benchmark.timing import Work


def training(ours: MDNRNN, latents: FlatLatents, steps: int, batch: int, learning_rate: float, *, tuned: bool) -> Work:
    """Whole episodes, z drawn afresh, gradients clipped by value; tuned: compiled, fused Adam, no synchronisation.

    The recurrent layer is one call of oneDNN or cuDNN either way; compiled, what follows it is fused.
    """
    model = TorchMemory(ours)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=tuned)
    parts = (tensor(part) for part in (*latents.latent, latents.action))
    mean, log_var, action = (part.unflatten(0, (-1, steps + 1)) for part in parts)
    order = torch.Generator(DEVICE).manual_seed(0)
    loss_of = compiled(model.loss) if tuned else model.loss
    mask = torch.ones(steps, batch, device=DEVICE)
    if tuned:
        tune(narrow=False)

    def work() -> None:
        chosen = torch.randint(len(mean), (batch,), generator=order, device=DEVICE)
        noise = torch.randn(batch, *mean.shape[1:], device=DEVICE)
        z = (mean[chosen] + torch.exp(0.5 * log_var[chosen]) * noise).transpose(0, 1)
        optimizer.zero_grad(set_to_none=tuned)
        loss = loss_of(z, action[chosen, :-1].transpose(0, 1), mask)
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), ours.config.clip)
        optimizer.step()
        if not tuned:
            loss.item()
        wait()

    return work


def loss_and_gradient(ours: MDNRNN, batch: Sequences, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss, and the gradient of the recurrent weights [H, 4H]."""
    model = TorchMemory(ours)
    with exactly():
        loss = model.loss(*sequences_of(batch, noise))
        loss.backward()
    return loss.detach().cpu().numpy(), model.lstm.weight_hh_l0.grad.T.cpu().numpy()
