"""What training makes of stored frames: rare colours, noise where all frames are alike, and frames that come often."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax import cli
from wm_jax.config.vaes import VanillaConfig
from wm_jax.data.frames import ResidentFrames, StreamedFrames
from wm_jax.data.neighbours import Neighbours
from wm_jax.data.preference import MOST, preferred
from wm_jax.models.vae.examples import PATCH, Examples, common_patches, moving_weights
from wm_jax.utils.errors import UserError
from wm_jax.utils.rare_pixels import RARE, Palette


def ball(count: int = 60, every: int = 1) -> np.ndarray:
    """uint8 [count, 64, 64, 3]: a red ball that goes its way on a grey ground with a blue half, in every so many."""
    frames = np.full((count, 64, 64, 3), 90, np.uint8)
    frames[:, :, 32:] = (30, 30, 200)
    for i, frame in enumerate(frames):
        if i % every == 0:
            frame[30:34, i % 60 : i % 60 + 4] = (250, 20, 20)
    return frames


def test_the_rarest_colours_have_no_more_than_two_per_cent_of_the_pixels() -> None:
    frames = ball()
    palette = Palette.of(frames)
    rare = palette.rare(frames)
    np.testing.assert_array_equal(rare, frames[..., 0] == 250)
    np.testing.assert_array_equal(np.asarray(jax.jit(palette.rare)(jnp.asarray(frames))), rare)
    assert 0 < rare.mean() <= RARE and abs(palette.share.sum() - 1) < 1e-9
    # A ball sixteen times as large is rare no longer.
    frames[:, 20:40, 10:30] = (250, 20, 20)
    assert not Palette.of(frames).rare(frames).any()


def test_weights_of_rare_and_of_moving_pixels_add_up() -> None:
    frames = ball()
    around = jnp.asarray(frames[Neighbours(np.array([60])).around(np.array([20, 40]))])
    examples = Examples.of(VanillaConfig(moving_weight=0.5, rare_weight=7.0), frames)
    both = examples.batch(around, jax.random.key(0)).weights
    middle = frames[[20, 40]]
    moving = moving_weights(jnp.asarray(middle) / 255, jnp.asarray(np.median(around, 1)) / 255, 0.5)
    assert both is not None
    np.testing.assert_allclose(both, moving + 7.0 * (middle[..., :1] == 250), rtol=1e-5)
    alone = Examples.of(VanillaConfig(rare_weight=7.0), frames).batch(jnp.asarray(middle), jax.random.key(0)).weights
    np.testing.assert_array_equal(np.asarray(alone), np.where(middle[..., :1] == 250, 8.0, 1.0))
    assert Examples.of(VanillaConfig(), frames).batch(jnp.asarray(middle), jax.random.key(0)).weights is None


@pytest.mark.parametrize(("flips", "views"), [("left_right", 2), ("up_down", 2), ("both", 4)])
def test_half_of_the_frames_are_mirrored_and_their_weights_with_them(flips: str, views: int) -> None:
    """Each view comes as often as any other, and the heavy pixels lie where the ball is in it."""
    frame = ball()[20:21]
    frame[:, 30:34, 20:24] = 90
    frame[:, 50:54, 10:14] = (250, 20, 20)  # in no mirror where it was
    examples = Examples.of(VanillaConfig.model_validate({"rare_weight": 7.0, "flips": flips}), ball())
    batch = jax.jit(examples.batch)(jnp.asarray(np.repeat(frame, 800, axis=0)), jax.random.key(0))
    assert batch.weights is not None
    np.testing.assert_array_equal(batch.weights[..., 0] > 1, batch.frames[..., 0] == 250)
    seen, counts = np.unique(np.asarray(batch.frames), axis=0, return_counts=True)
    assert len(seen) == views
    np.testing.assert_allclose(counts / 800, 1 / views, atol=0.05)
    mirrors = {
        "left_right": [np.fliplr],
        "up_down": [np.flipud],
        "both": [np.fliplr, np.flipud, lambda x: x[::-1, ::-1]],
    }
    for view in (frame[0], *(mirror(frame[0]) for mirror in mirrors[flips])):
        assert (seen == view).all(axis=(1, 2, 3)).any()


def test_noise_comes_where_all_frames_are_alike() -> None:
    frames = ball()
    patches = common_patches(frames)
    assert patches.any() and not patches[30:34].any() and patches.sum() % PATCH**2 == 0
    config = VanillaConfig(noise_patches="common")
    batch = Examples.of(config, frames).batch(jnp.asarray(frames[:2]), jax.random.key(0))
    changed = (np.asarray(batch.encoder_input) != np.asarray(batch.target)).all(axis=(0, 3))
    np.testing.assert_array_equal(changed, patches)
    noise = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), np.uint8)
    with pytest.raises(UserError, match="common: this game's frames are nowhere alike; give true"):
        Examples.of(config, noise)


@pytest.mark.parametrize("prefer", ["moving", "rare"])
def test_frames_with_more_in_them_come_more_often(prefer) -> None:
    frames = ball(1200, every=5)  # a ball in a fifth of them: five times the mean number of its pixels
    rows = Neighbours(np.array([700, 500]))
    epoch = preferred(lambda places: frames[places], rows, 1200, prefer, Palette.of(frames))
    times = np.bincount(epoch, minlength=1200)
    with_ball = (frames[..., 0] == 250).any(axis=(1, 2))
    assert times.min() == 1 and times.max() <= MOST
    assert (times[~with_ball] == 1).all() and np.median(times[with_ball]) == 5
    resident = ResidentFrames(frames, 8, 0, None, epoch)
    streamed = StreamedFrames(lambda i: frames[i], 1200, 8, 0, lambda step: step + 2, slice(None), None, epoch)
    places = np.asarray(resident.references(0, len(epoch) // 8, len(epoch) // 8))
    np.testing.assert_array_equal(frames[places[:2]], streamed.references(0, 2, 2))
    assert abs(with_ball[places].mean() - with_ball[epoch].mean()) < 0.01
    streamed.close()


def test_where_nothing_is_of_interest_every_frame_comes_once() -> None:
    frames = np.zeros((20, 64, 64, 3), np.uint8)
    epoch = preferred(lambda i: frames[i], Neighbours(np.array([20])), 20, "moving", Palette.of(frames))
    np.testing.assert_array_equal(epoch, np.arange(20))


def test_generated_frames_can_not_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_vae", "--game", "carracing", "--preset", "smoke", "--run", str(tmp_path / "run")]
    assert cli.main([*words, "--vae.frames", "generated", "--vae.prefer", "moving"]) == 2
    assert "--vae.prefer moving: generated frames come once" in capsys.readouterr().err


def test_training_with_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_vae", "--game", "chaser", "--preset", "smoke", "--run", str(tmp_path)]
    words += ["--vae.moving_weight", "0.5", "--vae.rare_weight", "5", "--vae.noise_patches", "true"]
    assert cli.main([*words, "--vae.prefer", "rare", "--vae.likelihood", "laplace", "--vae.warm_up", "3"]) == 0
    assert "since some are repeated (--vae.prefer rare)" in capsys.readouterr().err
