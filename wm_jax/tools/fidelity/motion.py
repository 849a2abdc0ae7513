"""How far our car is from Gymnasium's: after one step from its own states, and after hundreds without correction.

One step shows errors where they are made; driving on shows what becomes of them, and of the rewards. Both run all
episodes at once: they take seconds where Gymnasium's side takes minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from wm_jax.envs.car_racing import dynamics
from wm_jax.envs.car_racing.bodies import CENTRE
from wm_jax.envs.car_racing.state import CarState
from wm_jax.envs.car_racing.track import Tracks, bank
from wm_jax.tools.fidelity.reference import Recording, Snapshot, Style, record

CHECKPOINTS = (50, 100, 200, 400, 700)
"""Steps after which positions are compared."""
SAME_REWARD = 0.01
"""Rewards nearer than this are the same: the smallest prize of a tile is 2.5."""


@dataclass(frozen=True)
class Spread:
    """Of some errors: the median, that which one in a hundred exceeds, and the largest."""

    median: float
    p99: float
    largest: float

    @staticmethod
    def of(errors: NDArray) -> "Spread":
        """That of these errors."""
        return Spread(float(np.median(errors)), float(np.percentile(errors, 99)), float(errors.max()))


@dataclass(frozen=True)
class OneStep:
    """What one step of ours does differently, from each of Gymnasium's states.

    errors: of the components of the state, the largest of each step's: in u, rad, u/s, rad/s.
    contacts, visits, rewards, ends: shares of steps in which a wheel's contact, a visited tile, the reward differs, or
      which end the game on one side alone.
    """

    steps: int
    errors: dict[str, Spread]
    contacts: float
    visits: float
    rewards: float
    ends: float


@dataclass(frozen=True)
class Drift:
    """What becomes of whole episodes with the same actions.

    positions: steps -> median and largest error over the episodes, in u.
    touched, rewards: shares of all steps with the same number of visited tiles, the same reward.
    ends: share of the episodes that end in the same step, or go on.
    returns: the largest difference between the sums of rewards of an episode.
    """

    episodes: int
    positions: dict[int, tuple[float, float]]
    touched: float
    rewards: float
    ends: float
    returns: float


@dataclass(frozen=True)
class Fidelity:
    """Of one style of driving."""

    one_step: OneStep
    drift: Drift


class Batch(NamedTuple):
    """E recordings of T steps or less, filled up with copies of their last step.

    actions: float32[E, T, 3].
    states: Snapshot of [E, T + 1, ...].
    rewards: float64[E, T].
    lengths: int64[E].
    terminated: bool[E].
    """

    actions: NDArray
    states: Snapshot
    rewards: NDArray
    lengths: NDArray
    terminated: NDArray

    @property
    def played(self) -> NDArray[np.bool_]:
        """[E, T]: steps that are no copies."""
        return np.arange(self.rewards.shape[1])[None] < self.lengths[:, None]

    @property
    def ended(self) -> NDArray[np.bool_]:
        """[E, T]: steps that ended the game."""
        last = np.arange(self.rewards.shape[1])[None] == self.lengths[:, None] - 1
        return last & self.terminated[:, None]


def measure(style: Style, seeds: Sequence[int], steps: int = 700) -> Fidelity:
    """Drive the tracks of these seeds on both sides."""
    batch, tracks = gather([record(seed, style, steps) for seed in seeds], steps), bank(seeds)
    return Fidelity(one_step(tracks, batch), drift(tracks, batch))


def gather(recordings: Sequence[Recording], steps: int) -> Batch:
    """The recordings as one batch of T = `steps`."""
    lengths = np.array([len(each.rewards) for each in recordings])

    def stack(arrays: Sequence[NDArray], length: int) -> NDArray:
        return np.stack([np.pad(a, [(0, length - len(a))] + [(0, 0)] * (a.ndim - 1), mode="edge") for a in arrays])

    actions = stack([each.actions for each in recordings], steps)
    if actions.ndim == 2:
        actions = dynamics.DISCRETE[actions]
    states = [stack(field, steps + 1) for field in zip(*(each.states for each in recordings), strict=True)]
    rewards = stack([each.rewards for each in recordings], steps)
    return Batch(actions, Snapshot(*states), rewards, lengths, np.array([each.terminated for each in recordings]))


def one_step(tracks: Tracks, batch: Batch) -> OneStep:
    """Compare one step from every state that was recorded; recording i has been made on track i."""
    before = Snapshot(*(field[:, :-1] for field in batch.states))
    after = Snapshot(*(field[:, 1:] for field in batch.states))
    ours, rewards, ended = jax.tree.map(np.asarray, _single_steps(tracks, synchronised(before), batch.actions))
    played = batch.played
    errors = {name: Spread.of(each[played]) for name, each in _errors(ours, after).items()}
    wrong = {
        "contacts": (ours.on_road != after.on_road).any(-1),
        "visits": (ours.visited != after.visited).any(-1),
        "rewards": np.abs(rewards - batch.rewards) > SAME_REWARD,
        "ends": ended != batch.ended,
    }
    return OneStep(int(played.sum()), errors, **{name: float(each[played].mean()) for name, each in wrong.items()})


def drift(tracks: Tracks, batch: Batch) -> Drift:
    """Compare whole episodes with the same actions; recording i has been made on track i."""
    ours, rewards, terminated = jax.tree.map(np.asarray, _episodes(tracks, batch.actions))
    after = Snapshot(*(field[:, 1:] for field in batch.states))
    played = batch.played
    away = _errors(ours, after)["position"]
    positions = {}
    for steps in CHECKPOINTS:
        there = batch.lengths >= steps
        if there.any():
            errors = away[there, steps - 1]
            positions[steps] = (float(np.median(errors)), float(errors.max()))
    ends = ((terminated & played) == batch.ended).all(1)
    sums = [np.where(played, each, 0).sum(1) for each in (rewards, batch.rewards)]
    return Drift(
        episodes=len(batch.lengths),
        positions=positions,
        touched=float((ours.touched == after.touched)[played].mean()),
        rewards=float((np.abs(rewards - batch.rewards) <= SAME_REWARD)[played].mean()),
        ends=float(ends.mean()),
        returns=float(np.abs(sums[0] - sums[1]).max()),
    )


def synchronised(states: Snapshot) -> CarState:
    """Gymnasium's states [E, T, ...] as ours; those of recording i on track i, the first of each that of a start."""
    episodes, steps = states.angle.shape
    ahead = np.stack([-np.sin(states.angle), np.cos(states.angle)], -1)
    shape = (episodes, steps)
    return CarState(
        centre=_narrow(states.position + CENTRE * ahead),
        angle=_narrow(states.angle),
        velocity=_narrow(states.velocity),
        rate=_narrow(states.rate),
        wheel_velocities=_narrow(states.wheel_velocities),
        joint_angles=_narrow(states.joint_angles),
        joint_rates=_narrow(states.joint_rates),
        spins=_narrow(states.spins),
        phases=_narrow(states.phases),
        gas=_narrow(states.gas),
        stops=_narrow(states.stops),
        on_road=jnp.asarray(states.on_road),
        visited=jnp.asarray(states.visited),
        touched=jnp.asarray(states.touched, jnp.int32),
        paid=jnp.asarray(np.where(np.arange(steps)[None] == 0, 0, states.touched), jnp.int32),
        steps=jnp.broadcast_to(jnp.arange(1, steps + 1, dtype=jnp.int32)[None], shape),
        track=jnp.broadcast_to(jnp.arange(episodes, dtype=jnp.int32)[:, None], shape),
    )


