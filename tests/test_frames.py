from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.config.schema import EnvConfig
from wm_jax.envs import device, games
from wm_jax.envs.car_racing.game import CarRacingGame
from wm_jax.envs.host.resize import shrink
from wm_jax.envs.make import open_pool
from wm_jax.utils.errors import UserError


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


@pytest.mark.parametrize(
    "screens",
    [
        np.full((1, 96, 96, 3), 7, np.float32),
        np.full((1, 96, 96, 3), 7, np.int64),
        np.full((1, 96, 96, 4), 7, np.uint8),
        np.full((1, 96, 96, 1), 7, np.uint8),
        np.full((1, 96, 96), 7, np.uint8),
        np.full((1, 64, 64, 4), 7, np.uint8),
        np.full((1, 64, 64, 3), 7, np.float32),
    ],
    ids=lambda screens: f"{screens.dtype}{screens.shape}",
)
def test_what_is_no_screen_is_refused(screens: np.ndarray):
    with pytest.raises(ValueError, match=rf"screens are {screens.dtype} .*, expected uint8 \[B, H, W, 3\]"):
        shrink(screens, None)


def test_a_crop_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="leaves nothing"):
        shrink(np.zeros((1, 96, 96, 3), np.uint8), (96, 99, 0, 96))


@pytest.mark.parametrize(
    "view", [lambda screens: screens[::2], lambda screens: screens[:, ::-1, ::2], lambda screens: screens[..., ::-1]]
)
def test_screens_may_lie_in_any_order(view: Callable[[np.ndarray], np.ndarray]):
    seen = view(np.random.default_rng(0).integers(0, 256, (20, 96, 160, 3), np.uint8))
    np.testing.assert_array_equal(shrink(seen, None), shrink(np.ascontiguousarray(seen), None))


def test_envpool_is_held_to_what_it_declares(monkeypatch: pytest.MonkeyPatch):
    game = games.find("chaser", EnvConfig())
    pool = open_pool(game, 2, workers=1)
    assert pool.reset([1, 2]).shape == (2, 64, 64, 3)

    def lies(self: Any) -> Any:
        return (
            np.zeros((1, 64, 64, 4), np.uint8),
            np.zeros(1),
            np.zeros(1, bool),
            np.zeros(1, bool),
            {"env_id": np.zeros(1)},
        )

    engine: Any = pool._engine  # pyright: ignore[reportAttributeAccessIssue]
    pool.send([0, 1], [0, 0])
    monkeypatch.setattr(type(engine._pool), "recv", lies)
    with pytest.raises(UserError) as raised:
        pool.recv()
    pool.close()
    assert str(raised.value).startswith(
        "chaser: EnvPool's ChaserEasy-v0 declared pictures of uint8 [1, 64, 64, 3], but returned uint8 [1, 64, 64, 4]"
    )


def test_the_device_is_held_to_what_it_declares(monkeypatch: pytest.MonkeyPatch):
    engine = device.DeviceEngine(CarRacingGame())
    monkeypatch.setattr(device, "start_all", lambda *_: (jnp.zeros((2, 64, 64, 3), jnp.float32), None))
    with pytest.raises(UserError, match=r"declared pictures of uint8 \[2, 64, 64, 3\], but returned float32"):
        engine.start([0, 1])
    answer = jnp.zeros((2, 84, 96, 3), jnp.uint8), jnp.zeros(2), jnp.zeros(2, bool)
    monkeypatch.setattr(device, "_advance", lambda *_: (None, answer))
    engine._states = None
    engine.send(np.arange(2, dtype=np.int32), np.zeros((2, 3), np.float32))
    with pytest.raises(
        UserError, match=r"declared pictures of uint8 \[2, 64, 64, 3\], but returned uint8 \[2, 84, 96, 3\]"
    ):
        engine.recv(2)
