"""A generation's play in PyTorch."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from wm_jax.envs.spaces import Continuous
from wm_jax.models.controller import Controller
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae.vanilla import Vanilla
from wm_jax.tools.benchmark.pytorch.models import TorchMemory, TorchVae, compiled
from wm_jax.tools.benchmark.timing import Work

BATCH = 32
"""Rows of every compiled call: half the slots of the paper's population."""


class TorchAgent(nn.Module):
    """V, M and a population of linear controllers on [z, h]; actions are vectors.

    Args:
      candidates: float32 [P, n_params], laid out as `Controller.apply` says.

    Attributes:
      narrow: V multiplies in bfloat16.
    """

    def __init__(self, vae: Vanilla, memory: MDNRNN, controller: Controller, candidates: np.ndarray):
        super().__init__()
        assert isinstance(controller.actions, Continuous) and controller.inputs == "zh" and not controller.hidden
        space, size = controller.actions, controller.actions.size
        self.vae, self.lstm, self.hidden = TorchVae(vae), TorchMemory(memory).lstm, controller.memory_hidden
        self.low, self.high, self.squash = torch.tensor(space.low), torch.tensor(space.high), space.squash
        weights = torch.from_numpy(np.array(candidates))
        self.biases = weights[:, -size:]
        self.weights = weights[:, :-size].reshape(len(weights), size, controller.n_features)
        self.narrow = False

    def forward(self, frames: Tensor, h: Tensor, c: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions [B, A] for frames uint8 [B, 3, 64, 64], and the next state; candidates are rows of the population."""
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.narrow):
            z = self.vae.encode(frames.float() / 255)[0].float()
        features = torch.cat([z, h], 1)
        raw = torch.baddbmm(self.biases[candidates, :, None], self.weights[candidates], features[:, :, None])[..., 0]
        actions = self._squashed(raw)
        h, c = torch.lstm_cell(torch.cat([z, actions], 1), (h, c), *self.lstm.all_weights[0])
        return actions, h, c

    def _squashed(self, raw: Tensor) -> Tensor:
        kinds = {
            "tanh": self.low + (self.high - self.low) * 0.5 * (torch.tanh(raw) + 1),
            "sigmoid": torch.sigmoid(raw),
            "positive_tanh": torch.tanh(raw).clamp(min=0),
        }
        return torch.stack([kinds[kind][:, i] for i, kind in enumerate(self.squash)], 1)


def actions(agent: TorchAgent, frames: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Actions [T, B, A] for frames uint8 [T, B, 64, 64, 3] of B episodes."""
    h, c = (torch.zeros(len(candidates), agent.hidden) for _ in range(2))
    chosen = []
    with torch.inference_mode():
        for shown in torch.from_numpy(frames).permute(0, 1, 4, 2, 3):
            now, h, c = agent(shown, h, c, torch.from_numpy(candidates))
            chosen.append(now)
    return torch.stack(chosen).numpy()


class TorchPolicy:
    """What an expert writes: batches of one size, compiled, channels last, without bookkeeping of gradients.

    Args:
      slots: of the pool; episode i is candidate i's.
      narrow: V multiplies in bfloat16.
    """

    def __init__(self, agent: TorchAgent, slots: int, *, narrow: bool):
        agent.narrow = narrow
        self._act = compiled(agent.eval().to(memory_format=torch.channels_last), dynamic=False)
        self._h, self._c = (torch.zeros(slots, agent.hidden) for _ in range(2))
        self._candidates = torch.zeros(slots, dtype=torch.long)

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """See `Policy`."""
        self._h[slots] = self._c[slots] = 0.0
        self._candidates[slots] = torch.from_numpy(episodes)

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """See `Policy`."""
        pieces = [slice(start, start + BATCH) for start in range(0, len(ids), BATCH)]
        return np.concatenate([self._piece(ids[piece], frames[piece]) for piece in pieces])

    def _piece(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        count = len(ids)
        rows = torch.from_numpy(np.resize(ids, BATCH)).long()
        shown = torch.from_numpy(frames if count == BATCH else np.resize(frames, (BATCH, *frames.shape[1:])))
        with torch.inference_mode():
            # Frames lie as [B, row, column, channel], which is channels last already.
            actions, h, c = self._act(shown.permute(0, 3, 1, 2), self._h[rows], self._c[rows], self._candidates[rows])
            self._h[rows[:count]], self._c[rows[:count]] = h[:count], c[:count]
        return actions[:count].numpy()


def written(agent: TorchAgent, seeds: list[int], steps: int, workers: int) -> Work:
    """What users write: processes that take candidates from a queue and play them, one frame after another."""
    processes = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare, (agent, steps))

    def work() -> None:
        returns = list(processes.map(_rollout, range(len(seeds)), seeds))
        assert np.isfinite(returns).all()

    return work


class _Worker(NamedTuple):
    """What a worker process keeps."""

    agent: TorchAgent
    env: Any


_worker: _Worker | None = None


def _prepare(agent: TorchAgent, steps: int) -> None:
    """Begin a worker process."""
    import gymnasium

    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(agent, gymnasium.make("CarRacing-v3", max_episode_steps=steps))
    Finalize(None, _worker.env.close, exitpriority=0)  # such a process ends without `atexit`


def _rollout(candidate: int, seed: int) -> float:
    """The return of one episode, in a worker process."""
    assert _worker is not None
    agent, env = _worker
    screen, _ = env.reset(seed=seed)
    h, c = (torch.zeros(1, agent.hidden) for _ in range(2))
    row, total, done = torch.tensor([candidate]), 0.0, False
    with torch.no_grad():
        while not done:
            frame = cv2.resize(screen[:84], (64, 64), interpolation=cv2.INTER_AREA)
            action, h, c = agent(torch.from_numpy(frame).permute(2, 0, 1)[None], h, c, row)
            screen, reward, terminated, truncated, _ = env.step(action[0].numpy())
            total += float(reward)
            done = terminated or truncated
    return total
