"""An agent in an environment of one's own."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wm_jax.library.agents import TrainedAgent
from wm_jax.library.frames import to_frames


def play(
    make: Callable[[], Any],
    agent: TrainedAgent,
    seeds: Sequence[int],
    *,
    steps: int = 10_000,
    crop: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Play one episode for each seed, side by side, in environments with Gymnasium's methods.

    Args:
      make: makes an environment with `reset(seed=...) -> (screen, info)`, `step(action) -> (screen, reward, terminated,
        truncated, info)` and `close()`; screens are uint8 [H, W, 3] or [H, W].
      agent: has a C.
      steps: of the longest episode.
      crop: of the screen (`to_frames`).

    Returns:
      float64[N]: the sum of each episode's rewards.

    Raises:
      UserError: the agent has no C.
      ValueError: a screen is none.
    """
    with contextlib.ExitStack() as opened:
        environments = [opened.enter_context(contextlib.closing(make())) for _ in seeds]
        screens = [each.reset(seed=int(seed))[0] for each, seed in zip(environments, seeds, strict=True)]
        returns, playing, carry = np.zeros(len(seeds)), np.ones(len(seeds), bool), agent.begin(len(seeds))
        for _ in range(steps):
            frames = np.concatenate([to_frames(np.asarray(screen)[None], crop) for screen in screens])
            actions, carry = agent.act(frames, carry, seeds)
            for i in np.flatnonzero(playing):
                screens[i], reward, terminated, truncated, _ = environments[i].step(actions[i])
                returns[i] += reward
                playing[i] = not (terminated or truncated)
            if not playing.any():
                break
        return returns
