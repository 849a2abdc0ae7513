"""Games that are functions of JAX, behind the contract of host pools: frames come to the host after every step.

For whatever wants to look at every frame there: recording, films, tests. An agent that only plays does so without that
(`device_rollout.py`).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from wm_jax import streams
from wm_jax.devices import padded, padded_size
from wm_jax.envs.host.frames import SIZE, require
from wm_jax.envs.host.pool import Step

if TYPE_CHECKING:
    from wm_jax.envs.car_racing import CarRacing

_NO_KEY = np.zeros(2, np.uint32)
"""For steps that draw nothing."""
_LEAST_ROWS = 2
"""A row that is alone in its batch may be rounded otherwise than among others."""


class Episodes(NamedTuple):
    """What the episodes of N seeds are played on, and where they begin. Equal seeds begin, and play, the same.

    params: of the environment: the tracks of all S different seeds.
    places: int32[N], each episode's track in that bank.
    sections: int32[S], where on each track episodes begin; None: at the line.
    """

    params: Any
    places: NDArray[np.int32]
    sections: NDArray[np.int32] | None


@dataclass(frozen=True)
class DeviceGame:
    """A game that is a function of JAX, with the one rule of how its episodes begin, whoever plays them.

    Attributes:
      env: the game.
      anywhere: episodes begin somewhere along their tracks, which the seed decides, instead of at the line.
    """

    env: "CarRacing"
    anywhere: bool = False

    def episodes(self, seeds: Sequence[int]) -> Episodes:
        """Those of these seeds."""
        different = list(dict.fromkeys(seeds))
        place = {seed: i for i, seed in enumerate(different)}
        params, tracks = self.env.on_tracks(different), np.arange(len(different), dtype=np.int32)
        sections = sections_of(params, tracks, different) if self.anywhere else None
        return Episodes(params, np.array([place[seed] for seed in seeds], np.int32), sections)


def sections_of(params: Any, places: NDArray[np.int32], seeds: Sequence[int]) -> NDArray[np.int32]:
    """Where on their tracks the episodes of these seeds begin that may begin anywhere, int32[N]."""
    counts = np.asarray(params.tracks.count)[places]
    return np.array([streams.integer(seed, "section") for seed in seeds], np.int32) % counts


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


@partial(jax.jit, static_argnums=0)
def start_all(env: "CarRacing", params: Any, places: jax.Array, sections: Any = None) -> tuple[jax.Array, Any]:
    """First frames uint8[N, 64, 64, 3] and states of episodes on these tracks int32[N].

    Args:
      sections: int32[N], where along them (None: at the line).
    """
    sections = jnp.zeros_like(places) if sections is None else sections
    return jax.vmap(env.start, in_axes=(None, 0, 0))(params, places, sections)


def step_all(
    env: "CarRacing", params: Any, states: Any, actions: jax.Array
) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
    """One step of N episodes: frames, states, rewards float32[N], and whether the game has ended, bool[N]."""
    advance = jax.vmap(env.step_env, in_axes=(None, 0, 0, None))
    frames, states, rewards, terminated, _ = advance(_NO_KEY, states, actions, params)
    return frames, states, rewards, terminated


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _advance(
    env: "CarRacing", params: Any, states: Any, ids: jax.Array, actions: jax.Array
) -> tuple[Any, tuple[jax.Array, ...]]:
    """The states after these rows have been stepped; frames, rewards and ends of the rows. Ids out of range pad."""
    own = jax.tree.map(lambda leaf: leaf.at[ids].get(mode="clip"), states)
    frames, own, rewards, terminated = step_all(env, params, own, actions)
    states = jax.tree.map(lambda leaf, new: leaf.at[ids].set(new, mode="drop"), states, own)
    return states, (frames, rewards, terminated)
