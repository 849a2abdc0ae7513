"""Playing on the host's environments: their threads and the network work at the same time.

Slots come back from the pool as they get ready; while the network acts for one half, the pool steps the other.

Why no core is idle for long: where slots can restart (Gymnasium's workers), each begins the next episode as soon as it
has ended one. EnvPool's can't, so there the episodes are played in waves of `pool.slots`, and a wave lasts as long as
its longest episode. The remedy is a slot for every episode, which costs memory alone: the pool's threads step whichever
of its environments are ready, and until fewer are left than threads, all threads are busy. CarRacing takes 2.9 MB for
each environment, 3 GB for the 1,024 episodes of a generation of the paper.
"""

import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from wm_jax.envs.types import Pool, Step
from wm_jax.rollout.types import EpisodeLimits, EpisodeStats, Policy, Watch


def play_on_host(pool: Pool, seeds: Sequence[int], policy: Policy, limits: EpisodeLimits, watch: Watch) -> EpisodeStats:
    """Play one episode per seed in the pool's environments; see `play.play`.

    Args:
      watch: is shown every step, and may raise to end the play.
    """
    schedule = _HostSchedule(pool, seeds, policy, limits, watch)
    began = time.monotonic()
    while schedule.waiting:
        schedule.play_wave()
    seconds = time.monotonic() - began
    return EpisodeStats(schedule.returns, schedule.lengths, seconds, schedule.acting.seconds, schedule.idle.seconds)


class _HostSchedule:
    """The books of one call of `play_on_host`: which slot plays which episode, and what came of them so far."""

    def __init__(self, pool: Pool, seeds: Sequence[int], policy: Policy, rules: EpisodeLimits, watch: Watch):
        self._pool, self._seeds, self._policy, self._rules, self._watch = pool, seeds, policy, rules, watch
        self.returns, self.lengths = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64)
        self._rewarded_at = np.zeros(len(seeds), np.int64)
        self.waiting = deque(range(len(seeds)))
        self.acting, self.idle = _Clock(), _Clock()

    def play_wave(self) -> None:
        """Fill all slots with waiting episodes, and play until all have ended and no slot can begin another."""
        everyone = np.arange(min(self._pool.slots, len(self.waiting)), dtype=np.int32)
        self._episodes, self._beginning = np.zeros(len(everyone), np.int64), np.zeros(len(everyone), bool)
        seeds = self._assign(everyone)
        with self.idle:
            frames = self._pool.reset(seeds)
        for half in np.array_split(everyone, min(2, len(everyone))):
            self._act(half, frames[half])
        playing = len(everyone)
        while playing:
            with self.idle:
                step = self._pool.recv()
            done = self._enter(step)
            playing += self._restart(step.ids[done]) - int(done.sum())
            self._act(step.ids[~done], step.frames[~done])

    def _assign(self, slots: np.ndarray) -> list[int]:
        """Give each slot a waiting episode; their seeds."""
        episodes = np.array([self.waiting.popleft() for _ in slots], np.int64)
        self._episodes[slots] = episodes
        self._policy.start(slots, episodes)
        return [self._seeds[int(episode)] for episode in episodes]

    def _restart(self, ended: np.ndarray) -> int:
        """Begin waiting episodes in slots whose own have ended, if slots can restart; how many."""
        slots = ended[: len(self.waiting)] if self._pool.restarts else ended[:0]
        if len(slots):
            self._pool.restart(slots, self._assign(slots))
            self._beginning[slots] = True
        return len(slots)

    def _act(self, ids: np.ndarray, frames: np.ndarray) -> None:
        if len(ids):
            with self.acting:
                actions = self._policy.act(ids, frames)
            self._pool.send(ids, actions)

    def _enter(self, step: Step) -> np.ndarray:
        """Enter what slots answered in the books; which of their episodes are done."""
        episodes, stepped = self._episodes[step.ids], ~self._beginning[step.ids]
        self._beginning[step.ids] = False
        self.returns[episodes] += step.reward
        self.lengths[episodes] += stepped
        self._begin_again(episodes[step.lost])
        done = step.terminated | step.truncated
        if self._rules.steps:
            done = done | (self.lengths[episodes] >= self._rules.steps)
        if self._rules.patience:
            rewarded_at = np.where(step.reward > 0, self.lengths[episodes], self._rewarded_at[episodes])
            self._rewarded_at[episodes] = rewarded_at
            done = done | (self.lengths[episodes] - rewarded_at >= self._rules.patience)
        shown = stepped & ~step.lost
        if shown.any():
            self._watch(Step._make(field[shown] for field in step), done[shown])
        return done

    def _begin_again(self, lost: np.ndarray) -> None:
        """Forget what came of these episodes, and put them first in the queue: the same comes of the same seed."""
        for books in (self.returns, self.lengths, self._rewarded_at):
            books[lost] = 0
        self.waiting.extendleft(lost[::-1].tolist())


class _Clock:
    """Adds up the seconds spent inside `with`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic() - self._began
