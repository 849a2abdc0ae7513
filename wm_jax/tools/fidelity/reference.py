"""Gymnasium's CarRacing-v3, played by drivers who differ in what they try the car with, and recorded state by state."""

import contextlib
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
from gymnasium.envs.box2d.car_racing import FPS, CarRacing
from numpy.typing import NDArray

from wm_jax.envs.car_racing.bodies import WHEEL_INERTIA
from wm_jax.envs.car_racing.road import SECTIONS

Style = Literal["random", "held", "following", "racing", "fast", "spin", "stopping", "flat_out", "leaving", "choices"]
"""How a driver drives:

random: a new action in every frame. The car hardly moves.
held: an action for 10 frames, seldom with brakes: all over the grass.
following: along the road at 25 u/s, without a mistake: one lap in some 2,000 steps.
racing: at 55 u/s with noise on the wheel, slower where the road turns: slides, but stays on it.
fast: at 55 u/s with noise everywhere: leaves the road in the first bend and skids over the grass.
spin: full lock and full gas.
stopping: a push, a brake, and nothing until the car stands; again and again.
flat_out: straight through the field, up to the 100 u/s that Box2D allows.
leaving: out of the field by the shortest way.
choices: Gymnasium's five discrete actions, for 6 frames each, mostly gas.
"""
STYLES: tuple[Style, ...] = get_args(Style)


class _Sight(NamedTuple):
    """What a driver does who looks where to go."""

    speed: float
    """To be kept, in u/s."""
    gas: float
    noise: float = 0.0
    """On the wheel."""
    caution: float = 0.0
    """Share of the speed to go without for each radian off the direction."""
    goal: tuple[float, float] | None = None
    """None: the road, 6 sections ahead."""


_SIGHTED: dict[Style, _Sight] = {
    "following": _Sight(25.0, 0.3),
    "racing": _Sight(55.0, 0.8, noise=0.1, caution=1.0),
    "fast": _Sight(55.0, 0.8, noise=0.1),
    "flat_out": _Sight(1e3, 0.3, goal=(-330.0, 330.0)),
    "leaving": _Sight(1e3, 0.3, goal=(1e3, 0.0)),
}

Driver = Callable[[], NDArray]
"""Says what to do next: float32[3], or int64[] of discrete actions."""


class Snapshot(NamedTuple):
    """All that Gymnasium knows of a car, or of T of them: then every field has T in front.

    position: float64[2] of the hull's origin; angle: float64[].
    velocity: float64[2] of the hull's centre of mass; rate: float64[].
    wheel_velocities: float64[4, 2]; joint_angles, joint_rates, spins, phases: float64[4].
    gas: float64[] of the rear wheels.
    stops: float64[4], see `CarState`.
    on_road: bool[4].
    visited: bool[400]; touched: int64[], how many these are.
    """

    position: NDArray
    angle: NDArray
    velocity: NDArray
    rate: NDArray
    wheel_velocities: NDArray
    joint_angles: NDArray
    joint_rates: NDArray
    spins: NDArray
    phases: NDArray
    gas: NDArray
    stops: NDArray
    on_road: NDArray
    visited: NDArray
    touched: NDArray


class Recording(NamedTuple):
    """T steps of one episode, or less: up to its end.

    seed: of the track.
    actions: float32[T, 3], or int64[T] for discrete ones.
    states: Snapshot of T + 1.
    rewards: float64[T].
    terminated: bool, in the last step.
    """

    seed: int
    actions: NDArray
    states: Snapshot
    rewards: NDArray
    terminated: bool


class UndrawnCarRacing(CarRacing):
    """CarRacing-v3 that draws nothing, 30 times as fast."""

    def _render(self, mode: str) -> None:
        return None


def record(seed: int, style: Style, steps: int) -> Recording:
    """Let a driver of this style play the track of a seed; the same seed is the driver's own."""
    with contextlib.closing(UndrawnCarRacing(continuous=style != "choices")) as game:
        game.reset(seed=seed)
        driver = take_seat(game, style, seed)
        actions, states, rewards, terminated = [], [snapshot(game)], [], False
        while len(actions) < steps and not terminated:
            actions.append(driver())
            _, reward, terminated, _, _ = game.step(actions[-1])
            rewards.append(reward)
            states.append(snapshot(game, states[-1]))
    stacked = Snapshot(*(np.stack(field) for field in zip(*states, strict=True)))
    return Recording(seed, np.stack(actions), stacked, np.array(rewards, float), terminated)


