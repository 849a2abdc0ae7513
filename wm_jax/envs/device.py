"""Games that are functions of JAX: many episodes at once, and a pool of them whose frames come to the host.

The pool is for whatever wants to look at every frame there: recording, films, tests. An agent that only plays does so
without it (`rollout/device.py`).
"""

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from wm_jax.envs.host.resize import require
from wm_jax.envs.types import DeviceGame, Step
from wm_jax.utils.arrays import padded, padded_size
from wm_jax.utils.sizes import FRAME

_LEAST_ROWS = 2
"""A row that is alone in its batch may be rounded otherwise than among others."""


def episodes_of(game: DeviceGame, seeds: Sequence[int]) -> tuple[Any, NDArray[np.int32]]:
    """What the episodes of N seeds are played on: the parameters of the S different ones, and each one's place among
    them, int32[N]. Equal seeds begin, and play, the same.
    """
    different = list(dict.fromkeys(seeds))
    place = {seed: i for i, seed in enumerate(different)}
    return game.params_for(different), np.array([place[seed] for seed in seeds], np.int32)


@partial(jax.jit, static_argnums=0)
def start_all(game: DeviceGame, params: Any, places: jax.Array) -> tuple[Any, Any]:
    """What is observed first, and the states, arrays [N, ...], of the episodes at places int32[N] of the parameters."""
    return jax.vmap(game.start, in_axes=(None, 0))(params, places)


def step_all(
    game: DeviceGame, params: Any, states: Any, actions: jax.Array, at_once: int | None = None
) -> tuple[Any, Any, jax.Array, jax.Array]:
    """One step of N episodes: what is observed, states, rewards float32[N], and whether the game has ended, bool[N].

    Args:
      at_once: rows that are stepped together, of a game whose bits depend on that (default: all).
    """
    if at_once is not None and game.has_products:
        return jax.lax.map(lambda row: game.step(params, *row), (states, actions), batch_size=at_once)
    return jax.vmap(game.step, in_axes=(None, 0, 0))(params, states, actions)


class DeviceEngine:
    """An `Engine` whose environments are rows of one array."""

    restart = None

    def __init__(self, game: DeviceGame):
        self.device_game = game
        self._sent: deque[tuple[NDArray[np.int32], tuple[jax.Array, ...]]] = deque()

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Engine`."""
        self._sent.clear()
        self._params, places = episodes_of(self.device_game, seeds)
        frames, self._states = start_all(self.device_game, self._params, jnp.asarray(places))
        return self._checked(np.array(frames), len(seeds))

    def send(self, ids: NDArray[np.int32], actions: NDArray[Any]) -> None:
        """See `Engine`. Batches are padded, so that few programs are compiled."""
        size = max(padded_size(len(ids)), _LEAST_ROWS)
        rows = padded(ids, size, np.iinfo(np.int32).max), padded(actions, size)
        self._states, answer = _advance(self.device_game, self._params, self._states, *rows)
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
        require(frames, (count, *FRAME), self.device_game.name)
        return frames


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(
    game: DeviceGame, params: Any, states: Any, ids: jax.Array, actions: jax.Array
) -> tuple[Any, tuple[jax.Array, ...]]:
    """The states after these rows have been stepped; frames, rewards and ends of the rows. Ids out of range pad."""
    own = jax.tree.map(lambda leaf: leaf.at[ids].get(mode="clip"), states)
    frames, own, rewards, terminated = step_all(game, params, own, actions)
    states = jax.tree.map(lambda leaf, new: leaf.at[ids].set(new, mode="drop"), states, own)
    return states, (frames, rewards, terminated)
