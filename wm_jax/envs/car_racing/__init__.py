"""CarRacing-v3 as a pure function of JAX: Gymnasium's tracks, car, rewards and pictures, on any device.

from wm_jax.envs.car_racing import CarRacing

env = CarRacing()
frame, state = env.reset(jax.random.key(0), env.default_params)
"""

import importlib
from typing import TYPE_CHECKING, Any

from wm_jax.utils.extras import require

if TYPE_CHECKING:
    from wm_jax.envs.car_racing.environment import CarRacing, Params, State

__all__ = ["CarRacing", "Params", "State"]


def __getattr__(name: str) -> Any:
    """The environment, once it is asked for: Gymnax computes when it is imported, before processes can be joined."""
    if name in __all__:
        require("gymnax", "CarRacing as an environment of Gymnax")
        return getattr(importlib.import_module("wm_jax.envs.car_racing.environment"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
