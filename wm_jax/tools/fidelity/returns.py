"""Whole episodes of the same policies on both sides: do they earn what they earn in Gymnasium?

Policies look at the state, not at frames, so that games are compared and nothing else. A policy is some numbers (`Aim`)
and a stream of noise; one function of JAX, `act`, turns these and what the policy sees into an action. Ours calls it
inside of its scan. Gymnasium's games are played side by side, and it is called once a step for all of them.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from wm_jax.envs.car_racing import dynamics
from wm_jax.envs.car_racing.bodies import origin
from wm_jax.envs.car_racing.track import Tracks, bank
from wm_jax.tools.fidelity.reference import UndrawnCarRacing

STEPS = 1000
"""Of the longest episode."""
NUDGE = 1e-6
"""Of the wheel, whose whole way is from -1 to 1."""


class Aim(NamedTuple):
    """What a policy tries: all numbers."""

    speed: float = 25.0
    """To be kept, in u/s."""
    gas: float = 0.3
    """Below that speed."""
    caution: float = 0.0
    """Share of the speed to go without for each radian off the direction; 15 u/s are always wanted."""
    gain: float = 2.0
    """Of the wheel, for each radian off the direction."""
    ahead: int = 6
    """Sections from the nearest to the one that it drives to."""
    beside: float = 0.0
    """How far to the right of the road's middle, in u."""
    outwards: float = 0.0
    """1: it drives to the right, out of the field, and doesn't look at the road."""
    sighted: float = 1.0
    """0: it plays its noise."""


