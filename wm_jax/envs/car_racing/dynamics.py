"""The car of CarRacing-v3: how it moves, which tiles its wheels touch, and what that earns.

Gymnasium (1.3, `car_dynamics.Car` and `car_racing.CarRacing`) computes forces on four wheels and leaves the motion of
the five bodies to Box2D (2.3.10), which solves their joints by iteration. Here the solution that this iteration tends
to is written down: four wheels turning on a hull are one rigid body, whose momenta are known. That is a pure function
without a loop, the same game up to rounding; `wm_jax.fidelity.motion` measures how far they are apart.

Everything is about one car, in float32. Play many with `jax.vmap(step, in_axes=(None, 0, 0))`: each reads its own track
out of the common bank. Units: u (of length), rad, s; masses in Box2D's kg. Angles run counter-clockwise; a car of angle
a looks along (-sin a, cos a) and has its right side along (cos a, sin a). Wheels are front left, front right, rear
left, rear right. Gymnasium's pictures are Box2D's `SIZE` = 0.02 times larger than its drawings' numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32

from wm_jax.envs.car_racing.track import FIELD, HALF_WIDTH, NOWHERE, SECTIONS, Tracks, nearest_section

FRAMES_PER_SECOND = 50
DT = 1 / FRAMES_PER_SECOND
"""Of one step, in s."""

# Bodies. Box2D computes masses from the polygons of `car_dynamics` (density 1 for the hull, 0.1 for wheels).
HULL_MASS, WHEEL_MASS = 7.06, 0.06048
MASS = HULL_MASS + 4 * WHEEL_MASS
CENTRE = -0.0825309
"""The hull's centre of mass lies this far ahead of its origin, in u."""
HULL_INERTIA, WHEEL_INERTIA = 18.260364 - HULL_MASS * CENTRE**2, 0.0074592
"""About their own centres of mass, in kg u²."""
ANCHORS = np.array([(-1.1, 1.6), (1.1, 1.6), (-1.1, -1.64), (1.1, -1.64)], np.float32)
"""Of the wheels from the hull's origin: to the right and ahead, in u."""
ARMS = ANCHORS - np.array([0, CENTRE], np.float32)
"""The same from the hull's centre of mass."""
HALF_TYRE, RADIUS = 0.28, 0.54
"""Half a wheel's width and half its length, in u; the latter is its radius, too."""

# Wheels (`Car.step`).
FRONT = np.array([True, True, False, False])
REAR = np.array([0, 0, 1, 1], np.float32)
"""Only these are driven."""
ENGINE = 40000.0
ROLLING_INERTIA = 1.6
GAS_RISE = 0.1
"""The gas rises by this at most in a step; it falls at once."""
BRAKE, BLOCKED = 15.0, 0.9
"""Spin that a full brake takes in a step, in rad/s; from BLOCKED on wheels stand still."""
ROAD_GRIP, GRASS_GRIP = 400.0, 240.0
"""Largest force of a wheel, in kg u/s²."""
STIFFNESS = 82.0
"""Force per slip, in kg/s."""

# Steering joints.
STEER_GAIN, STEER_RATE = 50.0, 3.0
"""A joint turns towards its target with gain 1/s, at most at this rate in rad/s."""
LARGEST_ANGLE = 0.4
MOTOR_IMPULSE = 180 * 900 * 0.02**2 * DT
"""Of a joint's motor in a step, at most, in kg u²/s."""
MOTOR_GAIN = 6 * 30 / (1 / HULL_INERTIA + 1 / WHEEL_INERTIA)
"""Impulse per rad/s that a motor which a stop holds back has given after all of Box2D's 180 iterations."""

# Box2D's own (`b2Settings.h`).
GIVE = WHEEL_INERTIA / (WHEEL_INERTIA + HULL_INERTIA)
"""The hull's share in bringing a joint back from its stop."""
LINEAR_SLOP = 0.005
"""Joints whose ends are this near are left alone, in u."""
LARGEST_MOVE = 2.0
"""No body moves farther in a step, in u."""
ANGLE_SLOP, LARGEST_CORRECTION = np.pi / 90, 8 * np.pi / 180
"""Joints beyond their stop are brought back to this much of it, by at most so much at a time."""
SKIN = 0.02
"""Polygons this near touch, in u: twice `b2_polygonRadius`."""

