"""Playing games on the device: environment, V, M and C are one program, and nothing crosses to the host but results.

A program plays a segment, some steps of all slots. Between segments the host looks at which episodes have ended, lets
waiting ones begin in their slots, or, when none is waiting, goes on with fewer slots.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.devices import RowSharing
from wm_jax.envs.car_racing import CarRacing
from wm_jax.envs.device import NO_KEY, episodes
from wm_jax.interrupt import Stop
from wm_jax.metrics import Progress
from wm_jax.models.agent import Agent, AgentCarry, AgentParams

SEGMENT = 25
"""Steps between two looks of the host: short beside an episode, long beside the millisecond that a look costs."""
CPU_ROWS = 8
"""Rows that go through the network together on CPU: as fast as more of them, and less is lost in a short batch."""
CPU_SLOTS = 64
"""Slots on CPU: enough to share the cost of a step's many small operations, few enough to stay in cache."""
LEAST_SLOTS = 16


@dataclass(frozen=True)
class Rules:
    """How long episodes last: at most `steps`, and at most `patience` steps without a positive reward (0: any)."""

    steps: int
    patience: int


class Slots(NamedTuple):
    """S episodes under way.

    states: of the environment.
    frames: uint8[S, 64, 64, 3], what it shows.
    carry: of the agent.
    places, seeds, candidates: int32[S], each episode's track, its seed, and the candidate that plays it.
    fresh: bool[S], its first frame has not been acted on.
    running: bool[S], it has not ended.
    returns: float32[S]; lengths: int32[S]; rewarded: int32[S], the length at the last positive reward.
    """

    states: Any
    frames: jax.Array
    carry: AgentCarry
    places: jax.Array
    seeds: jax.Array
    candidates: jax.Array
    fresh: jax.Array
    running: jax.Array
    returns: jax.Array
    lengths: jax.Array
    rewarded: jax.Array


@dataclass(frozen=True)
class Result:
    """What came of N episodes: returns float64[N], lengths int64[N], and the seconds that they took."""

    returns: np.ndarray
    lengths: np.ndarray
    seconds: float


def play_on_device(
    env: CarRacing,
    seeds: Sequence[int],
    agent: Agent,
    params: AgentParams,
    candidates: np.ndarray,
    rules: Rules,
    *,
    slots: int,
    devices: RowSharing,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Result:
    """Play one episode per seed.

    Args:
      params: the controller's are [P, n_params].
      candidates: int[N], which of them plays each episode.
      slots: most episodes at once.
      devices: that share the slots.
      stop: is checked between segments.
      progress: is told of every episode that has ended.
    """
    began = time.monotonic()
    world, places = episodes(env, seeds)
    world, params = devices.whole((world, params))
    table = places, np.asarray(seeds, np.int32), np.asarray(candidates, np.int32)
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64)
    on_cpu = jax.default_backend() == "cpu"
    count = _slot_count(min(slots, len(seeds), CPU_SLOTS if on_cpu else slots))
    waiting = deque(range(len(seeds)))
    playing = np.full(count, -1)  # the episode of each slot, -1 for none

    def begin(slots: Slots | None) -> Slots:
        """Waiting episodes into free slots."""
        free = np.flatnonzero(playing < 0)[: len(waiting)]
        playing[free] = [waiting.popleft() for _ in free]
        new = np.zeros(len(playing), bool)
        new[free] = True
        rows = devices.rows([column[np.maximum(playing, 0)] for column in table] + [new])
        return _begin(env, agent, world, *rows) if slots is None else _replace(env, agent, world, slots, *rows)

    at_once = CPU_ROWS if on_cpu else None
    now = begin(None)
    while (playing >= 0).any():
        if stop is not None:
            stop.check()
        now = _segment(env, agent, rules, at_once, world, params, now)
        ended = (playing >= 0) & ~np.asarray(now.running)
        done = playing[ended]
        returns[done], lengths[done] = np.asarray(now.returns)[ended], np.asarray(now.lengths)[ended]
        playing[ended] = -1
        if progress is not None and len(done):
            progress.advance(len(done))
        if len(done) and waiting:
            now = begin(now)
        elif (playing >= 0).any() and (size := _slot_count(int((playing >= 0).sum()))) <= len(playing) // 2:
            order = np.argsort(playing < 0, kind="stable")[:size]
            playing = playing[order]
            now = devices.rows(jax.tree.map(lambda leaf, order=order: leaf[order], now))
    return Result(returns, lengths, time.monotonic() - began)


def _slot_count(episodes: int) -> int:
    """Slots for so many episodes: few different numbers, since each is compiled for."""
    count = LEAST_SLOTS
    while count < episodes:
        count *= 2
    return count


@partial(jax.jit, static_argnums=(0, 1))
def _begin(env: CarRacing, agent: Agent, world: Any, places: Any, seeds: Any, candidates: Any, new: Any) -> Slots:
    """Slots in which the `new` ones begin and the others have ended."""
    frames, states = jax.vmap(env.start, in_axes=(None, 0))(world, places)
    number, zero = jnp.zeros(places.shape, jnp.int32), jnp.zeros(places.shape)
    carry = agent.init(places.shape[0])
    return Slots(states, frames, carry, places, seeds, candidates, new, new, zero, number, number)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _replace(
    env: CarRacing, agent: Agent, world: Any, slots: Slots, places: Any, seeds: Any, candidates: Any, new: Any
) -> Slots:
    """The slots, with other episodes in the `new` ones."""
    begun = _begin(env, agent, world, places, seeds, candidates, new)

    def choose(fresh: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(new.reshape(-1, *[1] * (fresh.ndim - 1)), fresh, old)

    return jax.tree.map(choose, begun, slots)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=6)
def _segment(
    env: CarRacing, agent: Agent, rules: Rules, at_once: int | None, world: Any, params: AgentParams, slots: Slots
) -> Slots:
    """SEGMENT steps of all slots, of which those that have ended change nothing any more."""
    ids = jnp.arange(slots.running.shape[0], dtype=jnp.int32)

    def step(slots: Slots, _: Any) -> tuple[Slots, None]:
        acting = jnp.where(slots.running, ids, -1)
        rows = acting, slots.frames, slots.seeds, slots.candidates, slots.fresh
        carry, actions = agent.act(params, slots.carry, *rows, at_once=at_once)
        advance = jax.vmap(env.step_env, in_axes=(None, 0, 0, None))
        frames, states, rewards, terminated, _info = advance(NO_KEY, slots.states, actions, world)
        lengths = slots.lengths + slots.running.astype(jnp.int32)
        rewarded = jnp.where(rewards > 0, lengths, slots.rewarded)
        ended = terminated | (lengths >= rules.steps)
        if rules.patience:
            ended |= lengths - rewarded >= rules.patience
        return slots._replace(
            states=states,
            frames=frames,
            carry=carry,
            fresh=jnp.zeros_like(slots.fresh),
            running=slots.running & ~ended,
            returns=slots.returns + jnp.where(slots.running, rewards, 0.0),
            lengths=lengths,
            rewarded=rewarded,
        ), None

    return jax.lax.scan(step, slots, None, SEGMENT)[0]
