"""The five bodies of CarRacing-v3's car: a hull and four wheels on joints that turn. This is Box2D's part of the game.

Box2D (2.3.10; `b2Island`, `b2RevoluteJoint`) goes 180 times over the joints to find the velocities that they allow,
moves the bodies, and goes over the joints again to pull together what has come apart. Here is what these rounds tend
to, as formulas: with wheels that stay at their places the hull is one rigid body, whose momenta are known. Box2D comes
so near to it that float32 hardly knows the difference.

Units: u (of length), s, rad, and Box2D's kg. Wheels are front left, front right, rear left, rear right. A joint's angle
and rate are those of its wheel against the hull.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from wm_jax.envs.car_racing.plane import ahead, cross, dot, left_of, right
from wm_jax.envs.car_racing.state import CarState

DT = 1 / 50
"""Of one step, in s."""

# What Box2D computes from the polygons of `car_dynamics`: density 1 for the hull, 0.1 for wheels.
HULL_MASS, WHEEL_MASS = 7.06, 0.06048
CENTRE = -0.0825309
"""The hull's centre of mass lies this far ahead of its origin, in u."""
HULL_INERTIA, WHEEL_INERTIA = 18.260364 - HULL_MASS * CENTRE**2, 0.0074592
"""About their centres of mass, in kg u²."""
MASS = HULL_MASS + 4 * WHEEL_MASS
ANCHORS = np.array([(-1.1, 1.6), (1.1, 1.6), (-1.1, -1.64), (1.1, -1.64)], np.float32)
"""Where the wheels are from the hull's origin: to the right and ahead, in u (`WHEELPOS`)."""
ARMS = ANCHORS - np.array([0, CENTRE], np.float32)
"""The same from the hull's centre of mass."""

# The joints of `car_dynamics.Car`.
STOP = 0.4
"""Joints turn no farther than this to both sides, in rad."""
MOTOR_IMPULSE = 180 * 900 * 0.02**2 * DT
"""What a joint's motor can give in a step, in kg u²/s."""
MOTOR_MASS = 1 / (1 / HULL_INERTIA + 1 / WHEEL_INERTIA)
"""What a motor gives in a round for each rad/s that it lacks, in kg u²."""
ROUNDS = 6 * 30
"""That Box2D takes to find velocities (`CarRacing.step`)."""
GIVE = WHEEL_INERTIA / (WHEEL_INERTIA + HULL_INERTIA)
"""The hull's share when a joint is turned back."""

# Box2D's tolerances (`b2Settings.h`).
LARGEST_MOVE = 2.0
"""No body moves farther in a step, in u."""
SLOP = 0.005
"""Joints whose ends are this near need not be pulled together, in u."""
ANGLE_SLOP, LARGEST_CORRECTION = np.pi / 90, 8 * np.pi / 180
"""Joints are turned back to this far beyond their stop, by so much in a step, in rad."""


def origin(state: CarState) -> Float32[Array, "2"]:
    """The hull's origin: Gymnasium's position of the car, which its camera follows and the field confines."""
    return state.centre - CENTRE * ahead(state.angle)


def wheel_places(state: CarState) -> Float32[Array, "4 2"]:
    """The wheels' centres, in u."""
    return state.centre[None] + _arms(state.angle)


def advance(state: CarState, motors: Float32[Array, "4"], forces: Float32[Array, "4 2"]) -> CarState:
    """The bodies one step on.

    Args:
      motors: rates at which the joints' motors want to turn, in rad/s.
      forces: on the wheels, in kg u/s².
    """
    arms = _arms(state.angle)
    mean, middle, inertia, momentum = _momenta(state, forces, arms)
    joint_rates, stops, side = _turn_joints(state, motors, momentum / inertia - state.rate)
    rate = (momentum - WHEEL_INERTIA * jnp.sum(joint_rates)) / inertia
    velocity = mean - rate * left_of(middle)
    wheel_velocities = _limit(velocity[None] + rate * left_of(arms))
    velocity = _limit(velocity)
    angle = state.angle + DT * rate
    shifts, turns = _tighten(angle, arms + DT * (wheel_velocities - velocity[None]))
    joint_angles = state.joint_angles + DT * joint_rates - jnp.sum(turns)
    back = _turn_back(joint_angles, side)
    yielded = GIVE * jnp.sum(back)
    return state._replace(
        centre=_add_in_turn(state.centre + DT * velocity, shifts),
        angle=_add_in_turn(angle, turns) + yielded,
        velocity=velocity,
        rate=rate,
        wheel_velocities=wheel_velocities,
        joint_angles=joint_angles - (1 - GIVE) * back - yielded,
        joint_rates=joint_rates,
        stops=stops,
    )


