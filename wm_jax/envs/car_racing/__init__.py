"""CarRacing-v3 as a pure function of JAX: Gymnasium's tracks, car, rewards and pictures, on any device.

from wm_jax.envs.car_racing import CarRacing

env = CarRacing()
frame, state = env.reset(jax.random.key(0), env.default_params)
"""

from wm_jax.envs.car_racing.environment import CarRacing, Params, State

__all__ = ["CarRacing", "Params", "State"]
