"""Playing games: `play`, for every game and every policy, one episode per seed.

Where the game is a function of JAX, an agent plays it on the device (`device_rollout.py`). All else is played on the
host's environments, whose threads and the network work at the same time: slots come back from the pool as they get
ready; while the network acts for one half, the pool steps the other.

Why no core is idle for long: where slots can restart (Gymnasium's workers), each begins the next episode as soon as it
has ended one. EnvPool's can't, so there the episodes are played in waves of `pool.slots`, and a wave lasts as long as
its longest episode. The remedy is a slot for every episode, which costs memory alone: the pool's threads step whichever
of its environments are ready, and until fewer are left than threads, all threads are busy. CarRacing takes 2.9 MB for
each environment, 3 GB for the 1,024 episodes of a generation of the paper.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import jax
import numpy as np

from wm_jax import streams
from wm_jax.device_rollout import CPU_ROWS, play_on_device
from wm_jax.devices import RowSharing, padded, padded_size
from wm_jax.envs.types import DeviceGame, Pool, Step
from wm_jax.interrupt import Stop
from wm_jax.metrics import Progress
from wm_jax.models.agent import Agent, AgentParams
from wm_jax.played import EpisodeLimits, EpisodeStats
from wm_jax.spaces import ActionSpace, Continuous

CPU_BATCH = 32
"""Most rows of one call on CPU: half the slots of a usual pool. Fewer would leave cores idle between the calls."""

Watch = Callable[[Step, np.ndarray], None]
"""Is shown every `Step` with the finished flags bool[B] (first frames are not steps, nor is the loss of an episode)."""


class Policy(Protocol):
    """Something that acts for many episodes at once."""

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """From now on slots[i] plays episode `episodes[i]` (a position in the list of seeds), from its beginning."""
        ...

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Actions for the slots int32[B] that show frames uint8 [B, 64, 64, 3]."""
        ...


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
    match = _HostSchedule(pool, seeds, policy, EpisodeLimits(steps, patience), _follow(stop, progress, watch))
    began = time.monotonic()
    while match.waiting:
        match.play_wave()
    return EpisodeStats(
        match.returns, match.lengths, time.monotonic() - began, match.acting.seconds, match.idle.seconds
    )


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


class _HostSchedule:
    """The books of one call of `play`: which slot plays which episode, and what came of them so far."""

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


class RandomPolicy:
    """Exploration without a model. The actions of an episode depend on its seed alone: see `plan`.

    Args:
      seeds: one per episode.
      steps: longest episode.
    """

    def __init__(self, kind: str, space: ActionSpace, seeds: Sequence[int], steps: int, hold: float = 8.0):
        self._kind, self._space, self._seeds, self._steps, self._hold = kind, space, seeds, steps, hold
        self._plans: dict[int, Iterator[np.ndarray]] = {}

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """Draw every action of these episodes."""
        for slot, episode in zip(slots.tolist(), episodes.tolist(), strict=True):
            self._plans[slot] = iter(plan(self._kind, self._space, self._seeds[episode], self._steps, self._hold))

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """int32[B] or float32[B, A]."""
        return np.stack([next(self._plans[slot]) for slot in ids.tolist()])


def plan(kind: str, space: ActionSpace, seed: int, steps: int, hold: float) -> np.ndarray:
    """All actions of a random episode, int32[T] or float32[T, A].

    Args:
      kind: `uniform` draws every action anew; `held` keeps an action for a geometric number of steps; `brownian` lets
        continuous actions wander (for discrete actions it is `held`).
      steps: T.
      hold: mean steps of `held`.
    """
    random = streams.generator(seed, "random policy")
    if kind == "brownian" and isinstance(space, Continuous):
        return _wander(space, random, steps)
    draws = space.draw(random, steps)
    if kind == "uniform":
        return draws
    changes = random.random(steps) < 1 / hold
    changes[0] = True
    return draws[np.maximum.accumulate(np.where(changes, np.arange(steps), 0))]


def _wander(space: Continuous, random: np.random.Generator, steps: int) -> np.ndarray:
    """Reflected Brownian motion that crosses its range in about 50 steps."""
    low, high = np.asarray(space.low), np.asarray(space.high)
    place = random.uniform(0, 1, space.size)
    moves = random.normal(0, 1 / np.sqrt(50), (steps, space.size))
    folded = np.abs((place + np.cumsum(moves, 0) + 1) % 2 - 1)
    return (low + folded * (high - low)).astype(np.float32)


class AgentPolicy:
    """V + M + C on this process's device, or on its accelerators, for the slots of a pool.

    Args:
      params: the controller's are [P, n_params].
      candidates: int[N], which row of them plays each episode.
      seeds: of the episodes; what is drawn in play depends on them.
      slots: most episodes at once; the device holds a carry for each.
      devices: which share the rows (None: this process's accelerators).
    """

    def __init__(
        self,
        agent: Agent,
        params: AgentParams,
        candidates: np.ndarray,
        seeds: Sequence[int],
        slots: int,
        devices: RowSharing | None = None,
    ):
        self._devices = devices or RowSharing.of_accelerators()
        self._agent, self._params, self._slots = agent, self._devices.whole(params), slots
        self._on_cpu = jax.default_backend() == "cpu"
        self._candidates, self._seeds = np.asarray(candidates, np.int32), np.asarray(seeds, np.int32)
        self._episodes, self._fresh = np.zeros(slots, np.int64), np.zeros(slots, bool)
        self._carry = self._devices.whole(agent.init(slots))

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """The slots' memories are forgotten; their episodes' candidates play."""
        self._episodes[slots], self._fresh[slots] = episodes, True

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """int32[B] or float32[B, A]. Batches are padded to one size, or a few, so that few programs are compiled."""
        most = CPU_BATCH if self._on_cpu else self._slots
        pieces = [slice(start, start + most) for start in range(0, len(ids), most)]
        return np.concatenate([self._act(ids[piece], frames[piece]) for piece in pieces])

    def play_on_device(
        self,
        game: DeviceGame,
        seeds: Sequence[int],
        rules: EpisodeLimits,
        slots: int,
        stop: Stop | None,
        progress: Progress | None,
    ) -> EpisodeStats:
        """Play all episodes where the network is; see `play`."""
        return play_on_device(
            game,
            seeds,
            self._agent,
            self._params,
            self._candidates,
            rules,
            slots=slots,
            devices=self._devices,
            stop=stop,
            progress=progress,
        )

    def _act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        size = CPU_BATCH if self._on_cpu else padded_size(len(ids))
        episodes = self._episodes[ids]
        batch = (
            padded(ids, size, -1),
            padded(frames, size),
            padded(self._seeds[episodes], size),
            padded(self._candidates[episodes], size),
            padded(self._fresh[ids], size),
        )
        at_once = CPU_ROWS if self._on_cpu else None
        carry, actions = self._agent.act(self._params, self._carry, *self._devices.rows(batch), at_once=at_once)
        self._carry = self._devices.whole(carry)
        self._fresh[ids] = False
        return np.asarray(actions)[: len(ids)]