def snapshot(game: CarRacing, before: Snapshot | None = None) -> Snapshot:
    """The state of a game.

    Args:
      before: the one of the step before; None at the start.
    """
    assert game.car is not None and game.road is not None
    hull, wheels = game.car.hull, game.car.wheels
    if before is not None and before.touched == game.tile_visited_count:
        visited = before.visited
    else:
        visited = np.zeros(SECTIONS, bool)
        visited[: len(game.road)] = [tile.road_visited for tile in game.road]
    angles = np.array([wheel.joint.angle for wheel in wheels])
    return Snapshot(
        position=np.array(hull.position, float),
        angle=np.array(hull.angle),
        velocity=np.array(hull.linearVelocity, float),
        rate=np.array(hull.angularVelocity),
        wheel_velocities=np.array([wheel.linearVelocity for wheel in wheels], float),
        joint_angles=angles,
        joint_rates=np.array([wheel.joint.speed for wheel in wheels]),
        spins=np.array([wheel.omega for wheel in wheels], float),
        phases=np.array([wheel.phase for wheel in wheels], float),
        gas=np.array(wheels[2].gas, float),
        stops=_stops(wheels, angles, before),
        on_road=np.array([len(wheel.tiles) > 0 for wheel in wheels]),
        visited=visited,
        touched=np.array(game.tile_visited_count),
    )


def _stops(wheels: list, angles: NDArray, before: Snapshot | None) -> NDArray:
    """`CarState.stops`: what motors have pushed against their stops, and what it took to stop the joints."""
    side = np.sign(angles)
    met = np.abs([wheel.joint.GetReactionTorque(FPS) / FPS for wheel in wheels]) > 1e-3
    pushed = side * np.array([wheel.joint.GetMotorTorque(FPS) for wheel in wheels]) / FPS
    moving = 0.0 if before is None else side * before.joint_rates
    return np.where(met, np.maximum(pushed, 0) + WHEEL_INERTIA * np.maximum(moving, 0), 0)


def take_seat(game: CarRacing, style: Style, seed: int) -> Driver:
    """A driver of this style in a game that has just been reset."""
    random = np.random.default_rng(seed)
    if style in _SIGHTED:
        return _steering(game, _SIGHTED[style], random)
    return _blind(style, random)


def _blind(style: Style, random: np.random.Generator) -> Driver:
    """A driver who doesn't look."""
    frame, action = -1, np.zeros(3, np.float32)

    def drive() -> NDArray:
        nonlocal frame, action
        frame += 1
        if style == "choices" and frame % 6 == 0:
            action = np.array(random.choice(5, p=[0.1, 0.2, 0.2, 0.4, 0.1]))
        elif style == "random":
            action = random.uniform((-1, 0, 0), (1, 1, 1)).astype(np.float32)
        elif style == "held" and frame % 10 == 0:
            action = np.maximum(random.uniform((-1, 0, -2), (1, 1, 0.5)), (-1, 0, 0)).astype(np.float32)
        elif style == "spin":
            action = np.array([1, 1, 0], np.float32)
        elif style == "stopping":
            turn = frame % 200
            steer = action[0] if turn else random.uniform(-0.3, 0.3)
            action = np.array([steer, 0.3 * (turn < 30), 0.3 * (30 <= turn < 60)], np.float32)
        return action

    return drive


def _steering(game: CarRacing, sight: _Sight, random: np.random.Generator) -> Driver:
    """A driver who looks where to go."""
    assert game.car is not None
    hull = game.car.hull
    points = np.array([section[2:4] for section in game.track])
    trembling = 0.0

    def drive() -> NDArray:
        nonlocal trembling
        position = np.array(hull.position)
        nearest = int(np.argmin(np.square(points - position).sum(1)))
        goal = points[(nearest + 6) % len(points)] if sight.goal is None else np.array(sight.goal)
        ahead, way = np.array([-np.sin(hull.angle), np.cos(hull.angle)]), goal - position
        left = np.arctan2(ahead[0] * way[1] - ahead[1] * way[0], ahead @ way)
        trembling = 0.9 * trembling + sight.noise * random.normal()
        speed = float(np.linalg.norm(hull.linearVelocity))
        wanted = max(25.0, sight.speed * (1 - sight.caution * abs(left)))
        pedals = (sight.gas if speed < wanted else 0.0, 0.2 if speed > wanted + 10 else 0.0)
        return np.array([np.clip(-2 * left + trembling, -1, 1), *pedals], np.float32)

    return drive
