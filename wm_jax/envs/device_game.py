"""Games that are functions of JAX: how their episodes begin, whoever plays them, and a step of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from wm_jax import streams

if TYPE_CHECKING:
    from wm_jax.envs.car_racing import CarRacing

_NO_KEY = np.zeros(2, np.uint32)
"""For steps that draw nothing."""


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
