"""CarRacing's tracks: Gymnasium's own, and what is looked up on them."""

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.box2d.car_racing import CarRacing

from wm_jax.envs.car_racing import track
from wm_jax.envs.car_racing.road import FIELD, HALF_WIDTH, STRIP
from wm_jax.envs.car_racing.track import NOWHERE, REACH, bank, nearest_section
from wm_jax.kernels import native

SEEDS = (1000, 1001, 1007, 20869)


@pytest.fixture(scope="module")
def tracks():
    return bank(SEEDS)


class Undrawn(CarRacing):
    def _render(self, mode: str) -> None:
        return None


@pytest.mark.parametrize("colourful", [False, True])
def test_tracks_are_gymnasiums(colourful):
    game = Undrawn(domain_randomize=colourful)
    ours = bank(SEEDS, colourful=colourful)
    for i, seed in enumerate(SEEDS):
        game.reset(seed=seed)
        theirs = np.array(game.track)[:, 1:]
        count = int(ours.count[i])
        assert count == len(theirs)
        np.testing.assert_array_equal(ours.angles[i, :count], theirs[:, 0].astype(np.float32))
        np.testing.assert_array_equal(ours.points[i, :count], theirs[:, 1:].astype(np.float32))
        colours = np.array([game.road_color, *np.floor([game.bg_color, game.grass_color])], np.float32)
        np.testing.assert_array_equal(ours.colours[i], colours)


def test_attempts_that_fail_are_repeated_from_the_same_stream():
    """Of these seeds one fails at first: its track is the second of its stream."""
    repeated = 0
    for seed in range(1000, 1040):
        random = np.random.default_rng(seed)
        made = track.generate(random)
        first = track._closed_loop(track._walk(track._checkpoints(np.random.default_rng(seed))))
        repeated += first is None
        assert first is None or (first == made).all()
    assert 0 < repeated < 10


def test_curbs_lie_where_gymnasium_paints_them(tracks):
    game = Undrawn()
    for i, seed in enumerate(SEEDS):
        game.reset(seed=seed)
        painted, tile = np.zeros(len(game.track), int), -1
        for polygon, colour in game.road_poly:
            if not isinstance(colour, tuple):
                tile += 1
                continue
            _, angle, x, y = game.track[tile]
            middle = np.mean(polygon[:2], 0) - (x, y)
            painted[tile] = np.sign(middle @ (np.cos(angle), np.sin(angle)))
            assert colour == ((255, 255, 255) if tile % 2 == 0 else (255, 0, 0))
        assert painted.any()
        np.testing.assert_array_equal(tracks.curbs[i, : len(painted)], painted)


def test_the_map_names_the_nearest_section(tracks):
    random = np.random.default_rng(0)
    for i in range(len(SEEDS)):
        points = np.asarray(tracks.points[i, : int(tracks.count[i])], float)
        places = points[random.integers(0, len(points), 4000)] + random.uniform(-16, 16, (4000, 2))
        named = np.asarray(nearest_section(tracks, jnp.int32(i), *jnp.asarray(places.T, jnp.float32)))
        distances = np.linalg.norm(points - places[:, None], axis=-1)
        best = distances.min(1)
        road = named != NOWHERE
        assert road[best < REACH - 0.75].all() and not road[best > REACH + 0.75].any()
        # It is asked for the middle of a cell, 0.7 u away at most.
        assert (distances[np.flatnonzero(road), named[road]] < best[road] + 1.5).all()


def test_nothing_is_near_outside_of_the_field(tracks):
    for x, y in ((FIELD + 50, 0), (-1e6, 5), (0, 1e9)):
        assert nearest_section(tracks, jnp.int32(0), jnp.float32(x), jnp.float32(y)) == NOWHERE


def test_strips_measure_distances_to_the_tiles_sides(tracks):
    """Against the corners of the tiles, in float64."""
    for i in range(len(SEEDS)):
        count = int(tracks.count[i])
        points, angles = (np.asarray(each[i, :count], float) for each in (tracks.points, tracks.angles))
        across = np.stack([np.cos(angles), np.sin(angles)], -1)
        strip = dict(zip(STRIP, np.asarray(tracks.strips[i, :count], float).T, strict=True))
        for side in (-1, 1):
            corners = points + side * HALF_WIDTH * across
            for prefix, tile in (("", np.arange(count)), ("next_", (np.arange(count) + 1) % count)):
                for ends in (corners[tile], corners[tile - 1]):
                    right = strip[f"{prefix}right_x"] * ends[:, 0] + strip[f"{prefix}right_y"] * ends[:, 1]
                    right += strip[f"{prefix}right_c"]
                    # At the seam of the two ends of a track sections may be farther apart, and askew.
                    off = np.sort(np.abs(right - side * strip[f"{prefix}half"]))
                    assert off[-3] < 0.06
        ahead = strip["ahead_x"] * points[:, 0] + strip["ahead_y"] * points[:, 1] + strip["ahead_c"]
        np.testing.assert_allclose(ahead, 0, atol=1e-4)


@pytest.mark.skipif(not native.available(), reason="no kernels in C here")
def test_c_draws_the_same_map(tracks):
    plain = track.nearest_sections(tracks.points, tracks.count, fast=False)
    fast = track.nearest_sections(tracks.points, tracks.count)
    # Where two sections are as near, up to rounding, either may be named.
    assert np.mean(np.asarray(plain) != np.asarray(fast)) < 1e-5
    assert ((plain == NOWHERE) == (fast == NOWHERE)).mean() > 1 - 1e-5
