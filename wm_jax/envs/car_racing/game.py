"""CarRacing as a `DeviceGame`: the Gymnax environment, on the tracks of the episodes' seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.envs.car_racing.endless import draw_tracks
from wm_jax.envs.car_racing.environment import CarRacing, Params, State
from wm_jax.envs.games import CAR_ACTIONS
from wm_jax.envs.types import DeviceGame
from wm_jax.utils import streams

_ENV = CarRacing()
_NO_KEY = np.zeros(2, np.uint32)
"""Steps draw nothing."""


class Tracks(NamedTuple):
    """What S episodes are driven on.

    params: the environment's, with S tracks.
    sections: int32[S], where on each of them the episode begins (0: at the line).
    """

    params: Params
    sections: Any


@dataclass(frozen=True)
class CarRacingGame(DeviceGame):
    """See `CarRacing`, with its three continuous actions and the World Models' frames.

    Attributes:
      random_start: episodes begin somewhere along their tracks, which the seed decides, instead of at the line.
      endless: tracks of the same kind, but drawn on the device (`endless.py`), S of them from the first seed.
    """

    random_start: bool = False
    endless: bool = False

    name = "CarRacing"
    actions = CAR_ACTIONS
    fps = 50.0
    solved = 900.0
    random_starts = True

    def params_for(self, seeds: Sequence[int]) -> Tracks:
        """See `DeviceGame`: Gymnasium's tracks of these seeds."""
        if self.endless:
            params = Params(tracks=draw_tracks(jax.random.key(seeds[0]), len(seeds)))
        else:
            params = _ENV.on_tracks(seeds)
        sections = np.zeros(len(seeds), np.int32)
        if self.random_start:
            drawn = np.array([streams.integer(seed, "section") for seed in seeds], np.int32)
            sections = drawn % np.asarray(params.tracks.count)
        return Tracks(params, sections)

    def start(self, params: Tracks, place: jax.Array) -> tuple[jax.Array, State]:
        """See `DeviceGame`."""
        return _ENV.start(params.params, place, jnp.asarray(params.sections)[place])

    def step(self, params: Tracks, state: State, action: jax.Array) -> tuple[jax.Array, State, jax.Array, jax.Array]:
        """See `DeviceGame`."""
        frame, state, reward, terminated, _ = _ENV.step_env(_NO_KEY, state, action, params.params)
        return frame, state, reward, terminated

    def for_training(self, *, random_start: bool = False, endless: bool = False) -> "CarRacingGame":
        """See `DeviceGame`."""
        return CarRacingGame(random_start, endless)
