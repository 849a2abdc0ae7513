"""The car on the device: beside Gymnasium's, step by step and left to itself; and what only ours must keep."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.envs.car_racing import bodies, dynamics
from wm_jax.envs.car_racing.contacts import HALF_TYRE, RADIUS, SKIN, touch
from wm_jax.envs.car_racing.road import HALF_WIDTH
from wm_jax.envs.car_racing.track import bank
from wm_jax.tools.fidelity.motion import drift, gather, one_step
from wm_jax.tools.fidelity.reference import UndrawnCarRacing, record, snapshot

SEEDS = tuple(range(1000, 1006))
ODD = (20869, 20003)
"""The road's ends overlap at the start, and a third tile is touched; the road begins to the right, not ahead."""
ALL = tuple(range(8))
"""The places of them all in the bank."""
STYLES = ("random", "held", "following", "racing", "fast", "spin", "stopping", "flat_out", "choices")
DRIFT = {"random": 5e-4, "held": 2e-3, "following": 5e-4, "racing": 5e-3, "fast": 5e-3, "choices": 1e-3}
"""Of a style, the median error of the position after 200 steps, in u: several times what is measured."""


@cache
def tracks():
    return bank((*SEEDS, *ODD))


@cache
def played(style, seeds=SEEDS, steps=700):
    return gather([record(seed, style, steps) for seed in seeds], steps)


@cache
def driving():
    """`step` and `start` for batches, and how often each was compiled."""
    traces = {"step": 0, "start": 0}

    def step(tracks, state, action):
        traces["step"] += 1
        return dynamics.step(tracks, state, action)

    def start(tracks, track):
        traces["start"] += 1
        return dynamics.start(tracks, track)

    return jax.jit(jax.vmap(step, (None, 0, 0))), jax.jit(jax.vmap(start, (None, 0))), traces


def begin(ids=ALL):
    """The starts on these tracks: always 8 of them, so that little is compiled."""
    return driving()[1](tracks(), jnp.asarray(ids, jnp.int32))


def go(state, action, steps=1):
    """The same action [3], or [N, 3], for some steps."""
    rows = state.angle.shape[0]
    action = jnp.broadcast_to(jnp.asarray(np.atleast_2d(action), jnp.float32), (rows, 3))
    for _ in range(steps):
        state, reward, terminated = driving()[0](tracks(), state, action)
    return state, reward, terminated


def test_masses_are_those_of_box2d():
    game = UndrawnCarRacing()
    game.reset(seed=0)
    assert game.car is not None
    hull, wheel = game.car.hull, game.car.wheels[0]
    np.testing.assert_allclose([bodies.HULL_MASS, bodies.WHEEL_MASS], [hull.mass, wheel.mass], rtol=1e-6)
    np.testing.assert_allclose(bodies.CENTRE, hull.localCenter[1], rtol=1e-6)
    about_origin = bodies.HULL_INERTIA + bodies.HULL_MASS * bodies.CENTRE**2
    np.testing.assert_allclose([about_origin, bodies.WHEEL_INERTIA], [hull.inertia, wheel.inertia], rtol=1e-6)


def test_starts_like_gymnasium():
    states = begin()
    where = jax.vmap(bodies.origin)(states)
    for i, seed in enumerate((*SEEDS, *ODD)):
        game = UndrawnCarRacing()
        game.reset(seed=seed)
        theirs = snapshot(game)
        np.testing.assert_allclose(where[i], theirs.position, atol=6e-5)
        np.testing.assert_allclose(states.angle[i], theirs.angle, atol=2e-6)
        np.testing.assert_allclose(states.joint_angles[i], theirs.joint_angles, atol=2e-6)
        np.testing.assert_array_equal(states.visited[i], theirs.visited)
        assert states.touched[i] == theirs.touched
        for ours in (states.velocity, states.rate, states.wheel_velocities, states.spins, states.phases, states.gas):
            assert not np.any(ours[i])
        assert states.on_road[i].all()
        assert theirs.on_road.all()
    assert states.touched[len(SEEDS)] == 3
    assert abs(tracks().angles[len(SEEDS) + 1, 0]) > 1.3


