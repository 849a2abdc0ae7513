"""Playing games on the device: environment, V, M and C are one program, and nothing crosses to the host but results.

A program plays a segment, some steps of all slots of a group; on a CPU there are several groups, at once. Between
segments the host looks at which episodes have ended, lets waiting ones begin in their slots, or, when none is waiting,
goes on with fewer slots.
"""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.distributed.mesh import RowSharing
from wm_jax.distributed.progress import Progress
from wm_jax.envs.device import episodes_of, start_all, step_all
from wm_jax.envs.types import DeviceGame
from wm_jax.models.agent import Agent, AgentCarry, AgentParams, Remembered
from wm_jax.rollout.types import EpisodeLimits, EpisodeStats
from wm_jax.run.interrupt import Stop
from wm_jax.utils.arrays import choose_rows
from wm_jax.utils.errors import UserError
from wm_jax.utils.process import cores
from wm_jax.utils.sizes import FRAME
from wm_jax.utils.threads import with_settings_of_this_thread

SEGMENT = 25
"""Steps between two looks of the host: short beside an episode, long beside the millisecond that a look costs."""
CPU_ROWS = 16
"""Rows that go through the network together on CPU: in bfloat16 a tenth faster than 8, and hardly slower than 32, of
which more is lost in a short batch."""
CPU_SLOTS = 64
"""Most slots of a group on CPU: enough to share the cost of a step's many small operations, few enough to stay in
cache."""
LEAST_SLOTS = 16
SHRINK = 4
"""Once so small a part of the slots is still playing, the others are given up. Each size is compiled for."""
FOREVER = 2**30


class Slots(NamedTuple):
    """S episodes under way.

    states: of the game.
    observations: what it shows (`models.agent.Observations`).
    carry: of the agent.
    seeds, candidates: int32[S], the episode's seed, and the candidate that plays it.
    is_first: bool[S], its first frame has not been acted on.
    running: bool[S], it has not ended.
    returns: float32[S]; lengths: int32[S]; rewarded: int32[S], the length at the last positive reward.
    """

    states: Any
    observations: Any
    carry: AgentCarry
    seeds: jax.Array
    candidates: jax.Array
    is_first: jax.Array
    running: jax.Array
    returns: jax.Array
    lengths: jax.Array
    rewarded: jax.Array


def play_on_device(
    game: DeviceGame,
    seeds: Sequence[int],
    agent: Agent,
    params: AgentParams,
    candidates: np.ndarray,
    rules: EpisodeLimits,
    *,
    slots: int,
    devices: RowSharing,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> EpisodeStats:
    """Play one episode per seed; returns are summed in float32.

    Args:
      params: the controller's are [P, n_params].
      candidates: int[N], which of them plays each episode.
      slots: episodes at once; as many are taken as the next power of two. On a CPU each core plays a group of them, of
        at most CPU_SLOTS, and a multiple of LEAST_SLOTS.
      devices: that share the slots.
      stop: is checked between segments.
      progress: is told of every episode that has ended.

    Raises:
      UserError: an action or a reward was not finite.
    """
    began = time.monotonic()
    if not seeds:
        return EpisodeStats(np.zeros(0), np.zeros(0, np.int64), 0.0)
    episodes = Episodes(game, seeds, candidates, devices)
    groups = [SlotScheduler(episodes, agent, size) for size in _group_sizes(min(slots, len(seeds)))]
    params = devices.replicate(params)
    limits = jnp.array([rules.steps or FOREVER, rules.patience or FOREVER], jnp.int32)

    def play_on(group: SlotScheduler) -> None:
        slots = _segment(game, agent, _rows_at_once(), episodes.params, params, limits, group.slots)
        group.slots = jax.block_until_ready(slots)

    # JAX runs programs side by side only if threads ask for them.
    in_thread = with_settings_of_this_thread(play_on)
    with ThreadPoolExecutor(len(groups)) as workers:
        while groups := [group for group in groups if group.playing]:
            if stop is not None:
                stop.check()
            if len(groups) == 1:
                play_on(groups[0])
            else:
                list(workers.map(in_thread, groups))
            ended = sum(group.enter() for group in groups)
            if progress is not None and ended:
                progress.advance(ended)
    return EpisodeStats(episodes.returns, episodes.lengths, time.monotonic() - began)


class Episodes:
    """What is to be played, and what came of it so far.

    Attributes:
      params: of the game, for the different seeds.
      starts: what is observed first, and the states, of each of these.
      places: of each episode's seed among them.
      waiting: episodes that no slot plays yet.
      returns, lengths: of those that have ended.
    """

    def __init__(self, game: DeviceGame, seeds: Sequence[int], candidates: np.ndarray, devices: RowSharing):
        self.name, self.devices = game.name, devices
        params, self.places = episodes_of(game, seeds)
        self.params = devices.replicate(params)
        self.seeds, self.candidates = np.asarray(seeds, np.int32), np.asarray(candidates, np.int32)
        self.returns, self.lengths = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64)
        self.waiting = deque(range(len(seeds)))
        # First pictures are costly (CarRacing's camera is far away): one for each seed.
        different = jnp.arange(int(self.places.max()) + 1, dtype=jnp.int32)
        self.starts = start_all(game, self.params, different)
        _require_observations(self.starts[0], game)


