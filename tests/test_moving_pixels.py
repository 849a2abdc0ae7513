"""What moves, and what of it a reconstruction reproduces."""

import numpy as np
import pytest

from wm_jax.utils import moving_pixels
from wm_jax.utils.arrays import evenly_spaced


def film(count: int = 60) -> np.ndarray:
    """A square that goes from left to right over a fixed pattern."""
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 120, (1, 64, 64, 3), np.uint8), count, axis=0)
    for i, frame in enumerate(frames):
        frame[30:34, i % 60 : i % 60 + 4] = 250
    return frames


def still(frames: np.ndarray) -> np.ndarray:
    """The film without its square."""
    return np.repeat(np.median(frames, axis=0, keepdims=True).astype(np.uint8), len(frames), axis=0)


PLACES = np.array([10, 30, 45])


def test_the_background_is_the_median_of_the_frames_around():
    frames = np.random.default_rng(1).integers(0, 256, (80, 8, 8, 3), np.uint8)
    for place in (0, 30, 79):
        near = frames[max(place - moving_pixels.REACH, 0) : place + moving_pixels.REACH + 1]
        lower = np.sort(near, axis=0)[len(near) // 2]
        np.testing.assert_array_equal(moving_pixels.background(frames, place), lower)
    np.testing.assert_array_equal(moving_pixels.background(film(), 30), still(film())[0])


def test_a_faithful_reconstruction_explains_all_and_a_still_one_nothing():
    frames = film()
    whole = moving_pixels.moving(frames, frames, PLACES)
    assert whole.explained == 1.0 and whole.pixels.tolist() == [16, 16, 16]
    for drawn in (still(frames), np.full_like(frames, 90), np.zeros_like(frames)):
        assert moving_pixels.moving(frames, drawn, PLACES).explained == 0.0


def test_other_colours_of_the_background_do_not_matter_but_paleness_does():
    frames = film()
    shifted = frames // 2 + 100  # the square stands out half as much
    assert moving_pixels.moving(frames, shifted, PLACES).explained == pytest.approx(0.75, abs=0.02)


def test_a_square_that_is_drawn_elsewhere_explains_nothing():
    frames = film()
    late = np.roll(frames, 8, axis=2)
    assert moving_pixels.moving(frames, late, PLACES).explained <= 0.0


def test_where_nothing_moves_there_is_no_share():
    frames = np.zeros((20, 64, 64, 3), np.uint8)
    found = moving_pixels.moving(frames, frames, np.array([3]))
    assert found.pixels.tolist() == [0] and np.isnan(found.explained)
    assert moving_pixels.Moving.concatenate([found, moving_pixels.moving(film(), film(), PLACES)]).explained == 1.0


def test_indices_are_evenly_spaced():
    assert evenly_spaced(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(100, 4).tolist() == [0, 33, 66, 99]
