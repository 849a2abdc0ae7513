"""CarRacing's pictures: beside Gymnasium's, and the two formulations beside each other."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.envs.car_racing.drawing import Shot, _ground, _ground_afar, _redrawn, picture, shot
from wm_jax.envs.car_racing.instruments import bar
from wm_jax.envs.car_racing.raster import FRAME, OBSERVATION, ROWS_SEEN, WINDOW, raster
from wm_jax.envs.car_racing.track import bank
from wm_jax.kernels import native
from wm_jax.tools.fidelity.motion import synchronised
from wm_jax.tools.fidelity.pictures import Album, compare, observations_differ, photograph

ZOOMING, NEAR = (0, 1, 3, 9, 20, 45), (60, 120, 180)


@cache
def album(style: str = "held", colourful: bool = False) -> Album:
    return photograph(style, (1000, 1001), ZOOMING + NEAR, colourful=colourful)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("style", ["held", "racing"])
def test_frames_look_like_gymnasiums(style):
    found = compare(album(style))
    for phase, mean, wrong in (("near", 0.25, 0.0005), ("zooming", 0.4, 0.001)):
        everywhere = found[phase]["all"]
        assert everywhere.mean < mean and everywhere.wrong < wrong
        assert found[phase]["grass"].mean < 0.05 and found[phase]["road"].mean < 0.5


def test_observations_look_like_gymnasiums():
    found = observations_differ(album("held"))
    assert found.mean < 0.25 and found.wrong < 0.0005


def test_random_colours_look_like_gymnasiums():
    theirs = album(colourful=True)
    differences = np.abs(theirs.ours().astype(int) - theirs.frames())
    assert differences.mean() < 0.3 and (differences.max(-1) > 32).mean() < 0.001
    assert theirs.frames().std((0, 1, 2)).max() > 5


def test_a_picture_of_something_else_is_told_apart():
    """The bars above can fail: a car elsewhere, other tracks and other wheels all show."""
    theirs = album("held")
    frames, ours = theirs.frames().astype(int), theirs.ours()
    states = theirs.states
    moved = theirs.__class__(
        theirs.seeds, theirs.times, states._replace(position=states.position + 0.3), theirs.observations
    )
    steered = states._replace(joint_angles=states.joint_angles + 0.3)
    steered = theirs.__class__(theirs.seeds, theirs.times, steered, theirs.observations)
    error = np.abs(ours - frames).mean()
    assert np.abs(moved.ours() - frames).mean() > 2 * error
    car = (slice(-3, None), *raster(FRAME).car)
    assert np.abs(steered.ours() - frames)[car].mean() > 1.1 * np.abs(ours - frames)[car].mean()


@pytest.mark.skipif(not native.available(), reason="no kernels in C here")
@pytest.mark.parametrize("width", [FRAME, OBSERVATION])
@pytest.mark.parametrize("colourful", [False, True])
def test_c_draws_what_jax_draws(width, colourful):
    theirs = album(colourful=colourful)
    plain, fast = theirs.ours(width, fast=False).astype(int), theirs.ours(width).astype(int)
    assert np.abs(plain - fast).max() <= 1 and (plain != fast).mean() < 0.002


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=pytest.mark.skipif("not native.available()"))])
def test_maps_over_maps_draw_the_same(fast):
    tracks = bank((1000, 1001))
    points, angles = np.asarray(tracks.points), np.asarray(tracks.angles)
    where = [(0, 0), (0, 50), (1, 7), (1, 100), (0, 200), (1, 0)]
    rows = [(t, points[t, i], angles[t, i], 2.0 + i) for t, i in where]

    def draw(track, position, angle, time):
        zeros = jnp.zeros(4)
        return picture(tracks, shot(track, jnp.zeros(400, bool), position, angle, zeros, zeros, time), FRAME, fast=fast)

    columns = [
        jnp.asarray(np.array(column, kind))
        for column, kind in zip(zip(*rows, strict=True), ("i4", "f4", "f4", "f4"), strict=True)
    ]
    one_by_one = np.stack([jax.jit(draw)(*(column[i] for column in columns)) for i in range(6)])
    two_by_three = [column.reshape(2, 3, *column.shape[1:]) for column in columns]
    nested = jax.jit(jax.vmap(jax.vmap(draw)))(*two_by_three)
    np.testing.assert_array_equal(np.asarray(nested).reshape(one_by_one.shape), one_by_one)
    # Some arguments of the inner map alone: the same three cars on either track.
    shared = jax.jit(jax.vmap(jax.vmap(draw, in_axes=(None, 0, 0, 0)), in_axes=(0, None, None, None)))
    several = shared(jnp.array([0, 1]), *(column[:3] for column in columns[1:]))
    np.testing.assert_array_equal(several[0, :2], one_by_one[:2])
    np.testing.assert_array_equal(several[1, 2], one_by_one[2])


def descending(steps: list[int]) -> np.ndarray:
    """Pictures of cars at the beginnings of two tracks in turns, so many steps after the start."""
    tracks, track = bank((1000, 1001)), np.arange(len(steps)) % 2
    times = jnp.asarray(0.02 * (np.array(steps) + 1), jnp.float32)

    def draw(track, time):
        zeros, where = jnp.zeros(4), tracks.points[track, 5]
        shown = shot(track, jnp.zeros(400, bool), where, 0.3 + time, zeros, zeros, time)
        return picture(tracks, shown, FRAME, fast=False)

    return np.asarray(jax.jit(jax.vmap(draw))(jnp.asarray(track, jnp.int32), times))


def test_rows_of_a_batch_are_drawn_as_if_they_were_alone():
    """In the formulation for accelerators: those whose camera is far away, few or many, and their neighbours."""
    alone = {steps: descending([steps] * 4)[:2] for steps in (0, 2, 5, 9, 16, 17, 60)}
    for mixed in ([60, 0, 60, 60], [0] * 4, [9, 0, 17, 2, 5, 16, 60, 0] * 9, [60] * 69 + [0, 9]):
        for place, (steps, drawn) in enumerate(zip(mixed, descending(mixed), strict=True)):
            np.testing.assert_array_equal(drawn, alone[steps][place % 2], f"{steps} steps, among {mixed}")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 64])
def test_no_more_rows_are_drawn_anew_than_need_it(count):
    drawn, chosen = [], np.random.default_rng(0).permutation(64) < count

    def draw(shots):
        jax.debug.callback(lambda track: drawn.append(track.tolist()), shots.track)
        return jnp.broadcast_to(shots.track.astype(jnp.float32)[:, None, None, None], (len(shots.track), 3, 2, 2))

    rows = jnp.arange(64, dtype=jnp.int32)
    shots = Shot(rows, jnp.zeros((64, 400), bool), jnp.zeros((64, 21)))
    levels = jax.jit(lambda chosen: _redrawn(jnp.full((64, 3, 2, 2), -1.0), chosen, draw, shots))(chosen)
    jax.effects_barrier()
    np.testing.assert_array_equal(levels[:, 0, 0, 0], np.where(chosen, rows, -1))
    assert len(drawn) == -(-count // 2) and all(len(each) == 2 for each in drawn)


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 6])
def test_maps_show_what_many_samples_show(steps):
    """Where the camera is far away: beside every pixel made from 8 x 8 samples of the tiles themselves."""
    tracks, grid = bank((1000, 1001)), raster(FRAME)
    time, zeros = jnp.float32(0.02 * (steps + 1)), jnp.zeros(4)
    for section in (0, 60, 120):
        where, angle = tracks.points[1, section], tracks.angles[1, section]
        shown = shot(jnp.int32(1), jnp.zeros(400, bool), where, angle, zeros, zeros, time)
        exact = jax.jit(partial(_ground, grid=grid, side=8))(tracks, shown)
        differences = np.abs(np.asarray(jax.jit(partial(_ground_afar, grid=grid))(tracks, shown) - exact))
        assert np.asarray(exact).std() > 20
        assert differences.mean() < 0.25 and np.quantile(differences, 0.99) < 6.5


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=pytest.mark.skipif("not native.available()"))])
def test_every_bank_of_several_is_drawn(fast):
    """Tracks under `vmap` too, which is unusual."""
    one, other = bank((1000,)), bank((1001,))
    banks = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)

    def draw(tracks):
        zeros, place = jnp.zeros(4), tracks.points[0, 30]
        shown = shot(jnp.int32(0), jnp.zeros(400, bool), place, tracks.angles[0, 30], zeros, zeros, jnp.float32(5))
        return picture(tracks, shown, FRAME, fast=False)

    together = np.asarray(jax.jit(jax.vmap(draw))(banks))
    np.testing.assert_array_equal(together, [jax.jit(draw)(each) for each in (one, other)])
    assert (together[0] != together[1]).any()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -1e30])
def test_a_camera_that_is_nowhere_harms_nothing(broken):
    """C must not look for a cell of the map that does not exist."""
    tracks, zeros = bank((1000,)), jnp.zeros(4)
    for place, angle in (((broken, 0.0), 0.0), ((0.0, 0.0), broken)):
        where = jnp.array(place, jnp.float32), jnp.float32(angle)
        shown = shot(jnp.int32(7), jnp.zeros(400, bool), *where, zeros, zeros, jnp.float32(5))
        assert picture(tracks, shown, FRAME).shape == (64, 64, 3)


@pytest.mark.parametrize("width", [FRAME, OBSERVATION])
def test_footprints_tile_the_window(width):
    grid = raster(width)
    assert grid.columns.mean() == pytest.approx(WINDOW[0] / 2, abs=0.01)
    assert grid.rows.mean() == pytest.approx(WINDOW[1] * ROWS_SEEN / OBSERVATION / 2, abs=0.01)
    for weights in (grid.column_weights, grid.row_weights):
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)


def test_instruments_show_what_gymnasiums_show():
    """But for the score in figures: rows 3..8 of the bar, up to column 28, where it also hides other instruments."""
    theirs = album("held")
    states = jax.tree.map(lambda field: field[None], theirs.states)
    cars = jax.tree.map(lambda leaf: leaf[0], synchronised(states))
    differences = np.abs(np.asarray(jax.jit(jax.vmap(bar))(cars)).astype(int) - theirs.observations[:, ROWS_SEEN:])
    differences[:, 3:9, :28] = 0
    assert differences.mean() < 0.05 and differences.max() < 30
    assert theirs.observations[:, ROWS_SEEN:, 28:].max(axis=(1, 2, 3)).min() > 50