BEHIND, AHEAD = 3, 4
"""Tiles around the hull's nearest section, with numbers from -BEHIND to AHEAD of it, that a wheel can touch.

Wheels reach 2.67 u. Most tiles are within that at the inner edge of the tightest bend, 4.62 u from its centre: 35
degrees, 2.0 sections of 0.31 rad. The map of the nearest section is wrong by 0.7 u, another 0.6, and a section is half a
tile from the next, 0.5: 3.1 to both sides. Never were tiles beyond -2 and 3 touched. Two strands of a hairpin are at
least 21 u apart on 1,500 tracks, and wheels of one car on both need them within 19."""

NO_ACTION = (0.0, 0.0, 0.0)
DISCRETE = np.array([NO_ACTION, (0.6, 0.0, 0.0), (-0.6, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.8)], np.float32)
"""Gymnasium's five actions: nothing, right, left, gas, brake."""


class CarState(NamedTuple):
    """A car on its track, and what it has touched of it."""

    centre: Float32[Array, "2"]
    """The hull's centre of mass, in u; see `origin` for where Gymnasium says that the car is."""
    angle: Float32[Array, ""]
    """Of the hull, in rad; never wrapped."""
    velocity: Float32[Array, "2"]
    """Of the hull's centre of mass, in u/s."""
    rate: Float32[Array, ""]
    """At which the hull turns, in rad/s."""
    wheel_velocities: Float32[Array, "4 2"]
    """Of the wheels' centres, in u/s, as the last step left them: they belong to the arms before the hull turned.
    Derived anew from velocity and rate they would be 0.25 u/s off in fast driving."""
    joint_angles: Float32[Array, "4"]
    """Of the wheels against the hull, in rad."""
    joint_rates: Float32[Array, "4"]
    """In rad/s."""
    spins: Float32[Array, "4"]
    """How fast the wheels roll, in rad/s."""
    phases: Float32[Array, "4"]
    """How far they have rolled, in rad."""
    gas: Float32[Array, ""]
    """Of the two rear wheels, in 0..1."""
    stops: Float32[Array, "4"]
    """Impulses with which joints push against their stops, in kg u²/s."""
    on_road: Bool[Array, "4"]
    """Which wheels touched a tile in the last step."""
    visited: Bool[Array, "400"]
    """Tiles that a wheel has touched."""
    touched: Int32[Array, ""]
    """How many these are."""
    paid: Int32[Array, ""]
    """How many of them have been rewarded: all, but for the tiles of the start, which the first step pays."""
    steps: Int32[Array, ""]
    """The world's age in steps of DT; a start is 1 old."""
    track: Int32[Array, ""]
    """The track's place in the bank."""


def origin(state: CarState) -> Float32[Array, "2"]:
    """The origin of the hull: Gymnasium's position of the car, which its camera follows and the field confines."""
    return state.centre - CENTRE * _ahead(state.angle)


def discrete_action(choice: Int[Array, ""]) -> Float32[Array, "3"]:
    """What Gymnasium's `continuous=False` does for 0..4: nothing, right, left, gas, brake."""
    return jnp.asarray(DISCRETE)[choice]


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
    steer, pedal, brake = jnp.clip(jnp.where(sound, action, 0.0), jnp.array([-1.0, 0.0, 0.0]), 1.0)
    gas = state.gas + jnp.minimum(pedal - state.gas, GAS_RISE)
    motors = _motors(state.joint_angles, steer)
    spins, phases, forces = _roll(state, gas, brake)
    # Box2D finds contacts before it moves anything, and after the wheels have asked what they stand on.
    tiles, touching = touch(tracks, state.track, _wheels(state), state.angle + state.joint_angles)
    new = _move(state, motors, forces)._replace(spins=spins, phases=phases, gas=gas, steps=state.steps + 1)
    new = _visit(new, tiles, touching)
    reward, terminated = _judge(new, tracks.count[state.track])
    return new._replace(paid=new.touched), jnp.where(sound, reward, jnp.nan), terminated | ~sound


