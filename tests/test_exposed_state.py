"""Frames with the state that they show: of CarRacing, of Atari, and of games that tell nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from side_game import COLUMNS, SQUARE, Sides

from wm_jax.config.schema import EnvConfig
from wm_jax.envs.car_racing import dynamics
from wm_jax.envs.car_racing.factors import factors
from wm_jax.envs.car_racing.track import bank
from wm_jax.envs.exposed_state import play_exposed
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool


def test_a_games_own_factors_are_those_of_its_frames() -> None:
    game = find("jax:side_game:Sides", EnvConfig(backend="device", episode_steps=20))
    found = play_exposed(game, [1, 2], [np.zeros(20, np.int32), np.ones(20, np.int32)], 7)
    assert found is not None and found.names == ("column",)
    assert found.frames.shape == (14, 64, 64, 3) and found.episode.tolist() == [0] * 7 + [1] * 7
    lit = (found.frames == np.array((255, 160, 32))).all(-1).any(1).argmax(1)  # the first column of the square
    np.testing.assert_array_equal(lit, found.state[:, 0])
    assert set(found.state[:, 0].tolist()) <= set(COLUMNS) and SQUARE > 0 and Sides.actions.size == 2


def test_atari_tells_its_memory_and_shows_what_the_official_game_shows() -> None:
    game = find("breakout", EnvConfig(backend="gymnasium"))
    actions = np.tile(np.array([1, 2, 2, 3], np.int32), 5)
    found = play_exposed(game, [5], [actions], 100)
    assert found is not None and len(found.names) == 128 and found.state.shape == (20, 128)
    pool = open_pool(replace(game, episode_steps=1000), 1, official=True)
    try:
        frames = [pool.reset([5])[0], *(pool.step(action[None]).frames[0] for action in actions[:-1])]
    finally:
        pool.close()
    np.testing.assert_array_equal(found.frames, np.stack(frames))
    assert np.ptp(found.state[:, 72]) > 0, "the paddle's place (Anand et al. 2019) has changed"


def test_procgen_tells_nothing() -> None:
    game = find("chaser", EnvConfig())
    assert play_exposed(game, [0], [np.zeros(3, np.int32)], 3) is None


@pytest.fixture(scope="module")
def drive():
    """What is said of a car after so many steps of one action, on the track of seed 1."""
    tracks = bank([1])
    step = jax.jit(lambda car, action: dynamics.step(tracks, car, action)[0])

    def driven(*parts: tuple[int, tuple[float, float, float]]) -> dict[str, float]:
        car = dynamics.start(tracks, jnp.int32(0), jnp.int32(0))
        for count, action in parts:
            for _ in range(count):
                car = step(car, jnp.array(action, jnp.float32))
        return {name: float(value) for name, value in factors(tracks, car).items()}

    return driven


def test_a_car_that_stands_at_the_start_is_in_the_middle_of_the_road(drive) -> None:
    found = drive()
    assert abs(found["distance from the middle"]) < 0.5 and abs(found["heading"]) < 0.1
    assert abs(found["speed"]) < 0.1 and abs(found["turn rate"]) < 0.01


def test_a_car_speeds_up_and_turns_where_it_is_steered(drive) -> None:
    ahead = drive((40, (0.0, 1.0, 0.0)))
    assert ahead["speed"] > 20 and abs(ahead["sideways speed"]) < 2
    left = drive((40, (0.0, 1.0, 0.0)), (6, (-1.0, 0.0, 0.0)))
    right = drive((40, (0.0, 1.0, 0.0)), (6, (1.0, 0.0, 0.0)))
    for name in ("steering angle", "turn rate", "heading"):
        assert left[name] > ahead[name] > right[name], name
    left, right = (drive((40, (0.0, 1.0, 0.0)), (25, (side, 0.0, 0.0))) for side in (-1.0, 1.0))
    assert left["distance from the middle"] < right["distance from the middle"]
