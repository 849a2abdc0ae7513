"""What the camera sees of a car's state: between the car's motion and its pictures."""

import jax.numpy as jnp

from wm_jax.envs.car_racing.bodies import DT, origin
from wm_jax.envs.car_racing.drawing import Shot, shot
from wm_jax.envs.car_racing.state import CarState


def view(car: CarState) -> Shot:
    """What the camera sees of a car."""
    time = DT * car.steps.astype(jnp.float32)
    return shot(car.track, car.visited, origin(car), car.angle, car.joint_angles, car.phases, time)