def start(tracks: Tracks, track: Int32[Array, ""]) -> CarState:
    """The car as Gymnasium's `reset` leaves it: at rest on the first section, one step without action old."""
    heading = tracks.angles[track, 0]
    place = tracks.points[track, 0]
    # Gymnasium puts the wheels where they belong on a car of angle 0, and the joints pull them into place.
    wheels = place[None] + jnp.asarray(ANCHORS)
    tiles, touching = touch(tracks, track, wheels, jnp.broadcast_to(heading, (4,)))
    centre, angle = _pull_together(place + CENTRE * _ahead(heading), heading, wheels)
    four, none = jnp.zeros(4), jnp.int32(0)
    state = CarState(
        centre=centre,
        angle=angle,
        velocity=jnp.zeros(2),
        rate=jnp.float32(0),
        wheel_velocities=jnp.zeros((4, 2)),
        joint_angles=jnp.broadcast_to(heading - angle, (4,)),
        joint_rates=four,
        spins=four,
        phases=four,
        gas=jnp.float32(0),
        stops=four,
        on_road=jnp.zeros(4, bool),
        visited=jnp.zeros(SECTIONS, bool),
        touched=none,
        paid=none,
        steps=jnp.int32(1),
        track=track,
    )
    return _visit(state, tiles, touching)


def touch(
    tracks: Tracks, track: Int32[Array, ""], wheels: Float32[Array, "4 2"], headings: Float32[Array, "4"]
) -> tuple[Int32[Array, "window"], Bool[Array, "4 window"]]:
    """Which tiles the wheels of a car touch.

    By separating axes: the two of the wheel and the four of the tile. Box2D measures the distance, which is larger than
    the largest separation where two corners face each other: by less than SKIN.

    Args:
      wheels, headings: where their centres are and their angles.

    Returns:
      the tiles that come into question, and which of the wheels touch each.
    """
    centre = jnp.mean(wheels, 0)
    nearest = nearest_section(tracks, track, centre[0], centre[1])
    # One section more than tiles: tile i lies between sections i - 1 and i.
    sections = (nearest + jnp.arange(-BEHIND - 1, AHEAD + 1)) % tracks.count[track]
    # Relative to the car: the field's size would cost float32 three digits.
    middles = (tracks.points[track, sections] - centre[None])[None]
    angles = tracks.angles[track, sections][None]
    along, ahead = _right(angles), _ahead(angles)
    lefts, rights = middles - HALF_WIDTH * along, middles + HALF_WIDTH * along
    at = (wheels - centre[None])[:, None]
    across, length = HALF_TYRE * _right(headings)[:, None], RADIUS * _ahead(headings)[:, None]

    def beyond(normals: Array, points: Array) -> Array:
        """How far the nearest point of each wheel is outside of the lines through some points; [4, lines]."""
        return _dot(normals, at - points) - jnp.abs(_dot(normals, across)) - jnp.abs(_dot(normals, length))

    def outward(starts: Array, ends: Array) -> Array:
        """Unit vectors to the right of the ways from start to end."""
        away = ends - starts
        return -_left_of(away) / jnp.sqrt(_dot(away, away))[..., None]

    separations = [
        beyond(ahead[:, 1:], middles[:, 1:]),
        beyond(-ahead[:, :-1], middles[:, :-1]),
        beyond(outward(rights[:, :-1], rights[:, 1:]), rights[:, 1:]),
        beyond(outward(lefts[:, 1:], lefts[:, :-1]), lefts[:, 1:]),
    ]
    for axis, half in ((across / HALF_TYRE, HALF_TYRE), (length / RADIUS, RADIUS)):
        left, right = _dot(axis, lefts - at), _dot(axis, rights - at)
        low, high = jnp.minimum(left, right), jnp.maximum(left, right)
        separations += [jnp.minimum(low[:, 1:], low[:, :-1]) - half, -jnp.maximum(high[:, 1:], high[:, :-1]) - half]
    largest = jnp.max(jnp.stack(separations), 0)
    return sections[1:], (largest < SKIN) & (nearest != NOWHERE)


def _motors(joint_angles: Array, steer: Array) -> Array:
    """At which rates the joints' motors want to turn them [4]."""
    error = jnp.where(jnp.asarray(FRONT), -steer, 0.0) - joint_angles
    return jnp.clip(STEER_GAIN * error, -STEER_RATE, STEER_RATE)


