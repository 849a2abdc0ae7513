"""The state of one car of CarRacing-v3; of N of them under `jax.vmap`, with N in front of every shape."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float32, Int32


class CarState(NamedTuple):
    """A car on its track, and what it has touched of it."""

    centre: Float32[Array, "2"]
    """The hull's centre of mass, in u. (Where Gymnasium says that the car is: `bodies.origin`.)"""
    angle: Float32[Array, ""]
    """Of the hull, in rad, never wrapped: it looks along (-sin, cos)."""
    velocity: Float32[Array, "2"]
    """Of the hull's centre of mass, in u/s."""
    rate: Float32[Array, ""]
    """At which the hull turns, in rad/s."""
    wheel_velocities: Float32[Array, "4 2"]
    """Of the wheels' centres, in u/s, as the last step left them: the hull has turned since, these have not. Derived
    anew from velocity and rate they would be 0.25 u/s off in fast driving."""
    joint_angles: Float32[Array, "4"]
    """Of the wheels (front left, front right, rear left, rear right) against the hull, in rad."""
    joint_rates: Float32[Array, "4"]
    """Of the joints, in rad/s."""
    stops: Float32[Array, "4"]
    """Impulses of the joints' motors against their stops, in kg u²/s; in the step in which a joint meets its stop, what
    it takes to stop it comes on top."""
    spins: Float32[Array, "4"]
    """How fast the wheels roll, in rad/s."""
    phases: Float32[Array, "4"]
    """How far they have rolled, in rad."""
    gas: Float32[Array, ""]
    """Of the two rear wheels, in 0..1."""
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