def test_the_tiles_of_the_start_are_paid_by_the_first_step():
    state, reward, _ = go(begin(), (0, 0, 0))
    np.testing.assert_allclose(reward, 1000 / tracks().count * state.touched.astype(jnp.float32) - 0.1, rtol=1e-6)
    _, reward, _ = go(state, (0, 0, 0))
    np.testing.assert_allclose(reward, -0.1, rtol=1e-6)


@pytest.mark.parametrize("style", [*STYLES, "leaving"])
def test_one_step_equals_gymnasiums(style):
    found = one_step(tracks(), played(style))
    bars = {"position": 1e-4, "angle": 3e-5, "joint_angles": 3e-5, "velocity": 1e-4, "rate": 2e-5, "spins": 2e-4}
    assert {name: found.errors[name].largest for name, bar in bars.items() if found.errors[name].largest > bar} == {}
    assert max(found.contacts, found.visits, found.rewards) <= 0.001


@pytest.mark.parametrize("style", DRIFT)
def test_left_to_itself_it_stays_near(style):
    found = drift(tracks(), played(style))
    assert found.positions[200][0] < DRIFT[style]
    assert min(found.touched, found.rewards) >= 0.99
    assert found.ends == 1
    assert found.returns < 5  # one tile


def test_the_fastest_reach_the_limit_of_box2d():
    speeds = np.linalg.norm(played("flat_out").states.velocity, axis=-1)
    assert (speeds.max(1) > 99.9).all()


def test_who_leaves_the_field_has_lost():
    batch = played("leaving")
    assert batch.terminated.all()
    last = batch.rewards[np.arange(len(SEEDS)), batch.lengths - 1]
    assert (last == -100).all()
    found = drift(tracks(), batch)
    assert found.ends == 1
    assert found.rewards >= 0.99
    assert found.returns < 5


def test_a_lap_ends_with_its_last_tile():
    batch = played("following", SEEDS[:2], 2600)
    assert batch.terminated.all()
    assert (batch.states.touched[:, -1] == tracks().count[:2]).all()
    found = drift(tracks(), batch)
    assert found.ends == 1
    assert found.returns < 0.1


def test_discrete_actions_are_gymnasiums():
    choices = jnp.array([0, 1, 2, 3, 4, 0, 0, 0])
    driven, _, _ = go(begin([0] * 8), (0, 0.5, 0), 10)
    ours, _, _ = go(driven, jax.vmap(dynamics.discrete_action)(choices))
    nothing, right, left, gas, brake = range(5)
    assert ours.joint_rates[right, 0] < ours.joint_rates[nothing, 0] < ours.joint_rates[left, 0]
    assert np.flatnonzero(ours.gas).tolist() == [gas]
    assert ours.spins[brake, 2] < ours.spins[nothing, 2]


def test_actions_are_clipped_to_their_bounds():
    fast, _, _ = go(begin(), (0.3, 1, 0), 30)
    for outside, inside in (((7, 3, -1), (1, 1, 0)), ((-2, -1, 5), (-1, 0, 1))):
        for wild, tame in zip(jax.tree.leaves(go(fast, outside)), jax.tree.leaves(go(fast, inside)), strict=True):
            np.testing.assert_array_equal(wild, tame)


@pytest.mark.parametrize("bad", [(np.nan, 0, 0), (0, np.nan, 0), (0, 0, np.nan), (np.inf, 0, 0)])
def test_an_action_that_is_no_number_earns_none(bad):
    state, _, _ = go(begin(), (0.1, 1, 0), 20)
    sane = np.tile((0.1, 1.0, 0.0), (8, 1))
    broken, replaced = sane.copy(), sane.copy()
    broken[2], replaced[2] = bad, 0
    _, good, _ = go(state, sane)
    after, reward, terminated = go(state, broken)
    assert np.flatnonzero(np.isnan(reward)).tolist() == np.flatnonzero(terminated).tolist() == [2]
    np.testing.assert_array_equal(np.delete(reward, 2), np.delete(good, 2))
    # The car itself coasts.
    coasted, _, _ = go(state, replaced)
    for found, expected in zip(jax.tree.leaves(after), jax.tree.leaves(coasted), strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found, expected)