class Sight(NamedTuple):
    """What policies see of N cars: position [N, 2] and velocity [N, 2], in u and u/s, and angle [N]; float32."""

    position: Any
    velocity: Any
    angle: Any


Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Makes a stream of T actions [T, 3], to be added to what the policy aims at."""


@dataclass(frozen=True)
class Policy:
    """One of those that are compared."""

    aim: Aim
    noise: Noise


@dataclass(frozen=True)
class Outcome:
    """Of E episodes: returns float64[E], lengths int64[E], and whether the game ended them, bool[E]."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """The outcomes of one policy on both sides, on the same tracks with the same noise.

    tile: float64[E], what a tile earns on each track.
    nudged: Gymnasium's once more, the wheel turned by NUDGE more in every step: what becomes of errors that are far
      smaller than ours. Only where the two sides differ.
    """

    ours: Outcome
    theirs: Outcome
    tile: NDArray[np.float64]
    nudged: Outcome | None = None

    @property
    def differs(self) -> bool:
        """By a tile or more in any return, or in any length."""
        away = np.abs(self.ours.returns - self.theirs.returns)
        return bool((away >= self.tile).any() or (self.ours.lengths != self.theirs.lengths).any())


@dataclass(frozen=True)
class Agreement:
    """Of some pairs of episodes.

    ours, theirs: mean returns.
    difference: mean absolute difference of the returns of a pair; span: largest less smallest return in Gymnasium.
    correlation: Pearson's, of the returns.
    within_tile: share of the pairs whose returns differ by less than one tile's reward.
    ended: share of them in which the game ended both episodes or neither; lengths: in the same step.
    """

    episodes: int
    ours: float
    theirs: float
    difference: float
    span: float
    correlation: float
    within_tile: float
    ended: float
    lengths: float

    @staticmethod
    def of(pairs: Sequence[Comparison]) -> "Agreement":
        """All of these pairs together."""
        ours, theirs = (np.concatenate([getattr(pair, side).returns for pair in pairs]) for side in ("ours", "theirs"))
        away, tile = np.abs(ours - theirs), np.concatenate([pair.tile for pair in pairs])
        same = {
            name: float(np.mean(np.concatenate([getattr(p.ours, name) == getattr(p.theirs, name) for p in pairs])))
            for name in ("terminated", "lengths")
        }
        varied = len(ours) > 1 and ours.std() > 0 and theirs.std() > 0
        return Agreement(
            episodes=len(ours),
            ours=float(ours.mean()),
            theirs=float(theirs.mean()),
            difference=float(away.mean()),
            span=float(np.ptp(theirs)),
            correlation=float(np.corrcoef(ours, theirs)[0, 1]) if varied else float("nan"),
            within_tile=float((away < tile).mean()),
            ended=same["terminated"],
            lengths=same["lengths"],
        )


def trembling(strength: float) -> Noise:
    """On the wheel, slowly changing."""

    def make(random: np.random.Generator, steps: int) -> NDArray[np.float64]:
        stream, now = np.zeros((steps, 3)), 0.0
        for t, push in enumerate(strength * random.normal(size=steps)):
            stream[t, 0] = now = 0.9 * now + push
        return stream

    return make


def held(frames: int) -> Noise:
    """Actions drawn anew after so many frames, seldom with brakes if they are more than one."""

    def make(random: np.random.Generator, steps: int) -> NDArray[np.float64]:
        low = (-1, 0, 0) if frames == 1 else (-1, 0, -2)
        drawn = random.uniform(low, (1, 1, 1 if frames == 1 else 0.5), size=(-(-steps // frames), 3))
        return np.maximum(drawn, (-1, 0, 0)).repeat(frames, 0)[:steps]

    return make


_STEADY, _BLIND = trembling(0.0), Aim(sighted=0.0)
POLICIES: Mapping[str, Policy] = {
    "slow": Policy(Aim(speed=15.0, gas=0.2), _STEADY),
    "following": Policy(Aim(), _STEADY),
    "on the curb": Policy(Aim(beside=6.0), _STEADY),
    "on the grass": Policy(Aim(beside=10.0), _STEADY),
    "shortsighted": Policy(Aim(speed=30.0, ahead=2), _STEADY),
    "farsighted": Policy(Aim(speed=35.0, gas=0.5, ahead=12), _STEADY),
    "nervous": Policy(Aim(speed=30.0, gain=6.0), trembling(0.05)),
    "drunk": Policy(Aim(speed=30.0, gas=0.4), trembling(0.3)),
    "quick": Policy(Aim(speed=45.0, gas=0.6, caution=1.0), trembling(0.05)),
    "racing": Policy(Aim(speed=55.0, gas=0.8, caution=1.0), trembling(0.1)),
    "fast": Policy(Aim(speed=55.0, gas=0.8), trembling(0.1)),
    "reckless": Policy(Aim(speed=80.0, gas=1.0, caution=0.3), trembling(0.05)),
    "leaving": Policy(Aim(speed=70.0, outwards=1.0), trembling(0.05)),
    "blind, random": Policy(_BLIND, held(1)),
    "blind, held": Policy(_BLIND, held(10)),
}


def act(aim: Aim, points: Array, count: Array, look: Sight, noise: Array) -> Array:
    """The action [3] of one policy in one car.

    Args:
      points: of the track's sections [400, 2]; count: how many there are.
      look: what it sees: of one car, without N.
      noise: [3] of this step.
    """
    way = points - look.position[None]
    nearest = jnp.argmin(jnp.sum(way * way, -1)).astype(jnp.int32)
    target = (nearest + aim.ahead) % count
    along = points[target] - points[(target - 1) % count]
    right = jnp.stack([along[1], -along[0]]) / jnp.sqrt(jnp.sum(along * along))
    way = jnp.where(aim.outwards > 0, jnp.array([1.0, 0.0]), way[target] + aim.beside * right)
    forward = jnp.stack([-jnp.sin(look.angle), jnp.cos(look.angle)])
    left = jnp.arctan2(forward[0] * way[1] - forward[1] * way[0], jnp.sum(forward * way))
    speed = jnp.sqrt(jnp.sum(look.velocity * look.velocity))
    wanted = jnp.maximum(15.0, aim.speed * (1.0 - aim.caution * jnp.abs(left)))
    gas, brake = jnp.where(speed < wanted, aim.gas, 0.0), jnp.where(speed > wanted + 10.0, 0.2, 0.0)
    action = aim.sighted * jnp.stack([-aim.gain * left, gas, brake]) + noise
    return jnp.clip(action, jnp.array([-1.0, 0.0, 0.0]), 1.0)


def compare(
    policies: Mapping[str, Policy],
    seeds: Sequence[int],
    steps: int = STEPS,
    on_episodes: Callable[[int], None] = lambda count: None,
) -> dict[str, Comparison]:
    """Both sides' outcomes of each policy on the tracks of these seeds.

    Args:
      on_episodes: is told of episodes that both sides have played.
    """
    tracks = bank(seeds)
    tile = 1000.0 / np.asarray(tracks.count)
    found = {}
    with contextlib.ExitStack() as ends:
        games = [ends.enter_context(contextlib.closing(UndrawnCarRacing())) for _ in seeds]
        for number, (name, policy) in enumerate(policies.items()):
            streams = [policy.noise(np.random.default_rng([seed, number]), steps) for seed in seeds]
            noise = np.stack(streams).astype(np.float32)
            theirs = play_gymnasium(games, tracks, policy.aim, seeds, noise)
            found[name] = Comparison(play(tracks, policy.aim, noise), theirs, tile)
            if found[name].differs:
                noise[..., 0] += NUDGE
                nudged = play_gymnasium(games, tracks, policy.aim, seeds, noise)
                found[name] = replace(found[name], nudged=nudged)
            on_episodes(len(seeds))
    return found


def play(tracks: Tracks, aim: Aim, noise: NDArray[np.float32]) -> Outcome:
    """Ours: one episode on each track of the bank. noise: [E, T, 3]."""
    returns, lengths, terminated = jax.tree.map(np.asarray, _episodes(tracks, _numbers(aim), noise))
    return Outcome(returns.astype(float), lengths.astype(np.int64), terminated)


def play_gymnasium(
    games: Sequence[UndrawnCarRacing], tracks: Tracks, aim: Aim, seeds: Sequence[int], noise: NDArray[np.float32]
) -> Outcome:
    """Gymnasium's: the same episodes in these games. tracks: where the policy reads the road; noise: [E, T, 3]."""
    for game, seed in zip(games, seeds, strict=True):
        game.reset(seed=seed)
    count, aim = len(games), _numbers(aim)
    returns, lengths, terminated = np.zeros(count), np.zeros(count, np.int64), np.zeros(count, bool)
    for t in range(noise.shape[1]):
        actions = np.asarray(_act(aim, tracks.points, tracks.count, _look(games), noise[:, t]))
        for i in np.flatnonzero(~terminated).tolist():
            _, reward, terminated[i], _, _ = games[i].step(actions[i])
            returns[i] += reward
            lengths[i] += 1
        if terminated.all():
            break
    return Outcome(returns, lengths, terminated)


