"""Games that are functions of JAX, behind the contract of host pools: frames come to the host after every step.

For whatever wants to look at every frame there: recording, films, tests. An agent that only plays does so without that
(`device_rollout.py`).
"""

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from wm_jax.devices import padded, padded_size
from wm_jax.envs.device_game import DeviceGame, start_all, step_all
from wm_jax.envs.host.frames import SIZE, require
from wm_jax.envs.types import Step

if TYPE_CHECKING:
    from wm_jax.envs.car_racing import CarRacing

_LEAST_ROWS = 2
"""A row that is alone in its batch may be rounded otherwise than among others."""


class DeviceEngine:
    """An `Engine` whose environments are rows of one array."""

    restart = None

    def __init__(self, game: DeviceGame):
        self.environment = game
        self._sent: deque[tuple[NDArray[np.int32], tuple[jax.Array, ...]]] = deque()

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Engine`."""
        self._sent.clear()
        self._params, places, sections = self.environment.episodes(seeds)
        where = None if sections is None else sections[places]
        frames, self._states = start_all(self.environment.env, self._params, jnp.asarray(places), where)
        return self._checked(np.array(frames), len(seeds))

    def send(self, ids: NDArray[np.int32], actions: NDArray[Any]) -> None:
        """See `Engine`. Batches are padded, so that few programs are compiled."""
        size = max(padded_size(len(ids)), _LEAST_ROWS)
        rows = padded(ids, size, np.iinfo(np.int32).max), padded(actions, size)
        self._states, answer = _advance(self.environment.env, self._params, self._states, *rows)
        self._sent.append((ids, answer))

    def recv(self, most: int) -> Step:
        """See `Engine`: what was sent first."""
        ids, answer = self._sent.popleft()
        frames, reward, terminated = (np.asarray(each)[: len(ids)] for each in answer)
        return Step(ids, self._checked(frames, len(ids)), reward, terminated, *np.zeros((2, len(ids)), bool))

    def close(self) -> None:
        """See `Engine`."""
        self._sent.clear()
        self._states = self._params = None

    def _checked(self, frames: NDArray[Any], count: int) -> NDArray[np.uint8]:
        require(frames, (count, SIZE, SIZE, 3), self.environment.env.name)
        return frames


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(
    env: "CarRacing", params: Any, states: Any, ids: jax.Array, actions: jax.Array
) -> tuple[Any, tuple[jax.Array, ...]]:
    """The states after these rows have been stepped; frames, rewards and ends of the rows. Ids out of range pad."""
    own = jax.tree.map(lambda leaf: leaf.at[ids].get(mode="clip"), states)
    frames, own, rewards, terminated = step_all(env, params, own, actions)
    states = jax.tree.map(lambda leaf, new: leaf.at[ids].set(new, mode="drop"), states, own)
    return states, (frames, rewards, terminated)