class SlotScheduler:
    """Which of a group of slots plays which episode."""

    def __init__(self, episodes: Episodes, agent: Agent, count: int):
        self._of, self._devices = episodes, episodes.devices
        self._episodes = np.full(count, -1)  # of each slot, -1 for none
        self.slots = self._devices.rows(_vacant(agent, episodes.starts, count))
        self._begin()

    @property
    def playing(self) -> int:
        """How many slots play."""
        return int((self._episodes >= 0).sum())

    def enter(self) -> int:
        """Record finished episodes, then start waiting ones or compact the slots; how many had ended."""
        self._refuse_returns()
        over = (self._episodes >= 0) & ~np.asarray(self.slots.running)
        done = self._episodes[over]
        self._of.returns[done] = np.asarray(self.slots.returns)[over]
        self._of.lengths[done] = np.asarray(self.slots.lengths)[over]
        self._episodes[over] = -1
        if len(done) and self._of.waiting:
            self._begin()
        elif len(done) and self.playing:
            self._close_up()
        return len(done)

    def _refuse_returns(self) -> None:
        """See that all returns are numbers. CarRacing ends an episode where an action is none."""
        returns = np.asarray(self.slots.returns)
        broken = np.flatnonzero((self._episodes >= 0) & ~np.isfinite(returns))
        if len(broken):
            slot = broken[0]
            seed, length = self._of.seeds[self._episodes[slot]], np.asarray(self.slots.lengths)[slot]
            raise UserError(
                f"{self._of.name}: the return of the episode of seed {seed} is {returns[slot]} by step {length}, for "
                "an action or a reward was not finite; the policy or the environment is broken"
            )

    def _begin(self) -> None:
        """Waiting episodes into free slots."""
        of = self._of
        free = np.flatnonzero(self._episodes < 0)[: len(of.waiting)]
        self._episodes[free] = [of.waiting.popleft() for _ in free]
        new = np.zeros(len(self._episodes), bool)
        new[free] = True
        here = np.maximum(self._episodes, 0)
        rows = [of.places[here], of.seeds[here], of.candidates[here], new]
        self.slots = _begin(of.starts, self.slots, *self._devices.rows(rows))

    def _close_up(self) -> None:
        """Those that play first, so that the network need not look at the others; and without these if few play."""
        size = len(self._episodes)
        while size // SHRINK >= max(LEAST_SLOTS, self.playing):
            size //= SHRINK
        order = np.argsort(self._episodes < 0, kind="stable")[:size]
        self._episodes = self._episodes[order]
        self.slots = self._devices.rows(_take(self.slots, jnp.asarray(order)))


