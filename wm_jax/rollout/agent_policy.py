"""An agent as a policy: V + M + C on the device, for the slots of a pool."""

from collections.abc import Sequence

import jax
import numpy as np

from wm_jax.distributed.mesh import RowSharing
from wm_jax.distributed.progress import Progress
from wm_jax.envs.types import DeviceGame
from wm_jax.models.agent import Agent, AgentParams
from wm_jax.rollout.device import CPU_ROWS, play_on_device
from wm_jax.rollout.types import EpisodeLimits, EpisodeStats
from wm_jax.run.interrupt import Stop
from wm_jax.utils.arrays import padded, padded_size

CPU_BATCH = 32
"""Most rows of one call on CPU: half the slots of a usual pool. Fewer would leave cores idle between the calls."""


class AgentPolicy:
    """V + M + C on this process's device, or on its accelerators, for the slots of a pool.

    Args:
      params: the controller's are [P, n_params].
      candidates: int[N], which row of them plays each episode.
      seeds: of the episodes; what is drawn in play depends on them.
      slots: most episodes at once; the device holds a carry for each.
      devices: which share the rows (None: this process's accelerators).
    """

    def __init__(
        self,
        agent: Agent,
        params: AgentParams,
        candidates: np.ndarray,
        seeds: Sequence[int],
        slots: int,
        devices: RowSharing | None = None,
    ):
        self._devices = devices or RowSharing.of_accelerators()
        self._agent, self._params, self._slots = agent, self._devices.replicate(params), slots
        self._on_cpu = jax.default_backend() == "cpu"
        self._candidates, self._seeds = np.asarray(candidates, np.int32), np.asarray(seeds, np.int32)
        self._episodes, self._is_first = np.zeros(slots, np.int64), np.zeros(slots, bool)
        self._carry = self._devices.replicate(agent.init(slots))

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """The slots' memories are forgotten; their episodes' candidates play."""
        self._episodes[slots], self._is_first[slots] = episodes, True

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """int32[B] or float32[B, A]. Batches are padded to one size, or a few, so that few programs are compiled."""
        most = CPU_BATCH if self._on_cpu else self._slots
        pieces = [slice(start, start + most) for start in range(0, len(ids), most)]
        return np.concatenate([self._act(ids[piece], frames[piece]) for piece in pieces])

    def play_on_device(
        self,
        game: DeviceGame,
        seeds: Sequence[int],
        rules: EpisodeLimits,
        slots: int,
        stop: Stop | None,
        progress: Progress | None,
    ) -> EpisodeStats:
        """Play all episodes where the network is; see `play`."""
        return play_on_device(
            game,
            seeds,
            self._agent,
            self._params,
            self._candidates,
            rules,
            slots=slots,
            devices=self._devices,
            stop=stop,
            progress=progress,
        )

    def _act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        size = CPU_BATCH if self._on_cpu else padded_size(len(ids))
        episodes = self._episodes[ids]
        batch = (
            padded(ids, size, -1),
            padded(frames, size),
            padded(self._seeds[episodes], size),
            padded(self._candidates[episodes], size),
            padded(self._is_first[ids], size),
        )
        at_once = CPU_ROWS if self._on_cpu else None
        carry, actions = self._agent.act(self._params, self._carry, *self._devices.rows(batch), at_once=at_once)
        self._carry = self._devices.replicate(carry)
        self._is_first[ids] = False
        return np.asarray(actions)[: len(ids)]