def _roll(state: CarState, gas: Array, brake: Array) -> tuple[Array, Array, Array]:
    """What the wheels do on the ground: spins [4] and phases [4] after the step, forces [4, 2] of the ground on them."""
    headings = state.angle + state.joint_angles
    ahead, right = _ahead(headings), _right(headings)
    engine = ENGINE / ROLLING_INERTIA * gas * jnp.asarray(REAR) / (jnp.abs(state.spins) + 5.0)
    spins = state.spins + DT * engine
    braked = jnp.sign(spins) * jnp.maximum(jnp.abs(spins) - BRAKE * brake, 0.0)
    spins = jnp.where(brake >= BLOCKED, 0.0, braked)
    phases = state.phases + DT * spins
    push = STIFFNESS * (RADIUS * spins - _dot(ahead, state.wheel_velocities))
    drag = -STIFFNESS * _dot(right, state.wheel_velocities)
    grip = jnp.where(state.on_road, ROAD_GRIP, GRASS_GRIP)
    slip = jnp.minimum(grip / jnp.sqrt(jnp.maximum(push * push + drag * drag, 1e-6)), 1.0)
    push, drag = push * slip, drag * slip
    spins = spins - DT * RADIUS / ROLLING_INERTIA * push
    return spins, phases, push[:, None] * ahead + drag[:, None] * right


def _move(state: CarState, motors: Array, forces: Array) -> CarState:
    """The five bodies one step on, given the rates [4] of the motors and the forces [4, 2] on the wheels."""
    arms = _arms(state.angle)
    rates, stops, side = _turn_joints(state, motors)
    velocity, rate = _solve(state, rates, forces, arms)
    shift, turn = _tighten(state.angle, rate, arms)
    joint_angles = state.joint_angles + DT * rates - turn
    over = _over(joint_angles, side)
    yielded = GIVE * jnp.sum(over)  # of the hull, to the stops
    return state._replace(
        centre=state.centre + DT * _slow(velocity) + shift,
        angle=state.angle + DT * rate + turn + yielded,
        velocity=_slow(velocity),
        rate=rate,
        wheel_velocities=_slow(velocity[None] + rate * _left_of(arms)),
        joint_angles=joint_angles - (1 - GIVE) * over - yielded,
        joint_rates=rates,
        stops=stops,
    )


def _tighten(angle: Array, rate: Array, arms: Array) -> tuple[Array, Array]:
    """How joints correct the hull's place [2] and angle: wheels have moved along tangents, and are too far out."""
    turned = _arms(angle + DT * rate)
    gaps = arms + DT * rate * _left_of(arms) - turned
    turning = WHEEL_MASS * jnp.sum(_cross(turned, gaps)) / (HULL_INERTIA + WHEEL_MASS * jnp.sum(arms * arms))
    return WHEEL_MASS / MASS * jnp.sum(gaps, 0), turning


def _turn_joints(state: CarState, motors: Array) -> tuple[Array, Array, Array]:
    """What motors and stops make of the joints: rates [4], impulses of the stops [4], and which of them is met [4].

    A motor that is held by a stop winds up: every iteration of Box2D adds to its impulse, and to that of the stop, which
    must be unwound before the joint can leave.
    """
    angles = state.joint_angles
    side = jnp.where(angles >= LARGEST_ANGLE, 1.0, jnp.where(angles <= -LARGEST_ANGLE, -1.0, 0.0))
    push = motors * side
    wound = state.stops + MOTOR_GAIN * push
    wound = jnp.where(push > 0, jnp.minimum(wound, MOTOR_IMPULSE), wound)
    held = (side != 0) & ((push > 0) | (wound > 0))
    return jnp.where(held, 0.0, motors), jnp.where(side != 0, jnp.maximum(wound, 0.0), 0.0), side


def _solve(state: CarState, joint_rates: Array, forces: Array, arms: Array) -> tuple[Array, Array]:
    """Velocity [2] and rate of the hull, such that the wheels stay on it: from the momenta of the whole car."""
    pushed = state.wheel_velocities + DT / WHEEL_MASS * forces
    mean = (HULL_MASS * state.velocity + WHEEL_MASS * jnp.sum(pushed, 0)) / MASS
    middle = WHEEL_MASS / MASS * jnp.sum(arms, 0)  # of all masses, from the hull's
    spokes = arms - middle[None]
    momentum = (
        HULL_INERTIA * state.rate
        + WHEEL_INERTIA * jnp.sum(state.rate + state.joint_rates - joint_rates)
        + HULL_MASS * _cross(-middle, state.velocity - mean)
        + WHEEL_MASS * jnp.sum(_cross(spokes, pushed - mean[None]))
    )
    inertia = HULL_INERTIA + 4 * WHEEL_INERTIA + HULL_MASS * _dot(middle, middle)
    rate = momentum / (inertia + WHEEL_MASS * jnp.sum(spokes * spokes))
    return mean - rate * _left_of(middle), rate


