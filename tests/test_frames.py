import numpy as np
import pytest

from wm_jax.envs.host.frames import shrink


def area_weights(size: int) -> np.ndarray:
    """[64, size] share of every input pixel in every output pixel, from the overlap of their intervals."""
    edges = np.linspace(0, size, 65)
    pixel = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixel[None] + 1) - np.maximum(edges[:-1, None], pixel[None])
    return np.clip(overlap, 0, None) / (size / 64)


@pytest.mark.parametrize(
    ("height", "width", "crop"),
    [(96, 96, (0, 84, 0, 96)), (210, 160, (15, 155, 10, 160)), (210, 160, None), (128, 128, None), (64, 96, None)],
)
def test_shrink_is_the_exact_area_average(height, width, crop):
    screens = np.random.default_rng(0).integers(0, 256, (20, height, width, 3), np.uint8)
    top, bottom, left, right = crop or (0, height, 0, width)
    seen = screens[:, top:bottom, left:right].astype(float)
    expected = np.einsum(
        "ph,bhwc,qw->bpqc", area_weights(bottom - top), seen, area_weights(right - left), optimize=True
    )
    frames = shrink(screens, crop)
    assert frames.shape == (20, 64, 64, 3) and frames.dtype == np.uint8
    assert np.abs(frames - expected).max() <= 1
    # Rounded (ties upwards), not cut off: half a grey level too dark would be a bias of every frame.
    assert abs((frames - expected).mean()) < 0.2


def test_a_screen_of_the_right_size_is_left_alone():
    screens = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(shrink(screens, None), screens)


def test_channel_first_screens_give_the_same_frames():
    screens = np.random.default_rng(0).integers(0, 256, (3, 210, 160, 3), np.uint8)
    planes = np.ascontiguousarray(screens.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    crop = (15, 155, 10, 160)
    np.testing.assert_array_equal(shrink(planes, crop), shrink(screens, crop))