def test_neighbours_in_a_batch_change_nothing():
    actions = played("held").actions[:, :60]

    def finish(rows, ids):
        state = begin(ids)
        for t in range(actions.shape[1]):
            state, reward, _ = go(state, actions[rows, t])
        return jax.tree.map(lambda leaf: leaf[0], (state, reward))

    together = finish([0, 1, 2, 3, 4, 5, 0, 1], ALL)
    others = finish([0, 3, 3, 1, 0, 0, 2, 2], [0, 4, 5, 6, 6, 0, 7, 1])
    for here, there in zip(jax.tree.leaves(together), jax.tree.leaves(others), strict=True):
        np.testing.assert_array_equal(here, there)
    # Alone the compiler may round otherwise.
    (alone, _), (state, _) = finish([0], [0]), together
    np.testing.assert_allclose(alone.centre, state.centre, atol=1e-3)
    np.testing.assert_array_equal(alone.visited, state.visited)


def test_one_compilation_is_enough():
    traces = driving()[-1]
    go(begin(), (0, 0, 0))
    before = dict(traces)
    for ids, action in ((ALL[::-1], (1, 0, 0)), ([7] * 8, (-1, 1, 0.5)), ([0, 4] * 4, (np.nan, 0, 0))):
        go(begin(ids), action, 3)
    assert traces == before
    assert traces["step"] > 0


def test_no_tile_is_missed_for_being_far_from_the_nearest_section():
    """The window of tiles against all of them, most of all in bends, and by a plain computation in float64."""
    random = np.random.default_rng(5)
    cars = 3000
    find = jax.jit(jax.vmap(touch, in_axes=(None, None, 0, 0)))
    for track in range(len(SEEDS)):
        count = int(tracks().count[track])
        points = np.asarray(tracks().points[track, :count], float)
        angles = np.asarray(tracks().angles[track, :count], float)
        edges = HALF_WIDTH * np.stack([np.cos(angles), np.sin(angles)], -1)
        bends = np.abs(angles - np.roll(angles, 1)) + 0.02
        place = random.choice(count, cars, p=bends / bends.sum())
        centre = points[place] + edges[place] * random.uniform(-1.5, 1.5, (cars, 1)) + random.uniform(-2, 2, (cars, 2))
        turn = random.uniform(-np.pi, np.pi, cars)
        wheels = centre[:, None] + rotated(bodies.ARMS.astype(float)[None], turn[:, None])
        headings = turn[:, None] + random.uniform(-0.43, 0.43, (cars, 4))
        corners = quadrilaterals(points - edges, points + edges)
        apart = all_separations(wheels, headings, corners)
        tiles, touching = find(
            tracks(), jnp.int32(track), jnp.asarray(wheels, jnp.float32), jnp.asarray(headings, jnp.float32)
        )
        ours = np.zeros(apart.shape, bool)
        car, wheel = np.arange(cars)[:, None, None], np.arange(4)[None, :, None]
        ours[car, wheel, np.asarray(tiles)[:, None]] = touching
        sure = np.abs(apart - SKIN) > 1e-3
        np.testing.assert_array_equal(ours[sure], (apart < SKIN)[sure])
        assert 0.2 < ours.any(-1).mean() < 0.9


def quadrilaterals(lefts, rights):
    """[n, 4, 2]: corners of all tiles."""
    return np.stack([lefts, rights, np.roll(rights, 1, 0), np.roll(lefts, 1, 0)], 1)


def rotated(vectors, angle):
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1)


def all_separations(wheels, headings, corners):
    """[cars, 4, tiles]: of wheels [cars, 4, 2] from tiles [tiles, 4, 2], largest over the axes of both; inf if far."""
    apart = np.full((*wheels.shape[:2], len(corners)), np.inf)
    distances = np.linalg.norm(corners.mean(1) - wheels.mean(1)[:, None], axis=-1)
    car, tile = np.nonzero(distances < 15)
    for wheel in range(4):
        local = rotated(corners[tile] - wheels[car, wheel][:, None], -headings[car, wheel][:, None])
        sides = np.roll(local, -1, 1) - local
        normals = np.stack([sides[..., 1], -sides[..., 0]], -1) / np.linalg.norm(sides, axis=-1, keepdims=True)
        axes = np.concatenate([normals, np.broadcast_to(np.eye(2), (len(car), 2, 2))], 1)
        reach = HALF_TYRE * np.abs(axes[..., 0]) + RADIUS * np.abs(axes[..., 1])
        along = axes @ local.transpose(0, 2, 1)
        apart[car, wheel, tile] = np.maximum(along.min(-1) - reach, -along.max(-1) - reach).max(-1)
    return apart
