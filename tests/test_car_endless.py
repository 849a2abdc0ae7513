"""Tracks made on the device: by the same rules as those made on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.envs.car_racing import CarRacing, Params, track
from wm_jax.envs.car_racing.endless import _curbs, draw_checkpoints, draw_tracks, lay_out
from wm_jax.envs.car_racing.road import SECTIONS
from wm_jax.envs.car_racing.track import CHECKPOINTS


@pytest.fixture(scope="module")
def tracks():
    return draw_tracks(jax.random.key(0), 64)


def test_the_same_checkpoints_give_the_same_track():
    """Up to rounding, which once in a while decides where a lap begins."""
    lay, same = jax.jit(lay_out), 0
    for seed in range(1000, 1020):
        checkpoints = track._checkpoints(np.random.default_rng(seed))
        theirs = track._closed_loop(track._walk(checkpoints))
        polar = [(c.angle, np.hypot(c.x, c.y)) for c in checkpoints]
        ours = lay(jnp.array(polar, jnp.float32))
        if theirs is None or int(ours.count) != len(theirs):
            same += theirs is None and int(ours.count) == 0
            continue
        count = len(theirs)
        near = np.abs(np.asarray(ours.points[:count]) - theirs[:, 1:]).max() < 0.05
        turned = np.asarray(ours.angles[:count]) - theirs[:, 0]
        same += near and np.abs(turned - 2 * np.pi * np.round(turned / 2 / np.pi)).max() < 0.005
        assert (ours.points[count:] == 1e4).all()
    assert same >= 18


def test_curbs_are_those_of_the_host():
    alike = []
    for seed in range(1000, 1010):
        angles = track.generate(np.random.default_rng(seed))[:, 0]
        padded = np.pad(angles, (0, SECTIONS - len(angles))).astype(np.float32)
        ours = np.asarray(_curbs(jnp.asarray(padded), jnp.int32(len(angles))))
        assert not ours[len(angles) :].any()
        alike.append((ours[: len(angles)] == track.find_curbs(angles)).mean())
    assert np.mean(alike) > 0.99


def test_checkpoints_lie_where_gymnasium_draws_them():
    drawn = np.asarray(jax.vmap(draw_checkpoints)(jax.random.split(jax.random.key(1), 4000)))
    sector = 2 * np.pi / CHECKPOINTS
    offsets = drawn[:, 1:-1, 0] - sector * np.arange(1, CHECKPOINTS - 1)
    np.testing.assert_allclose([offsets.min(), offsets.mean(), offsets.max()], [0, sector / 2, sector], atol=0.01)
    radii = drawn[:, 1:-1, 1]
    np.testing.assert_allclose([radii.min(), radii.mean(), radii.max()], [50, 100, 150], atol=0.5)
    np.testing.assert_allclose(drawn[:, 0], np.tile([0, 225], (4000, 1)))
    np.testing.assert_allclose(drawn[:, -1], np.tile([11 * sector, 225], (4000, 1)), rtol=1e-6)


def test_tracks_are_closed_and_as_long_as_gymnasiums(tracks):
    theirs = track.bank(range(1000, 1064))
    np.testing.assert_allclose(tracks.count.mean(), theirs.count.mean(), rtol=0.05)
    assert len({tuple(row) for row in np.asarray(tracks.points[:, 5]).round(2).tolist()}) == 64
    for i in range(64):
        count = int(tracks.count[i])
        points = np.asarray(tracks.points[i, :count])
        steps = np.linalg.norm(points - np.roll(points, 1, 0), axis=1)
        np.testing.assert_allclose(steps[1:], track.STEP, atol=1e-3)
        assert steps[0] < 16
    for ours, usual in (
        (tracks.curbs, theirs.curbs),
        (tracks.nearest != track.NOWHERE, theirs.nearest != track.NOWHERE),
    ):
        np.testing.assert_allclose(np.mean(np.asarray(ours) != 0), np.mean(np.asarray(usual) != 0), rtol=0.15)


def test_a_key_decides(tracks):
    again, others = draw_tracks(jax.random.key(0), 64), draw_tracks(jax.random.key(1), 64)
    np.testing.assert_array_equal(again.points, tracks.points)
    assert (others.points[:, 5] != tracks.points[:, 5]).any(-1).all()


def test_cars_drive_on_them(tracks):
    env, params = CarRacing(), Params(tracks=tracks)
    frames, states = jax.jit(jax.vmap(env.start, in_axes=(None, 0)))(params, jnp.arange(4))
    assert (states.car.touched >= 2).all() and len(np.unique(np.asarray(frames).reshape(4, -1), axis=0)) == 4
