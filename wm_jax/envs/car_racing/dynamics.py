"""CarRacing-v3 on the device, without its pictures: the car, the tiles that it touches, and what that earns.

The same game as Gymnasium's (1.3; `car_racing.CarRacing`, `car_dynamics.Car`) up to rounding, as pure functions of one
car in float32; `wm_jax.tools.fidelity.motion` measures how far the two are apart. Play many cars with `jax.vmap(step,
in_axes=(None, 0, 0))`: each reads its own track out of the common bank.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32

from wm_jax.envs.car_racing.bodies import ANCHORS, CENTRE, DT, advance, origin, settle, wheel_places
from wm_jax.envs.car_racing.contacts import RADIUS, touch
from wm_jax.envs.car_racing.plane import ahead, dot, right
from wm_jax.envs.car_racing.road import FIELD, SECTIONS
from wm_jax.envs.car_racing.state import CarState
from wm_jax.envs.car_racing.track import Tracks

# Numbers of `Car.step`, in u, s, rad and kg.
GAS_RISE = 0.1
"""The gas rises by this at most in a step; it falls at once."""
STEER_GAIN, STEER_RATE = 50.0, 3.0
"""Wheels turn towards their target at 50/s times what is left, at most at 3 rad/s."""
ENGINE = 40000.0
"""Power at full gas, in kg u²/s³, for each of the rear wheels."""
IDLE = 5.0
"""The engine's torque is its power by the spin, plus this, in rad/s."""
ROLLING_INERTIA = 1.6
"""Of a wheel about its axle, in kg u²; Box2D knows nothing of it."""
BRAKE, BLOCKED = 15.0, 0.9
"""Spin that a full brake takes in a step, in rad/s; brakes from BLOCKED on stop the wheels."""
STIFFNESS = 82.0
"""Force for each u/s by which a tyre slips, in kg/s."""
ROAD_GRIP, GRASS_GRIP = 400.0, 240.0
"""Largest force between a wheel and the ground, in kg u/s²."""

DISCRETE = np.array([(0, 0, 0), (0.6, 0, 0), (-0.6, 0, 0), (0, 0.2, 0), (0, 0, 0.8)], np.float32)
"""Gymnasium's five actions: nothing, right, left, gas, brake."""
_LOWEST, _HIGHEST = np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)
_FRONT, _REAR = np.array([1, 1, 0, 0], np.float32), np.array([0, 0, 1, 1], np.float32)


def start(tracks: Tracks, track: Int32[Array, ""], section: Int[Array, ""] | int = 0) -> CarState:
    """The car as Gymnasium's `reset` leaves it: at rest on the first section, after a step without an action.

    Args:
      section: begin on another one instead.
    """
    place, heading = tracks.points[track, section], tracks.angles[track, section]
    # Gymnasium puts the wheels where they would be on a car of angle 0. In the hidden step the joints correct that,
    # but the tiles have already been touched.
    wheels = place[None] + jnp.asarray(ANCHORS)
    tiles, touching = touch(tracks, track, wheels, jnp.broadcast_to(heading, (4,)))
    centre, angle = settle(place + CENTRE * ahead(heading), heading, wheels)
    zero, four = jnp.float32(0), jnp.zeros(4, jnp.float32)
    state = CarState(
        centre=centre,
        angle=angle,
        velocity=jnp.zeros(2, jnp.float32),
        rate=zero,
        wheel_velocities=jnp.zeros((4, 2), jnp.float32),
        joint_angles=jnp.broadcast_to(heading - angle, (4,)),
        joint_rates=four,
        stops=four,
        spins=four,
        phases=four,
        gas=zero,
        on_road=jnp.zeros(4, bool),
        visited=jnp.zeros(SECTIONS, bool),
        touched=jnp.int32(0),
        paid=jnp.int32(0),
        steps=jnp.int32(1),
        track=track,
    )
    return _visit(state, tiles, touching)


