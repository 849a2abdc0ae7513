"""World Models (Ha & Schmidhuber 2018) in JAX: V, M and C on real games.

    import wm_jax

    agent = wm_jax.load("carracing")           # the included agent; or a run's folder
    print(agent.play([1, 2, 3]).returns)

The names of `__all__` are imported when they are first used: until then, neither JAX nor a game is.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Agent": "models.agent",
    "CarRacing": "envs.car_racing",
    "CarRacingGame": "envs.car_racing.game",
    "Config": "config.schema",
    "Continuous": "envs.spaces",
    "Controller": "models.controller",
    "DeviceGame": "envs.types",
    "Discrete": "envs.spaces",
    "Dream": "models.dream",
    "Evolution": "training.evolution",
    "Expected": "library.agents",
    "MDNRNN": "models.memory",
    "ReplayStore": "data.replay",
    "TrainedAgent": "library.agents",
    "UserError": "utils.errors",
    "Vae": "models.vae",
    "load": "library.agents",
    "make_agent": "models.agent",
    "make_vae": "models.vae",
    "play": "library.playing",
    "prepare": "utils.process",
    "to_frames": "library.frames",
    "train": "library.training",
}
"""The names, and the modules below this package that they come from."""

__all__ = [  # noqa: RUF022, in the order in which one meets them
    "load",
    "train",
    "play",
    "to_frames",
    "prepare",
    "TrainedAgent",
    "Expected",
    "UserError",
    "Config",
    "ReplayStore",
    "make_vae",
    "Vae",
    "MDNRNN",
    "Controller",
    "Agent",
    "make_agent",
    "Evolution",
    "Dream",
    "DeviceGame",
    "Discrete",
    "Continuous",
    "CarRacingGame",
    "CarRacing",
]

if TYPE_CHECKING:
    from wm_jax.config.schema import Config
    from wm_jax.data.replay import ReplayStore
    from wm_jax.envs.car_racing import CarRacing
    from wm_jax.envs.car_racing.game import CarRacingGame
    from wm_jax.envs.spaces import Continuous, Discrete
    from wm_jax.envs.types import DeviceGame
    from wm_jax.library.agents import Expected, TrainedAgent, load
    from wm_jax.library.frames import to_frames
    from wm_jax.library.playing import play
    from wm_jax.library.training import train
    from wm_jax.models.agent import Agent, make_agent
    from wm_jax.models.controller import Controller
    from wm_jax.models.dream import Dream
    from wm_jax.models.memory import MDNRNN
    from wm_jax.models.vae import Vae, make_vae
    from wm_jax.training.evolution import Evolution
    from wm_jax.utils.errors import UserError
    from wm_jax.utils.process import prepare


def __getattr__(name: str) -> Any:
    """A public name, imported now (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
