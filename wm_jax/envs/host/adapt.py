"""Gymnasium environments as we play them: opened silently, looked at and acted on as `conversions.py` says.

Both the parent, which asks what a game is (`describe.py`), and the workers, which play it, open environments here, so
that both convert alike.
"""

import contextlib
import os
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wm_jax.envs.host.conversions import Pictures, Undeclared, Unplayable, drawn, moves, pictures
from wm_jax.envs.spaces import ActionSpace
from wm_jax.utils.user_classes import make_importable

TAKEN = {
    "max_episode_steps": "give env.episode_steps",
    "render_mode": "give env.pixels render to see what it draws",
    "disable_env_checker": "leave it out",
    "id": "leave it out",
}
"""Arguments of `gymnasium.make` that are ours to give, with the remedy."""


class Environment:
    """A Gymnasium environment that shows RGB screens and takes the actions of `envs/spaces.py`.

    Args:
      env: of `gymnasium.make`.
      observation: which entry of a Dict is the picture (None: the only one).
      draws: its pictures are what it draws, instead of its observations.
      screen: height and width that its screens must have (None: whatever they are).

    Raises:
      Unplayable: its observations or actions are of a kind that we don't play.
      Undeclared: its screens are of another size.
    """

    def __init__(self, env: Any, observation: str | None, *, draws: bool, screen: tuple[int, int] | None):
        self.env = env
        self._draws, self._expected = draws, screen
        self._moves = moves(env.action_space)
        self._pictures: Pictures | None = None
        if draws:
            modes = env.metadata.get("render_modes") or ()
            if "rgb_array" not in modes:
                raise Unplayable(
                    f"env.pixels render: it can't draw into an array (render modes: {', '.join(modes) or 'none'}); "
                    "leave it out"
                )
        else:
            self._see(pictures(env.observation_space, observation))

    @property
    def actions(self) -> ActionSpace:
        """What it is acted on with."""
        return self._moves.space

    @property
    def screen(self) -> tuple[int, int]:
        """Height and width of its screens; of those that it draws, known from the first `reset` on."""
        assert self._pictures is not None
        return self._pictures.size

    @property
    def conversions(self) -> tuple[str, ...]:
        """What is done to its observations and actions, in words; complete as soon as `screen` is known."""
        remarks = self._pictures.remarks if self._pictures else ()
        size = f"{self.screen[0]} x {self.screen[1]}" if self._draws and self._pictures else ""
        seen = (f"the screen is what render draws, {size}",) if self._draws else ()
        return (*seen, *remarks, *self._moves.remarks)

    def reset(self, *, seed: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The first screen uint8 [H, W, 3] of an episode, and Gymnasium's info.

        Raises:
          Undeclared: what the environment returned is not what it declared.
        """
        answer = self.env.reset(seed=seed)
        observation, info = _parts(answer, "reset", "observation, info")
        return self._screen(observation, "reset"), info

    def step(self, action: Any) -> tuple[NDArray[np.uint8], Any, Any, Any, dict[str, Any]]:
        """Screen uint8 [H, W, 3], reward, terminated, truncated, info.

        Args:
          action: an index of `Discrete.indices`, or a vector float32 [A].

        Raises:
          Undeclared: what the environment returned is not what it declared.
        """
        answer = self.env.step(self._moves.convert(action))
        names = "observation, reward, terminated, truncated, info"
        observation, reward, terminated, truncated, info = _parts(answer, "step", names)
        return self._screen(observation, "step"), reward, terminated, truncated, info

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _screen(self, observation: Any, deed: str) -> NDArray[np.uint8]:
        if self._draws:
            observation, deed = self.env.render(), "render"
        if self._pictures is None:
            self._see(drawn(observation))
            assert self._pictures is not None
        return self._pictures.screen(observation, deed)

    def _see(self, found: Pictures) -> None:
        if self._expected not in (None, found.size):
            raise Undeclared(f"it declared screens of {self._expected} when it was looked up, but now of {found.size}")
        self._pictures = found


def open_environment(
    identifier: str,
    *,
    kwargs: Mapping[str, Any],
    observation: str | None = None,
    pixels: Literal["observation", "render"] = "observation",
    screen: tuple[int, int] | None = None,
    random_start: bool = False,
) -> Environment:
    """Open an environment by its id (`ID` or `module:ID`), with its own limit on the length of episodes.

    Pygame greets and both pygame and ALE warn on import; neither says anything to a user of this project.

    Args:
      kwargs: its own arguments.
      observation, screen: see `Environment`.
      pixels: what is seen: its observations, or what it draws.
      random_start: episodes of an ALE game begin anywhere in it; see `random_start.py`.

    Raises:
      Unplayable: it is none that we play, or not with these arguments.
      Exception: whatever Gymnasium, or the environment's module or constructor, raises.
    """
    for name, remedy in TAKEN.items():
        if name in kwargs:
            raise Unplayable(f"env.kwargs {name}: not an argument of the environment itself; {remedy}")
    draws = pixels == "render"
    if draws and observation is not None:
        raise Unplayable(f"env.observation {observation}: with env.pixels render no observation is seen; drop one")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gymnasium

        _find(identifier)
        arguments: dict[str, Any] = {**kwargs, "render_mode": "rgb_array"} if draws else dict(kwargs)
        # Its passive checker costs time and only prints warnings.
        env = gymnasium.make(identifier, disable_env_checker=True, **arguments)
        with contextlib.ExitStack() as unless_it_fits:
            unless_it_fits.callback(env.close)
            if random_start:
                from wm_jax.envs.host.random_start import RandomStart

                env = RandomStart(env)
            adapted = Environment(env, observation, draws=draws, screen=screen)
            unless_it_fits.pop_all()
    return adapted


def _find(identifier: str) -> None:
    """Make sure that the module which knows an environment can be imported, or is."""
    import gymnasium

    module, _, _ = identifier.rpartition(":")
    if module:
        try:
            make_importable(module)
        except ModuleNotFoundError as error:
            raise Unplayable(str(error)) from None
    elif identifier not in gymnasium.registry:
        # ALE's names, new and old, are registered when it is imported; other names are none the worse for it.
        with contextlib.suppress(ImportError):
            import ale_py

            ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
            gymnasium.register_envs(ale_py)


def _parts(answer: Any, deed: str, names: str) -> tuple[Any, ...]:
    """What `reset` or `step` returned, if it is as many things as Gymnasium says."""
    wanted = len(names.split(", "))
    if not isinstance(answer, tuple) or len(answer) != wanted:
        what = f"a tuple of {len(answer)}" if isinstance(answer, tuple) else type(answer).__name__
        raise Undeclared(f"Gymnasium's {deed} returns ({names}), but this one returned {what}")
    return answer