def _errors(ours: CarState, theirs: Snapshot) -> dict[str, NDArray[np.float64]]:
    """The largest difference of each component of states [E, T]."""
    ahead = np.stack([-np.sin(ours.angle), np.cos(ours.angle)], -1)
    pairs = {
        "position": (ours.centre - CENTRE * ahead, theirs.position),
        "angle": (ours.angle, theirs.angle),
        "velocity": (ours.velocity, theirs.velocity),
        "rate": (ours.rate, theirs.rate),
        "wheel_velocities": (ours.wheel_velocities, theirs.wheel_velocities),
        "joint_angles": (ours.joint_angles, theirs.joint_angles),
        "spins": (ours.spins, theirs.spins),
        "gas": (ours.gas, theirs.gas),
    }
    episodes, steps = theirs.angle.shape
    return {
        name: np.abs(np.asarray(left, float) - right).reshape(episodes, steps, -1).max(-1)
        for name, (left, right) in pairs.items()
    }


@jax.jit
def _single_steps(tracks: Tracks, states: CarState, actions: Array) -> tuple[CarState, Array, Array]:
    """One step of each of [E, T] states."""
    return jax.vmap(jax.vmap(partial(dynamics.step, tracks)))(states, actions)


@jax.jit
def _episodes(tracks: Tracks, actions: Array) -> tuple[CarState, Array, Array]:
    """The states [E, T], rewards and ends after each of the actions [E, T, 3]."""

    def drive(track: Array, actions: Array) -> tuple[CarState, Array, Array]:
        def once(state: CarState, action: Array) -> tuple[CarState, tuple[CarState, Array, Array]]:
            state, reward, terminated = dynamics.step(tracks, state, action)
            return state, (state, reward, terminated)

        return jax.lax.scan(once, dynamics.start(tracks, track), actions)[1]

    return jax.vmap(drive)(jnp.arange(len(actions), dtype=jnp.int32), actions)


def _narrow(values: NDArray) -> Array:
    return jnp.asarray(values, jnp.float32)