def _over(angles: Array, side: Array) -> Array:
    """By how much joints [4] are turned back that have gone beyond the stop they had met."""
    excess = side * angles - LARGEST_ANGLE - ANGLE_SLOP
    return side * jnp.clip(excess, 0.0, LARGEST_CORRECTION)


def _slow(velocities: Array) -> Array:
    """Velocities [..., 2] that move nothing by more than LARGEST_MOVE in a step."""
    move = DT * jnp.sqrt(jnp.sum(jnp.square(velocities), -1, keepdims=True))
    return velocities * jnp.where(move > LARGEST_MOVE, LARGEST_MOVE / jnp.maximum(move, 1.0), 1.0)


def _visit(state: CarState, tiles: Array, touching: Array) -> CarState:
    """The state with these contacts, tiles [window] and touching [4, window], in its books."""
    met = jnp.any(touching, 0)
    new = met & ~state.visited[tiles]
    return state._replace(
        on_road=jnp.any(touching, 1),
        visited=state.visited.at[tiles].max(met),
        touched=state.touched + jnp.sum(new, dtype=jnp.int32),
    )


def _judge(state: CarState, count: Array) -> tuple[Array, Array]:
    """Reward and termination of a step that led to this state, on a track of so many tiles."""
    outside = jnp.any(jnp.abs(origin(state)) > FIELD)
    tiles = (state.touched - state.paid).astype(jnp.float32)
    earned = 1000.0 / count.astype(jnp.float32) * tiles - 0.1
    # Gymnasium's rule for 95 % of a lap never fires: tile 0, which it waits for, is visited at the start.
    return jnp.where(outside, -100.0, earned), outside | (state.touched == count)


def _pull_together(centre: Array, angle: Array, wheels: Array) -> tuple[Array, Array]:
    """Hull's centre [2] and angle once the joints have pulled resting wheels [4, 2] to their places.

    Box2D's `b2RevoluteJoint::SolvePositionConstraints`, in the order in which it takes the joints.
    """

    def once(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        centre, angle, wheels, _ = state
        widest = jnp.float32(0)
        for i in reversed(range(4)):
            x, y = arm = _arms(angle)[i]
            gap = wheels[i] - centre - arm
            widest = jnp.maximum(widest, jnp.sqrt(_dot(gap, gap)))
            both = 1 / HULL_MASS + 1 / WHEEL_MASS
            xx, xy, yy = both + y * y / HULL_INERTIA, -x * y / HULL_INERTIA, both + x * x / HULL_INERTIA
            pull = jnp.stack([yy * gap[0] - xy * gap[1], xx * gap[1] - xy * gap[0]]) / (xx * yy - xy * xy)
            centre, angle = centre + pull / HULL_MASS, angle + _cross(arm, pull) / HULL_INERTIA
            wheels = wheels.at[i].add(-pull / WHEEL_MASS)
        return centre, angle, wheels, widest

    started = (centre, angle, wheels, jnp.float32(jnp.inf))
    centre, angle, _, _ = jax.lax.while_loop(lambda state: state[-1] > LINEAR_SLOP, once, started)
    return centre, angle


def _wheels(state: CarState) -> Array:
    """Where the wheels are [4, 2]."""
    return state.centre[None] + _arms(state.angle)


def _arms(angle: Array) -> Array:
    """From the hull's centre of mass to the wheels [4, 2]."""
    arms = jnp.asarray(ARMS)
    return arms[:, :1] * _right(angle)[None] + arms[:, 1:] * _ahead(angle)[None]


def _ahead(angle: Array) -> Array:
    """Unit vectors [..., 2] along the headings [...]."""
    return jnp.stack([-jnp.sin(angle), jnp.cos(angle)], -1)


def _right(angle: Array) -> Array:
    """Unit vectors [..., 2] to the right of the headings [...]."""
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


def _left_of(vectors: Array) -> Array:
    """Vectors [..., 2] turned a quarter to the left."""
    return jnp.stack([-vectors[..., 1], vectors[..., 0]], -1)


def _dot(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def _cross(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
