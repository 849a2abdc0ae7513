"""An agent in an environment of one's own."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from wm_jax.envs.types import Crop, Game
from wm_jax.library.agents import TrainedAgent
from wm_jax.library.frames import to_frames
from wm_jax.library.given import environment_of, seeds_of


def play(
    make: Callable[[], Any],
    agent: TrainedAgent,
    seeds: Sequence[int],
    *,
    steps: int = 10_000,
    crop: Crop | Literal["game"] | None = "game",
) -> np.ndarray:
    """Play one episode for each seed, side by side, in environments with Gymnasium's methods.

    Args:
      make: makes an environment with `reset(seed=...) -> (screen, info)`, `step(action) -> (screen, reward, terminated,
        truncated, info)` and `close()`; screens are uint8 [H, W, 3] or [H, W].
      agent: has a C.
      steps: of the longest episode.
      crop: of the screen (`to_frames`); "game": as the agent was trained, where screens are as large as its game's.

    Returns:
      float64[N]: the sum of each episode's rewards.

    Raises:
      UserError: the agent has no C.
      ValueError: a screen is none, or a seed.
      TypeError: an environment lacks a method.
    """
    seeds = seeds_of(seeds)
    with contextlib.ExitStack() as opened:
        environments = [opened.enter_context(contextlib.closing(environment_of(make()))) for _ in seeds]
        screens = [each.reset(seed=seed)[0] for each, seed in zip(environments, seeds, strict=True)]
        returns, playing, carry = np.zeros(len(seeds)), np.ones(len(seeds), bool), agent.begin(len(seeds))
        for _ in range(steps):
            frames = np.concatenate([_seen(np.asarray(screen), agent.game, crop) for screen in screens])
            chosen, carry = agent.act(frames, carry, seeds)
            actions = agent.game.actions.checked(chosen, len(seeds))
            for i in np.flatnonzero(playing):
                screens[i], reward, terminated, truncated, _ = environments[i].step(actions[i])
                returns[i] += reward
                playing[i] = not (terminated or truncated)
            if not playing.any():
                break
        return returns


def _seen(screen: np.ndarray, game: Game, crop: Crop | Literal["game"] | None) -> np.ndarray:
    """A screen as a frame uint8 [1, 64, 64, 3]."""
    if crop == "game":
        crop = game.crop if screen.shape[:2] == game.screen else None
    return to_frames(screen[None], crop)