def _require_observations(observations: Any, game: DeviceGame) -> None:
    """See that they are of a kind that an agent acts on."""
    if isinstance(observations, Remembered):
        return
    if observations.dtype == jnp.float32 and observations.ndim == 2:
        return
    if observations.dtype != jnp.uint8 or observations.shape[1:] != FRAME:
        raise UserError(
            f"{game.name} shows {observations.dtype} {list(observations.shape[1:])}, but agents act on frames uint8 "
            f"{list(FRAME)} or latents float32 [Z]; mend the game"
        )


def _group_sizes(episodes: int) -> list[int]:
    """Slots of each group for so many episodes at once. On a CPU each core has a group: but for V's convolutions, one
    program keeps one core busy.
    """
    if jax.default_backend() != "cpu":
        return [_slot_count(episodes)]
    groups = max(min(cores(), episodes // LEAST_SLOTS), 1)
    return [min(-(-episodes // (groups * LEAST_SLOTS)) * LEAST_SLOTS, CPU_SLOTS)] * groups


def _slot_count(episodes: int) -> int:
    """Slots for so many episodes: few different numbers, since each is compiled for."""
    count = LEAST_SLOTS
    while count < episodes:
        count *= 2
    return count


def _rows_at_once() -> int | None:
    return CPU_ROWS if jax.default_backend() == "cpu" else None


def _vacant(agent: Agent, starts: tuple[Any, Any], count: int) -> Slots:
    """So many slots in which nothing is played. Every field is an array of its own, so that it can be given up."""
    observations, states = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), starts)
    seeds, candidates, lengths, rewarded = (jnp.zeros(count, jnp.int32) for _ in range(4))
    is_first, running = (jnp.zeros(count, bool) for _ in range(2))
    returns = jnp.zeros(count, jnp.float32)
    return Slots(
        states, observations, agent.init(count), seeds, candidates, is_first, running, returns, lengths, rewarded
    )


@partial(jax.jit, donate_argnums=1)
def _begin(starts: tuple[Any, Any], slots: Slots, places: Any, seeds: Any, candidates: Any, new: Any) -> Slots:
    """The slots, with the beginnings of other episodes in the `new` ones. Their carries are reset by `is_first`."""
    observations, states = jax.tree.map(lambda leaf: leaf[places], starts)
    number, zero = jnp.zeros_like(slots.lengths), jnp.zeros_like(slots.returns)
    begun = Slots(states, observations, slots.carry, seeds, candidates, new, new, zero, number, number)
    return choose_rows(new, begun, slots)


@jax.jit
def _take(slots: Slots, order: jax.Array) -> Slots:
    """These slots, in this order."""
    return jax.tree.map(lambda leaf: leaf[order], slots)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=6)
def _segment(
    game: DeviceGame,
    agent: Agent,
    at_once: int | None,
    game_params: Any,
    params: AgentParams,
    limits: jax.Array,
    slots: Slots,
) -> Slots:
    """SEGMENT steps of all slots; the results of those that have ended stay what they are.

    Args:
      limits: int32[2], the most steps of an episode, and of its steps without a reward.
    """
    ids, space = jnp.arange(slots.running.shape[0], dtype=jnp.int32), agent.controller.actions

    def step(slots: Slots, _: Any) -> tuple[Slots, None]:
        acting = jnp.where(slots.running, ids, -1)
        rows = acting, slots.observations, slots.seeds, slots.candidates, slots.is_first
        carry, actions = agent.act(params, slots.carry, *rows, at_once=at_once)
        observations, states, rewards, terminated = step_all(
            game, game_params, slots.states, space.in_game(actions), at_once
        )
        lengths = slots.lengths + slots.running.astype(jnp.int32)
        rewarded = jnp.where(rewards > 0, lengths, slots.rewarded)
        ended = terminated | (lengths >= limits[0]) | (lengths - rewarded >= limits[1])
        return slots._replace(
            states=states,
            observations=observations,
            carry=carry,
            is_first=jnp.zeros_like(slots.is_first),
            running=slots.running & ~ended,
            returns=slots.returns + jnp.where(slots.running, rewards, 0.0),
            lengths=lengths,
            rewarded=rewarded,
        ), None

    return jax.lax.scan(step, slots, None, SEGMENT)[0]
