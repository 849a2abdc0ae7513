"""Gymnasium environments that show and take all that Gymnasium allows, or do not keep to it.

What a picture has to look like in the end is `RGB`, or `GREY` in three channels. An environment refuses actions that
are not in its space, and its reward is the sum of the action's numbers. `options={"step": X}` in its arguments makes
`step` show X.
"""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
GREY = RGB[..., 0]
FLOATS = RGB.astype(np.float32) / 255
PICTURE = Box(0, 255, RGB.shape, np.uint8)
HALVES = np.array([[0, -np.inf, 5], [np.inf, -4, np.inf]], np.float32)
STATE = Box(-1, 1, (4,), np.float32)


class Odd(gymnasium.Env):
    """Shows the same thing at every step."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(
        self, seen: Space, shows: Any, acts: Space | None = None, later: Any = None, draws: Any = None, render_mode=None
    ):
        self.observation_space, self.action_space = seen, acts or Discrete(2)
        self.render_mode = render_mode
        self._shows, self._later, self._draws = shows, shows if later is None else later, draws

    def reset(self, *, seed=None, options=None):
        return self._shows, {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise TypeError(f"{action!r} is not in {self.action_space}")
        return self._later, float(np.sum(action)), False, False, {}

    def render(self):
        return self._draws


class Limited(Odd):
    """Counts on Gymnasium to end its episodes."""

    def __init__(self):
        super().__init__(PICTURE, RGB)
        self._left = 0

    def reset(self, *, seed=None, options=None):
        self._left = 7
        return super().reset()

    def step(self, action):
        if self._left == 0:
            raise IndexError("beyond the end")
        self._left -= 1
        return super().step(action)


class Broken(Odd):
    """Raises where it is told to."""

    def __init__(self, where: str = "", render_mode=None):
        self._where = where or os.environ.get("ODD_GAMES_BREAK", "")
        if self._where == "init":
            raise FileNotFoundError("no assets\nhere")
        super().__init__(PICTURE, RGB, draws=RGB, render_mode=render_mode)

    def reset(self, *, seed=None, options=None):
        if self._where == "reset":
            raise ValueError("no level")
        return super().reset()


def _register(name: str, *places: Any, **kwargs: Any) -> None:
    arguments = dict(zip(("seen", "shows", "acts"), places, strict=False)) | kwargs
    gymnasium.register(f"{name}-v0", "odd_games:Odd", kwargs=arguments, max_episode_steps=50)


def _box(shape: tuple[int, ...], low: float = 0, high: float = 255, dtype: Any = np.uint8) -> Box:
    return Box(low, high, shape, dtype)


_register("Plain", PICTURE, RGB)
_register("Grey", _box((20, 30)), GREY)
_register("GreyLast", _box((20, 30, 1)), GREY[..., None])
_register("GreyFirst", _box((1, 20, 30)), GREY[None])
_register("Rgba", _box((20, 30, 4)), np.concatenate([RGB, GREY[..., None]], -1))
_register("First", _box((3, 20, 30)), np.ascontiguousarray(RGB.transpose(2, 0, 1)))
_register("Floats", _box((20, 30, 3), 0, 1, np.float32), FLOATS)
_register("Centred", _box((3, 20, 30), -1, 1, np.float64), 2.0 * (RGB.transpose(2, 0, 1) / 255) - 1)
_register("Levels", _box((20, 30, 3), 0, 255, np.float32), RGB.astype(np.float32))
_register("Integers", _box((20, 30, 3), 0, 255, np.int64), RGB.astype(np.int64))
_register("Entry", Dict(state=STATE, image=PICTURE), {"state": np.zeros(4, np.float32), "image": RGB})
_register("Nested", Dict(a=Dict(b=Tuple((STATE, PICTURE)))), {"a": {"b": (np.zeros(4, np.float32), RGB)}})
_register("Cameras", Dict(left=PICTURE, right=PICTURE, state=STATE), {"left": 0 * RGB, "right": RGB})
_register("Stacked", _box((4, 20, 30)), None)
_register("Unbounded", _box((20, 30, 3), -np.inf, np.inf, np.float32), None)
_register("Vast", _box((20, 30, 3), -1e10, 1e10, np.float32), None)
_register("State", STATE, np.zeros(4, np.float32), draws=RGB)
_register("Long", Box(np.arange(40, dtype=np.float32), np.inf), None)
_register("Words", Dict(state=STATE), None)

_register("WrongType", _box((96, 96, 3)), np.full((96, 96, 3), 7, np.float32))
_register("WrongShape", _box((96, 96, 3)), np.full((96, 96, 4), 7, np.uint8))
_register("WrongLater", _box((96, 96, 3)), np.full((96, 96, 3), 7, np.uint8), later=np.full((96, 96), 7, np.uint8))
_register("WrongRange", _box((20, 30, 3), 0, 1, np.float32), 255 * FLOATS)
_register("WrongLevels", _box((20, 30, 3), 0, 7), np.full((20, 30, 3), 8, np.uint8))
_register("NaN", _box((20, 30, 3), 0, 1, np.float32), np.full((20, 30, 3), np.nan, np.float32))
_register("WrongEntry", Dict(image=PICTURE), {"picture": RGB})
_register("WrongDrawing", STATE, np.zeros(4, np.float32), draws=[RGB])

_register("Centered3", PICTURE, RGB, Discrete(3, start=-1))
_register("Choices", PICTURE, RGB, MultiDiscrete([3, 2], start=[-1, 5]))
_register("Bits", PICTURE, RGB, MultiBinary((3,)))
_register("ManyBits", PICTURE, RGB, MultiBinary(7))
_register("Whole", PICTURE, RGB, Box(np.array([-3, 0], np.int32), np.array([3, 9], np.int32), dtype=np.int32))
_register("Bytes", PICTURE, RGB, Box(0, 255, (2,), np.uint8))
_register("Doubles", PICTURE, RGB, Box(-0.1, 0.1, (2,), np.float64))
_register("Endless", PICTURE, RGB, Box(-np.inf, np.inf, (2,), np.float32))
_register("Half", PICTURE, RGB, Box(*HALVES, dtype=np.float32))
_register("Grid", PICTURE, RGB, Box(-2, 2, (2, 3), np.float32))
_register("Spoken", PICTURE, RGB, gymnasium.spaces.Text(5))

gymnasium.register("Timeless-v0", "odd_games:Odd", kwargs={"seen": PICTURE, "shows": RGB})
gymnasium.register("Limited-v0", "odd_games:Limited", max_episode_steps=7)
gymnasium.register("Broken-v0", "odd_games:Broken", max_episode_steps=7)