def step(
    tracks: Tracks, state: CarState, action: Float32[Array, "3"]
) -> tuple[CarState, Float32[Array, ""], Bool[Array, ""]]:
    """One fiftieth of a second.

    Args:
      action: steering (-1 left, 1 right), gas and brake (0..1), clipped to these bounds. One that is not finite is
        played as no action, earns NaN and ends the episode: whatever sums the rewards learns that a policy is broken.

    Returns:
      the new state, the reward, and whether the game is over: off the field (reward -100), or every tile was visited.
      The limit of 1,000 steps is not the game's.
    """
    sound = jnp.all(jnp.isfinite(action))
    steer, pedal, brake = jnp.clip(jnp.where(sound, action, 0.0), jnp.asarray(_LOWEST), jnp.asarray(_HIGHEST))
    motors = _steer(state.joint_angles, steer)
    gas = state.gas + jnp.minimum(pedal - state.gas, GAS_RISE)
    spins, phases, forces = _roll(state, gas, brake)
    # Wheels have asked what they stand on before Box2D looks for contacts, and it does so before it moves anything.
    tiles, touching = touch(tracks, state.track, wheel_places(state), state.angle + state.joint_angles)
    state = advance(state, motors, forces)._replace(spins=spins, phases=phases, gas=gas, steps=state.steps + 1)
    state = _visit(state, tiles, touching)
    reward, terminated = _judge(state, tracks.count[state.track])
    return state._replace(paid=state.touched), jnp.where(sound, reward, jnp.nan), terminated | ~sound


def discrete_action(choice: Int[Array, ""]) -> Float32[Array, "3"]:
    """What Gymnasium's `continuous=False` does for 0..4: nothing, right, left, gas, brake."""
    return jnp.asarray(DISCRETE)[choice]


def _steer(joint_angles: Array, steer: Array) -> Array:
    """Rates at which the joints' motors shall turn [4]: the front wheels' to where the driver steers."""
    left = -steer * jnp.asarray(_FRONT) - joint_angles
    return jnp.clip(STEER_GAIN * left, -STEER_RATE, STEER_RATE)


def _roll(state: CarState, gas: Array, brake: Array) -> tuple[Array, Array, Array]:
    """Spins [4] and phases [4] of the wheels after the step, and the forces [4, 2] of the ground on them."""
    headings = state.angle + state.joint_angles
    forward, sideward = ahead(headings), right(headings)
    torque = ENGINE * gas * jnp.asarray(_REAR) / (jnp.abs(state.spins) + IDLE)
    spins = state.spins + DT / ROLLING_INERTIA * torque
    braked = jnp.sign(spins) * jnp.maximum(jnp.abs(spins) - BRAKE * brake, 0.0)
    spins = jnp.where(brake >= BLOCKED, 0.0, braked)
    phases = state.phases + DT * spins
    push = STIFFNESS * (RADIUS * spins - dot(forward, state.wheel_velocities))
    drag = -STIFFNESS * dot(sideward, state.wheel_velocities)
    grip = jnp.where(state.on_road, ROAD_GRIP, GRASS_GRIP)
    share = grip / jnp.maximum(jnp.sqrt(push * push + drag * drag), grip)
    push, drag = share * push, share * drag
    spins = spins - DT * RADIUS / ROLLING_INERTIA * push
    return spins, phases, push[:, None] * forward + drag[:, None] * sideward


def _visit(state: CarState, tiles: Array, touching: Array) -> CarState:
    """The state with these contacts in its books: tiles [K], and which wheels touch them [4, K]."""
    met = jnp.any(touching, 0)
    new = met & ~state.visited[tiles]
    return state._replace(
        on_road=jnp.any(touching, 1),
        visited=state.visited.at[tiles].max(met),
        touched=state.touched + jnp.sum(new, dtype=jnp.int32),
    )


def _judge(state: CarState, count: Array) -> tuple[Array, Array]:
    """Reward and end of the step that led to this state, on a track of so many tiles."""
    new = (state.touched - state.paid).astype(jnp.float32)
    earned = 1000.0 / count.astype(jnp.float32) * new - 0.1
    outside = jnp.any(jnp.abs(origin(state)) > FIELD)
    # Gymnasium's rule of 95 % of a lap never applies: tile 0, which it waits for, is visited at the start.
    return jnp.where(outside, -100.0, earned), outside | (state.touched == count)
