"""Frames that no training saw, of levels that no training saw: consecutive ones, with the actions between them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from wm_jax import stages
from wm_jax.config.schema import Config
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.games import find
from wm_jax.rollout.exploration import without_agent
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.utils.arrays import evenly_spaced
from wm_jax.utils.rare_pixels import Palette

STRETCHES, STRETCH = 24, 100
"""So many stretches of so many frames, all over the episodes."""
EPISODES, FRAMES = 32, 12_000
"""What is collected for them, unless the settings ask for less in all."""
LEVELS = 100_000
"""Of Procgen's levels, so many behind those of training."""
OTHER_SEED = 7919
"""Added to the seed: other episodes than those of training."""


@dataclass(frozen=True)
class Stretch:
    """T + 1 consecutive frames of an episode.

    frames: uint8[T + 1, 64, 64, 3].
    actions: encoded, float32[T, A].
    """

    frames: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """What auto-encoders are measured on.

    stretches: their frames.
    palette: the game's colours, from these frames.
    episodes: how many were collected.
    """

    stretches: list[Stretch]
    palette: Palette
    episodes: int

    @cached_property
    def frames(self) -> np.ndarray:
        """All of them, uint8[F, 64, 64, 3]."""
        return np.concatenate([stretch.frames for stretch in self.stretches])


def unseen(config: Config) -> Config:
    """The settings with which held-out episodes are collected: other episodes than those of training, and of Procgen
    other levels.
    """
    env, collect = config.env, config.collect
    if find(config.game, env).family == "procgen":
        first = env.test_first_level
        env = env.model_copy(update={"first_level": first, "levels": LEVELS, "test_first_level": first + LEVELS})
    collect = collect.model_copy(
        update={
            "episodes": min(EPISODES, collect.episodes),
            "frames": min(FRAMES, collect.frames),
            "policy": without_agent(config.collect.policy),
        }
    )
    return config.model_copy(update={"seed": config.seed + OTHER_SEED, "env": env, "collect": collect})


def held_out(config: Config, folder: Path, stop: Stop) -> HeldOut:
    """The frames, collected first where they are not there yet.

    Args:
      folder: of the run that they are kept in.
    """
    asked = unseen(config)
    run = Run.open(folder, makes={"replays"})
    run.make()
    stages.make("replays", asked, run, stop)
    store = ReplayStore.open(run.stage("replays").path)
    actions = find(asked.game, asked.env).actions
    long = [i for i, record in enumerate(store.records) if record.frames > 2]
    stretches = []
    for place in evenly_spaced(len(long), STRETCHES).tolist():
        episode = store.episode(long[place])
        count = min(STRETCH, len(episode.actions))
        first = (len(episode.actions) - count) // 2
        encoded = np.asarray(actions.encode(jnp.asarray(episode.actions[first : first + count])))
        stretches.append(Stretch(episode.frames[first : first + count + 1], encoded))
    return HeldOut(stretches, Palette.of(np.concatenate([each.frames for each in stretches])), store.count().episodes)