def settle(
    centre: Float32[Array, "2"], angle: Float32[Array, ""], wheels: Float32[Array, "4 2"]
) -> tuple[Float32[Array, "2"], Float32[Array, ""]]:
    """Centre and angle of a hull at rest once its joints have pulled wheels to their places that were elsewhere.

    Box2D's `b2RevoluteJoint::SolvePositionConstraints`, in the order in which it takes the joints: here rounds are few,
    and the order matters.
    """

    def pull(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        centre, angle, wheels, _ = state
        widest = jnp.float32(0)
        for i in reversed(range(4)):
            x, y = arm = _arms(angle)[i]
            gap = wheels[i] - centre - arm
            widest = jnp.maximum(widest, jnp.sqrt(dot(gap, gap)))
            both = 1 / HULL_MASS + 1 / WHEEL_MASS
            xx, xy, yy = both + y * y / HULL_INERTIA, -x * y / HULL_INERTIA, both + x * x / HULL_INERTIA
            impulse = jnp.stack([yy * gap[0] - xy * gap[1], xx * gap[1] - xy * gap[0]]) / (xx * yy - xy * xy)
            centre, angle = centre + impulse / HULL_MASS, angle + cross(arm, impulse) / HULL_INERTIA
            wheels = wheels.at[i].add(-impulse / WHEEL_MASS)
        return centre, angle, wheels, widest

    started = (centre, angle, wheels, jnp.float32(jnp.inf))
    centre, angle, _, _ = jax.lax.while_loop(lambda state: state[-1] > SLOP, pull, started)
    return centre, angle


def _turn_joints(state: CarState, motors: Array, turned: Array) -> tuple[Array, Array, Array]:
    """Rates of the joints [4], impulses of their stops [4], and at which stop each is [4]: -1, 0 (none), 1.

    A motor that a stop holds back winds up, by what it lacks in each of Box2D's rounds, up to MOTOR_IMPULSE. The joint
    can't leave the stop until this is unwound; if that takes the last round, it has none left to reach its rate. The
    first round starts from what the last step has left: a joint that has met its stop with a bang is thrown back.
    (In such a last round Box2D has not settled, and wheels differ by up to 0.1 rad/s from this, for one step of some
    50,000.)

    Args:
      turned: by how much the rate of the hull changes, in rad/s; the wheels have to follow.
    """
    angles = state.joint_angles
    side = jnp.where(angles >= STOP, 1.0, jnp.where(angles <= -STOP, -1.0, 0.0))
    push, moving = side * motors, side * state.joint_rates
    wound = jnp.minimum(state.stops, MOTOR_IMPULSE)
    thrown = (state.stops - wound) / WHEEL_INERTIA
    wound = jnp.minimum(wound + MOTOR_MASS * (push - moving + thrown), MOTOR_IMPULSE)
    wound = jnp.clip(wound + (ROUNDS - 1) * MOTOR_MASS * push, -MOTOR_IMPULSE, MOTOR_IMPULSE)
    leaving = jnp.clip(side * turned - moving - wound / WHEEL_INERTIA, 0.0, jnp.maximum(-push, 0.0))
    stops = jnp.maximum(wound, 0.0) + WHEEL_INERTIA * jnp.maximum(moving, 0.0)
    met = side != 0
    return jnp.where(met, -side * leaving, motors), jnp.where(met & (leaving == 0), stops, 0.0), side


def _momenta(state: CarState, forces: Array, arms: Array) -> tuple[Array, Array, Array, Array]:
    """What the forces leave of the motion of the whole car.

    Velocity [2] of its centre of mass, place [2] of this from the hull's; inertia and angular momentum about it, the
    latter with that of the joints of the last step.
    """
    pushed = state.wheel_velocities + DT / WHEEL_MASS * forces
    velocity = (HULL_MASS * state.velocity + WHEEL_MASS * jnp.sum(pushed, 0)) / MASS
    middle = WHEEL_MASS / MASS * jnp.sum(arms, 0)
    spokes = arms - middle[None]
    momentum = (
        HULL_INERTIA * state.rate
        + WHEEL_INERTIA * jnp.sum(state.rate + state.joint_rates)
        + HULL_MASS * cross(-middle, state.velocity - velocity)
        + WHEEL_MASS * jnp.sum(cross(spokes, pushed - velocity[None]))
    )
    inertia = HULL_INERTIA + HULL_MASS * dot(middle, middle) + 4 * WHEEL_INERTIA + WHEEL_MASS * jnp.sum(spokes * spokes)
    return velocity, middle, inertia, momentum


def _tighten(angle: Array, places: Array) -> tuple[Array, Array]:
    """How far each wheel pulls the hull [4, 2], and turns it [4], when it is pulled back to its place on it.

    Wheels have moved along tangents of their circles. What turns the hull is of third order in the angle of a step, up
    to 2e-4 rad, and yet it would be nearly all of the error if it was left out.

    Args:
      angle: of the hull, after it has turned.
      places: of the wheels, from the hull [4, 2].
    """
    arms = _arms(angle)
    gaps = places - arms
    inertia = HULL_INERTIA + WHEEL_MASS * jnp.sum(arms * arms)
    return WHEEL_MASS / MASS * gaps, WHEEL_MASS / inertia * cross(arms, gaps)


def _add_in_turn(value: Array, four: Array) -> Array:
    """The value and four [4, ...], the last one first, like Box2D: where each is rounded away, so is their sum."""
    for each in four[::-1]:
        value = value + each
    return value


def _turn_back(joint_angles: Array, side: Array) -> Array:
    """By how much joints [4] are turned back that have gone beyond the stop at which they were."""
    return side * jnp.clip(side * joint_angles - STOP - ANGLE_SLOP, 0.0, LARGEST_CORRECTION)


def _limit(velocities: Array) -> Array:
    """Velocities [..., 2] with which nothing moves by more than LARGEST_MOVE."""
    move = DT * jnp.sqrt(jnp.sum(jnp.square(velocities), -1, keepdims=True))
    return velocities * jnp.minimum(LARGEST_MOVE / jnp.maximum(move, LARGEST_MOVE), 1.0)


def _arms(angle: Array) -> Array:
    """From the hull's centre of mass to the wheels [4, 2]."""
    arms = jnp.asarray(ARMS)
    return arms[:, :1] * right(angle)[None] + arms[:, 1:] * ahead(angle)[None]
