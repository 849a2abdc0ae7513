"""CarRacing as others use it: through Gymnax's interface, alone and in numbers."""

from dataclasses import replace
from functools import cache, partial

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.envs.car_racing import CarRacing, dynamics

KEY = jax.random.key(0)


@cache
def params(steps: int = 1000):
    return CarRacing.on_tracks((1000, 1001, 1002), episode_steps=steps)


def test_a_start_shows_the_track_that_was_asked_for():
    env = CarRacing()
    frames, states = jax.jit(jax.vmap(env.start, in_axes=(None, 0)))(params(), jnp.array([0, 1, 2, 0]))
    assert frames.shape == (4, 64, 64, 3) and frames.dtype == jnp.uint8
    np.testing.assert_array_equal(states.car.track, [0, 1, 2, 0])
    np.testing.assert_array_equal(states.time, 0)
    np.testing.assert_array_equal(frames[0], frames[3])
    assert (frames[0] != frames[1]).any()


def test_an_episode_can_begin_anywhere():
    env = CarRacing()
    section = jnp.array([0, 40, 200])
    frames, states = jax.jit(jax.vmap(env.start, in_axes=(None, 0, 0)))(params(), jnp.array([1, 1, 1]), section)
    away = np.linalg.norm(states.car.centre - params().tracks.points[1, section], axis=1)
    assert (away < 0.2).all() and (frames[0] != frames[1]).any()
    assert all(states.car.visited[i, section[i]] for i in range(3))


def test_resets_draw_from_the_whole_bank():
    env = CarRacing()
    _, states = jax.jit(jax.vmap(env.reset_env, in_axes=(0, None)))(jax.random.split(KEY, 32), params())
    assert set(np.asarray(states.car.track).tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("whole", "shape"), [(False, (64, 64, 3)), (True, (96, 96, 3))])
@pytest.mark.parametrize("continuous", [True, False])
def test_spaces_hold_what_steps_take_and_show(whole, shape, continuous):
    env = CarRacing(whole=whole, continuous=continuous)
    action = env.action_space(params()).sample(KEY)
    observation, state = env.reset(KEY, params())
    assert observation.shape == env.observation_space(params()).shape == shape
    assert env.num_actions == (3 if continuous else 5)
    shown, state, reward, terminated, truncated, info = env.step(KEY, state, action, params())
    assert shown.shape == shape and shown.dtype == jnp.uint8
    assert reward.shape == terminated.shape == truncated.shape == ()
    np.testing.assert_array_equal(info["final_observation"], shown)


def test_choices_are_played_as_their_actions():
    """That these are Gymnasium's is tested beside its car (test_car_dynamics.py)."""
    continuous, discrete = CarRacing(), CarRacing(continuous=False)
    for choice in range(5):
        _, state = continuous.start(params(), jnp.int32(0))
        one = discrete.step_env(KEY, state, jnp.int32(choice), params())
        other = continuous.step_env(KEY, state, jnp.asarray(dynamics.DISCRETE[choice]), params())
        for mine, yours in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(mine, yours)


def test_an_episode_is_truncated_at_its_limit_and_the_next_begins():
    env, short = CarRacing(), params(3)
    _, state = env.reset(KEY, short)
    for number in range(1, 4):
        _, state, _, terminated, truncated, info = env.step(KEY, state, jnp.zeros(3), short)
        assert not terminated and bool(truncated) == (number == 3)
    assert state.time == 0 and state.car.steps == 1
    # The last picture of the episode is not lost.
    assert (info["final_observation"] != env.get_obs(state, short)).any()


def test_a_lost_game_is_terminated():
    env = CarRacing()
    _, state = env.start(params(), jnp.int32(0))
    lost = replace(state, car=state.car._replace(centre=jnp.array([334.0, 0.0])))
    _, _, reward, terminated, _ = env.step_env(KEY, lost, jnp.zeros(3), params())
    assert terminated and reward == -100


def test_many_steps_are_one_program():
    """Nothing asks the host: 20 steps of 4 cars are traced once and run."""
    env, traces = CarRacing(), []

    @jax.jit
    def drive(states, params):
        traces.append(1)
        step = jax.vmap(env.step_env, in_axes=(None, 0, 0, None))

        def once(states, _):
            frames, states, rewards, _, _ = step(KEY, states, jnp.tile(jnp.array([0.0, 0.5, 0.0]), (4, 1)), params)
            return states, (rewards, frames[:, 0, 0])

        return jax.lax.scan(once, states, None, 20)

    _, states = jax.vmap(env.start, in_axes=(None, 0))(params(), jnp.array([0, 1, 2, 0]))
    for _ in range(2):
        with jax.transfer_guard("disallow"):
            after, (rewards, _) = drive(states, params())
    assert traces == [1]
    assert (after.time == 20).all() and (rewards.sum(0) > 5).all()
    assert (np.linalg.norm(after.car.velocity, axis=1) > 1).all()


def test_programs_are_compiled_once_for_all_games_alike():
    traced = []

    @partial(jax.jit, static_argnums=0)
    def start(env, params, track):
        traced.append(env)
        return env.start(params, track)[0]

    for env in (CarRacing(), CarRacing(), CarRacing(whole=True), CarRacing(whole=True)):
        start(env, params(), jnp.int32(0))
    assert len(traced) == 2
    assert CarRacing() == CarRacing() != CarRacing(continuous=False)


def test_parameters_are_there_without_asking():
    env = CarRacing()
    assert env.default_params is CarRacing().default_params
    assert env.default_params.tracks.count.shape == (64,)
    frame, _ = env.reset(KEY)
    assert frame.shape == (64, 64, 3)


def test_gymnax_finds_it_by_name():
    env, params = gymnax.make("CarRacing-v3", continuous=False, whole=True)
    assert env == CarRacing(continuous=False, whole=True)
    assert params.tracks.count.shape == (64,)
