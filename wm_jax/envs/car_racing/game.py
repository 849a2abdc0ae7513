"""CarRacing as a `DeviceGame`, on the tracks of the episodes' seeds.

Made of the same functions as the Gymnax environment (`environment.py`), but without Gymnax, whose import brings
Gymnasium and Matplotlib: training on the device needs neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.envs.car_racing import dynamics, track
from wm_jax.envs.car_racing.camera import view
from wm_jax.envs.car_racing.drawing import frame
from wm_jax.envs.car_racing.endless import draw_tracks
from wm_jax.envs.car_racing.factors import factors
from wm_jax.envs.car_racing.state import CarState
from wm_jax.envs.families import CAR_ACTIONS
from wm_jax.envs.types import DeviceGame
from wm_jax.utils import streams


class Tracks(NamedTuple):
    """What S episodes are driven on.

    bank: S tracks.
    sections: int32[S], where on each of them the episode begins (0: at the line).
    """

    bank: track.Tracks
    sections: Any


@dataclass(frozen=True)
class CarRacingGame(DeviceGame):
    """Gymnasium's CarRacing-v3, with its three continuous actions and the World Models' frames.

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
        bank = draw_tracks(jax.random.key(seeds[0]), len(seeds)) if self.endless else track.bank(seeds)
        sections = np.zeros(len(seeds), np.int32)
        if self.random_start:
            drawn = np.array([streams.integer(seed, "section") for seed in seeds], np.int32)
            sections = drawn % np.asarray(bank.count)
        return Tracks(bank, sections)

    def start(self, params: Tracks, place: jax.Array) -> tuple[jax.Array, CarState]:
        """See `DeviceGame`."""
        car = dynamics.start(params.bank, place.astype(jnp.int32), jnp.asarray(params.sections)[place])
        return frame(params.bank, view(car)), car

    def step(
        self, params: Tracks, state: CarState, action: jax.Array
    ) -> tuple[jax.Array, CarState, jax.Array, jax.Array]:
        """See `DeviceGame`."""
        car, reward, terminated = dynamics.step(params.bank, state, action)
        return frame(params.bank, view(car)), car, reward, terminated

    def factors(self, params: Tracks, state: CarState) -> dict[str, jax.Array]:
        """See `DeviceGame`."""
        return factors(params.bank, state)

    def for_training(self, *, random_start: bool = False, endless: bool = False) -> "CarRacingGame":
        """See `DeviceGame`."""
        return CarRacingGame(random_start, endless)
