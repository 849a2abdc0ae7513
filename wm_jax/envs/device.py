"""Games that are functions of JAX, behind the contract of host pools: frames come to the host after every step.

For whatever wants to look at every frame there: recording, films, tests. An agent that only plays does so without that
(`device_rollout.py`).
"""

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from wm_jax.devices import padded, padded_size
from wm_jax.envs.car_racing import CarRacing
from wm_jax.envs.host.pool import Step

NO_KEY = np.zeros(2, np.uint32)
"""For steps that draw nothing."""


class Episodes(NamedTuple):
    """What the episodes of N seeds are played on.

    params: of the environment: the tracks of all different seeds.
    places: int32[N], each episode's track in that bank.
    """

    params: Any
    places: NDArray[np.int32]


def episodes(env: CarRacing, seeds: Sequence[int]) -> Episodes:
    """The episodes of these seeds; equal seeds share a track."""
    different = list(dict.fromkeys(seeds))
    place = {seed: i for i, seed in enumerate(different)}
    return Episodes(env.on_tracks(different), np.array([place[seed] for seed in seeds], np.int32))


class DeviceEngine:
    """An `Engine` whose environments are rows of one array."""

    restart = None

    def __init__(self, environment: CarRacing):
        self.environment = environment
        self._sent: deque[tuple[NDArray[np.int32], tuple[jax.Array, ...]]] = deque()

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Engine`."""
        self._sent.clear()
        self._params, places = episodes(self.environment, seeds)
        frames, self._states = _start(self.environment, self._params, jnp.asarray(places))
        return np.array(frames)

    def send(self, ids: NDArray[np.int32], actions: NDArray[Any]) -> None:
        """See `Engine`. Batches are padded, so that few programs are compiled."""
        size = padded_size(len(ids))
        rows = padded(ids, size, np.iinfo(np.int32).max), padded(actions, size)
        self._states, answer = _advance(self.environment, self._params, self._states, *rows)
        self._sent.append((ids, answer))

    def recv(self, most: int) -> Step:
        """See `Engine`: what was sent first."""
        ids, answer = self._sent.popleft()
        frames, reward, terminated = (np.asarray(each)[: len(ids)] for each in answer)
        return Step(ids, frames, reward, terminated, np.zeros(len(ids), bool))

    def close(self) -> None:
        """See `Engine`."""
        self._sent.clear()
        self._states = self._params = None


@partial(jax.jit, static_argnums=0)
def _start(env: CarRacing, params: Any, places: jax.Array) -> tuple[jax.Array, Any]:
    """First frames and states."""
    return jax.vmap(env.start, in_axes=(None, 0))(params, places)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(
    env: CarRacing, params: Any, states: Any, ids: jax.Array, actions: jax.Array
) -> tuple[Any, tuple[jax.Array, ...]]:
    """The states after these rows have been stepped; frames, rewards and ends of the rows. Ids out of range pad."""
    own = jax.tree.map(lambda leaf: leaf.at[ids].get(mode="clip"), states)
    advance = jax.vmap(env.step_env, in_axes=(None, 0, 0, None))
    frames, own, rewards, terminated, _ = advance(NO_KEY, own, actions, params)
    states = jax.tree.map(lambda leaf, new: leaf.at[ids].set(new, mode="drop"), states, own)
    return states, (frames, rewards, terminated)
