"""CarRacing as a Gymnax environment: tracks, car and pictures joined.

`step` of the base class begins a new episode where one has ended; `step_env` does not, and `start` begins one on a
track of one's choice. All are pure, and made for `jax.vmap`:

    env, params = CarRacing(), CarRacing.on_tracks(range(1000))
    frames, states = jax.vmap(env.start, in_axes=(None, 0))(params, jnp.arange(64))
    frames, states, rewards, ended, _ = jax.vmap(env.step_env, in_axes=(0, 0, 0, None))(keys, states, actions, params)
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState
from gymnax.registration import register, registered_envs
from jaxtyping import Array, Bool, Float, Int, UInt8

from wm_jax.envs.car_racing import dynamics
from wm_jax.envs.car_racing.camera import view
from wm_jax.envs.car_racing.drawing import frame, observation
from wm_jax.envs.car_racing.instruments import bar
from wm_jax.envs.car_racing.track import bank

NAME = "CarRacing-v3"
"""For `gymnax.make`, once this module is imported."""
EPISODE_STEPS = 1000
_DEFAULT_TRACKS = 64


@struct.dataclass
class State(EnvState):
    """Of an episode; `time` is the base class's count of steps. The car's own clock is one step ahead."""

    time: Any  # int32[]; an int for the base class
    car: Any  # CarState, of N cars outside of `vmap`


@struct.dataclass
class Params(EnvParams):
    """The bank of tracks that `reset_env` draws from, and the length of an episode."""

    max_steps_in_episode: Any = EPISODE_STEPS  # int, or int32[] inside of jitted functions
    tracks: Any = None  # Tracks; the base class's default asks for one here, but `on_tracks` always gives them


class CarRacing(Environment[State, Params]):
    """Gymnasium's CarRacing-v3.

    Args:
      continuous: steering, gas and brake; else Gymnasium's five actions.
      whole: show Gymnasium's 96 x 96 observation; else the World Models' frame, its rows 0..83 averaged to 64 x 64.
    """

    def __init__(self, *, continuous: bool = True, whole: bool = False):
        self._continuous, self._whole = continuous, whole
        self._shape = (96, 96, 3) if whole else (64, 64, 3)

    def __eq__(self, other: object) -> bool:
        """Alike ones are the same to `jax.jit`, which then compiles once for all of them."""
        return type(other) is type(self) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self._continuous, self._whole))

    @staticmethod
    def on_tracks(seeds: Sequence[int], *, colourful: bool = False, episode_steps: int = EPISODE_STEPS) -> Params:
        """Parameters with Gymnasium's tracks of these seeds, in this order.

        Args:
          colourful: with the colours of `domain_randomize=True`, and its tracks, which are others.
        """
        return Params(tracks=bank(seeds, colourful=colourful), max_steps_in_episode=episode_steps)

    @property
    def default_params(self) -> Params:
        """The tracks of seeds 0..63."""
        return _default_params()

    def start(
        self, params: Params, track: Int[Array, ""], section: Int[Array, ""] | int = 0
    ) -> tuple[UInt8[Array, "H W 3"], State]:
        """The beginning of an episode on this track of the bank, or somewhere along it (Gymnasium's is section 0)."""
        state = State(time=jnp.int32(0), car=dynamics.start(params.tracks, track.astype(jnp.int32), section))
        return self.get_obs(state, params), state

    def reset_env(self, key: Any, params: Params) -> tuple[UInt8[Array, "H W 3"], State]:
        """The beginning of an episode on a track drawn from the bank."""
        return self.start(params, jax.random.randint(key, (), 0, params.tracks.count.shape[0]))

    def step_env(
        self, key: Any, state: State, action: Float[Array, "3"] | Int[Array, ""], params: Params
    ) -> tuple[UInt8[Array, "H W 3"], State, Float[Array, ""], Bool[Array, ""], dict[str, Any]]:
        """One step; the key is not used. See `dynamics.step`; an ended episode goes on, if it is stepped on."""
        moves = action if self._continuous else dynamics.discrete_action(action)
        car, reward, terminated = dynamics.step(params.tracks, state.car, moves)
        state = State(time=state.time + 1, car=car)
        return self.get_obs(state, params), state, reward, terminated, {}

    def get_obs(self, state: State, params: Params | None = None, key: Any = None) -> UInt8[Array, "H W 3"]:
        """The picture."""
        tracks, shown = (params or self.default_params).tracks, view(state.car)
        return observation(tracks, shown, bar(state.car)) if self._whole else frame(tracks, shown)

    def action_space(self, params: Params | None = None) -> spaces.Box | spaces.Discrete:
        """Steering, gas and brake, or five choices."""
        if not self._continuous:
            return spaces.Discrete(len(dynamics.DISCRETE))
        return spaces.Box(jnp.array([-1.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 1.0]), (3,), jnp.float32)

    def observation_space(self, params: Params | None = None) -> spaces.Box:
        """Red, green and blue."""
        return spaces.Box(0, 255, self._shape, jnp.uint8)

    @property
    def num_actions(self) -> int:
        """3 numbers, or 5 choices."""
        return 3 if self._continuous else len(dynamics.DISCRETE)


@cache
def _default_params() -> Params:
    with jax.ensure_compile_time_eval():
        return CarRacing.on_tracks(range(_DEFAULT_TRACKS))


if NAME not in registered_envs:
    register(NAME, CarRacing)
