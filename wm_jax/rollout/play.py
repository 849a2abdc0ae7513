"""Playing games: `play`, for every game and every policy, one episode per seed.

Where the game is a function of JAX, an agent plays it on the device (`device.py`); all else is played on the host's
environments (`host.py`).
"""

from collections.abc import Sequence

import numpy as np

from wm_jax.distributed.progress import Progress
from wm_jax.envs.types import Pool, Step
from wm_jax.models.dream import Dream
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.host import play_on_host
from wm_jax.rollout.types import EpisodeLimits, EpisodeStats, Policy, Watch
from wm_jax.run.interrupt import Stop


def play(
    pool: Pool,
    seeds: Sequence[int],
    policy: Policy,
    *,
    steps: int = 0,
    patience: int = 0,
    stop: Stop | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> EpisodeStats:
    """Play one episode per seed, at most `pool.slots` at a time. One that is lost with its process is played again.

    Args:
      steps: give an episode up after so many steps, if the game has not ended it before; 0 never does.
      patience: give an episode up after this many steps without a positive reward; 0 never does.
      stop: ends the play when the user asks for it.
      progress: is told of every episode that has ended.
      watch: is shown every step.

    Raises:
      Interrupted: by `stop`.
      UserError: an action or a reward is not finite, or the game failed.
    """
    if watch is None and pool.device_game is not None and isinstance(policy, AgentPolicy):
        rules = EpisodeLimits(min(steps or pool.episode_steps, pool.episode_steps), patience)
        return policy.play_on_device(pool.device_game, seeds, rules, pool.slots, stop, progress)
    return play_on_host(pool, seeds, policy, EpisodeLimits(steps, patience), _follow(stop, progress, watch))


def play_in_dream(
    dream: Dream,
    seeds: Sequence[int],
    policy: AgentPolicy,
    slots: int,
    *,
    steps: int = 0,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> EpisodeStats:
    """Play one episode per seed, on the device; see `play`.

    Args:
      slots: most episodes at once.
    """
    limits = EpisodeLimits(min(steps or dream.episode_steps, dream.episode_steps))
    return policy.play_on_device(dream, seeds, limits, slots, stop, progress)


def _follow(stop: Stop | None, progress: Progress | None, then: Watch | None) -> Watch:
    """A `Watch` that stops when asked to, counts finished episodes, and shows each step to `then`."""

    def watch(step: Step, done: np.ndarray) -> None:
        if stop is not None:
            stop.check()
        if then is not None:
            then(step, done)
        if progress is not None and done.any():
            progress.advance(int(done.sum()))

    return watch
