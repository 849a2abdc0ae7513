"""Playing games on host environments: the environments' threads and the network work at the same time.

One episode per seed. Slots come back from the pool as they get ready; while the network acts for these, the pool
steps the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np

from wm_jax import streams
from wm_jax.devices import RowSharing
from wm_jax.envs.host.pool import HostPool, Step
from wm_jax.interrupt import Stop
from wm_jax.models.agent import Agent, AgentCarry, AgentParams
from wm_jax.spaces import ActionSpace, Discrete

CPU_ROWS = 8
"""Rows of every batch on CPU: few enough for small pools, and within an eighth of the speed of any larger batch."""


@dataclass(frozen=True)
class Played:
    """What came of N episodes.

    returns: float64[N], undiscounted sums of rewards.
    lengths: int64[N], steps.
    """

    returns: np.ndarray
    lengths: np.ndarray


class Policy(Protocol):
    """Something that acts for many episodes at once."""

    def start(self, episodes: np.ndarray) -> None:
        """Slot i plays episode `episodes[i]` (a position in the list of seeds) from now on."""
        ...

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Actions for the slots int32[B] that show frames uint8 [B, 64, 64, 3]."""
        ...


def play(
    pool: HostPool,
    seeds: Sequence[int],
    policy: Policy,
    *,
    patience: int = 0,
    watch: Callable[[Step, np.ndarray], None] | None = None,
    on_done: Callable[[int], None] | None = None,
    stop: Stop | None = None,
) -> Played:
    """Play one episode per seed, at most `pool.slots` at a time.

    Args:
      patience: give an episode up after this many steps without a positive reward; 0 never does.
      watch: called with every `Step` and the finished flags bool[B] (first frames are not steps).
      on_done: called with the number of episodes that just finished.
      stop: checked now and then; an interrupted play leaves nothing behind.
    """
    played = Played(np.zeros(len(seeds)), np.zeros(len(seeds), np.int64))
    for first in range(0, len(seeds), pool.slots):
        episodes = np.arange(first, min(first + pool.slots, len(seeds)))
        _play_wave(pool, [seeds[int(i)] for i in episodes], episodes, policy, played, patience, watch, on_done, stop)
    return played


def _play_wave(
    pool: HostPool,
    seeds: list[int],
    episodes: np.ndarray,
    policy: Policy,
    played: Played,
    patience: int,
    watch: Callable[[Step, np.ndarray], None] | None,
    on_done: Callable[[int], None] | None,
    stop: Stop | None,
) -> None:
    frames = pool.reset(seeds)
    policy.start(episodes)
    rewarded_at = np.zeros(len(seeds), np.int64)
    everyone = np.arange(len(seeds), dtype=np.int32)
    for ids in np.array_split(everyone, min(2, len(everyone))):
        pool.send(ids, policy.act(ids, frames[ids]))
    running = len(seeds)
    while running:
        if stop is not None:
            stop.check()
        step = pool.recv()
        which = episodes[step.ids]
        played.returns[which] += step.reward
        played.lengths[which] += 1
        done = step.terminated | step.truncated
        if patience:
            rewarded_at[step.ids] = np.where(step.reward > 0, played.lengths[which], rewarded_at[step.ids])
            done = done | (played.lengths[which] - rewarded_at[step.ids] >= patience)
        if watch is not None:
            watch(step, done)
        if (finished := int(done.sum())) and on_done is not None:
            on_done(finished)
        running -= finished
        if not done.all():
            pool.send(step.ids[~done], policy.act(step.ids[~done], step.frames[~done]))