def _look(games: Sequence[UndrawnCarRacing]) -> Sight:
    hulls = [game.car.hull for game in games if game.car is not None]
    rows = np.array([(*hull.position, *hull.linearVelocity, hull.angle) for hull in hulls], np.float32)
    return Sight(rows[:, :2], rows[:, 2:4], rows[:, 4])


def _numbers(aim: Aim) -> Aim:
    """As arrays: no policy is compiled anew."""
    return jax.tree.map(lambda each: jnp.asarray(each, jnp.int32 if isinstance(each, int) else jnp.float32), aim)


_act = jax.jit(jax.vmap(act, in_axes=(None, 0, 0, 0, 0)))


@jax.jit
def _episodes(tracks: Tracks, aim: Aim, noise: Array) -> tuple[Array, Array, Array]:
    """Returns [E], lengths [E], and whether the game ended them [E], of an episode on each track."""

    def drive(track: Array, noise: Array) -> tuple[Array, Array, Array]:
        def once(carry: tuple, noise: Array) -> tuple[tuple, None]:
            state, total, length, ended = carry
            look = Sight(origin(state), state.velocity, state.angle)
            action = act(aim, tracks.points[track], tracks.count[track], look, noise)
            state, reward, terminated = dynamics.step(tracks, state, action)
            total = total + jnp.where(ended, 0.0, reward)
            return (state, total, length + (~ended).astype(jnp.int32), ended | terminated), None

        begun = dynamics.start(tracks, track), jnp.float32(0), jnp.int32(0), jnp.bool_(False)
        return jax.lax.scan(once, begun, noise)[0][1:]

    return jax.vmap(drive)(jnp.arange(len(noise), dtype=jnp.int32), noise)
