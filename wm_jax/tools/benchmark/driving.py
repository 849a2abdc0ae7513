"""CarRacing at work: random driving of many cars, with pictures or without, for whoever times the game."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from wm_jax.envs.car_racing import dynamics
from wm_jax.envs.car_racing.camera import view
from wm_jax.envs.car_racing.drawing import frame
from wm_jax.envs.car_racing.game import CarRacingGame, Tracks
from wm_jax.envs.car_racing.state import CarState
from wm_jax.envs.device import step_all

TRACKS = 64
"""That are driven on."""
FIRST_SECOND = 60
"""Steps after which the camera has come near, and pictures cost what they cost from then on."""
RESTARTS = 400
"""Steps between two restarts of a slot, where slots are at all ages between: one in eight is in its first second."""
Mix = Literal["late", "mixed", "fresh"]
"""What slots show: none of them the first steps of an episode; some, as in training; or all."""
MIXES: tuple[Mix, ...] = get_args(Mix)

Drive = Callable[[Tracks, Any, Array], tuple[Any, Array]]
"""(tracks, what is carried, actions [T, N, 3]) -> what is carried then, rewards [T, N]."""


@cache
def tracks(small: bool = False) -> Tracks:
    """What is driven on."""
    return CarRacingGame().params_for(range(2 if small else TRACKS))


@cache
def driven(*, frames: bool) -> Drive:
    """The steps of a call as one program. It carries cars, or with pictures (frames, cars): those that nobody carries
    along might be left out by the compiler.
    """
    game = CarRacingGame()

    def draw(params: Tracks, now: Any, action: Array) -> tuple[Any, Array]:
        seen, states, rewards, _ = step_all(game, params, now[1], action)
        return (seen, states), rewards

    def move(params: Tracks, cars: Any, action: Array) -> tuple[Any, Array]:
        cars, rewards, _ = jax.vmap(dynamics.step, (None, 0, 0))(params.bank, cars, action)
        return cars, rewards

    @jax.jit
    def play(params: Tracks, now: Any, actions: Array) -> tuple[Any, Array]:
        return jax.lax.scan(partial(draw if frames else move, params), now, actions)

    return play


def actions(count: int, steps: int) -> NDArray[np.float32]:
    """Random ones [T, N, 3], a new one in every step."""
    return np.random.default_rng(0).uniform((-1, 0, 0), (1, 1, 1), size=(steps, count, 3)).astype(np.float32)


@partial(jax.jit, static_argnums=1)
def starting(params: Tracks, count: int) -> CarState:
    """So many cars at the beginning of their tracks."""
    places = jnp.arange(count, dtype=jnp.int32) % params.bank.count.shape[0]
    return jax.vmap(dynamics.start, (None, 0))(params.bank, places)


@jax.jit
def pictures(params: Tracks, cars: CarState) -> Array:
    """uint8 [N, 64, 64, 3]."""
    return jax.vmap(lambda car: frame(params.bank, view(car)))(cars)


def cars_of(params: Tracks, count: int, mix: Mix) -> CarState:
    """Cars of such ages. How far the camera is away depends on the age alone."""
    cars = starting(params, count)
    if mix == "fresh":
        return cars
    cars, _ = driven(frames=False)(params, cars, jnp.asarray(actions(count, FIRST_SECOND)))
    if mix == "late":
        return cars
    ages = 1 + np.random.default_rng(0).permutation(count) * RESTARTS // count
    return cars._replace(steps=jnp.asarray(ages, jnp.int32))