class RandomPolicy:
    """Exploration without a model. The actions of an episode depend on its seed alone.

    `uniform` draws every action anew; `held` keeps an action for a geometric number of steps; `brownian` lets
    continuous actions wander (for discrete actions it is `held`).

    Args:
      seeds: one per episode.
      steps: longest episode.
      hold: mean steps of `held`.
    """

    def __init__(self, kind: str, space: ActionSpace, seeds: Sequence[int], steps: int, hold: float = 8.0):
        self._kind, self._space, self._seeds, self._steps, self._hold = kind, space, seeds, steps, hold
        self._plans = np.empty(0)
        self._at = np.empty(0, np.int64)

    def start(self, episodes: np.ndarray) -> None:
        """Draw every action of these episodes."""
        self._plans = np.stack([self._plan(self._seeds[int(i)]) for i in episodes])
        self._at = np.zeros(len(episodes), np.int64)

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """int32[B] or float32[B, A]."""
        actions = self._plans[ids, self._at[ids]]
        self._at[ids] += 1
        return actions

    def _plan(self, seed: int) -> np.ndarray:
        random = streams.generator(seed, "random policy")
        if self._kind == "brownian" and not isinstance(self._space, Discrete):
            return self._wander(random)
        draws = self._draw(random)
        if self._kind == "uniform":
            return draws
        changes = random.random(self._steps) < 1 / self._hold
        changes[0] = True
        return draws[np.maximum.accumulate(np.where(changes, np.arange(self._steps), 0))]

    def _draw(self, random: np.random.Generator) -> np.ndarray:
        if isinstance(self._space, Discrete):
            return random.integers(0, self._space.size, self._steps, dtype=np.int32)
        return random.uniform(self._space.low, self._space.high, (self._steps, self._space.size)).astype(np.float32)

    def _wander(self, random: np.random.Generator) -> np.ndarray:
        """Reflected Brownian motion that crosses its range in about 50 steps."""
        assert not isinstance(self._space, Discrete)
        low, high = np.asarray(self._space.low), np.asarray(self._space.high)
        place = random.uniform(0, 1, self._space.size)
        steps = random.normal(0, 1 / np.sqrt(50), (self._steps, self._space.size))
        folded = np.abs((place + np.cumsum(steps, 0) + 1) % 2 - 1)
        return (low + folded * (high - low)).astype(np.float32)


class AgentPolicy:
    """V + M + C on this process's device, or on its accelerators, for the slots of a pool.

    Args:
      params: the controller's are [P, n_params].
      candidates: int[N], which row of them plays each episode.
      seeds: of the episodes; what is drawn in play depends on them.
      slots: most episodes at once; the device holds a carry for each.
    """

    def __init__(self, agent: Agent, params: AgentParams, candidates: np.ndarray, seeds: Sequence[int], slots: int):
        self._devices = RowSharing.of_accelerators()
        self._agent, self._params, self._slots = agent, self._devices.whole(params), slots
        # On CPU, batches of different sizes may be summed in different orders (it depends on the processor), and the
        # bits of a row would depend on who answers together. So there all have one size.
        self._size = CPU_ROWS if jax.default_backend() == "cpu" else None
        self._episodes = np.stack([candidates, seeds]).astype(np.int32)
        self._playing = np.empty((2, 0), np.int32)
        self._carry: AgentCarry | None = None

    def start(self, episodes: np.ndarray) -> None:
        """Forget every memory; slot i is played by the candidate of `episodes[i]`."""
        self._carry = self._devices.whole(self._agent.init(self._slots))
        self._playing = self._episodes[:, episodes]

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """int32[B] or float32[B, A]. Batches are padded to one size, or a few, so that few programs are compiled."""
        most = self._size or self._slots
        pieces = [slice(start, start + most) for start in range(0, len(ids), most)]
        return np.concatenate([self._act(ids[piece], frames[piece]) for piece in pieces])

    def _act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        count = len(ids)
        size = self._size or _padded_size(count)
        rows = np.full(size, self._slots, np.int32)
        rows[:count] = ids
        shown = np.zeros((size, *frames.shape[1:]), np.uint8)
        shown[:count] = frames
        candidates, seeds = np.zeros((2, size), np.int32)
        candidates[:count], seeds[:count] = self._playing[:, ids]
        batch = self._devices.rows((rows, shown, seeds, candidates))
        carry, actions = self._agent.act_slots(self._params, self._carry, *batch)
        self._carry = self._devices.whole(carry)
        return np.asarray(actions)[:count]


def _padded_size(count: int) -> int:
    """The next of 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128 ..."""
    size = 1
    while size < count:
        size *= 2
    three_quarters = size * 3 // 4
    return three_quarters if size > 16 and count <= three_quarters else size
