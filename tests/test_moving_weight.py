"""The weight of pixels that move: which they are, and what they count."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wm_jax import cli
from wm_jax.config.vaes import VanillaConfig
from wm_jax.data.frames import ResidentFrames, StreamedFrames
from wm_jax.data.neighbours import MIDDLE, OFFSETS, Neighbours
from wm_jax.models.vae import Batch, Update, make_vae
from wm_jax.models.vae.examples import SOFT, Examples, moving_weights
from wm_jax.models.vae.losses import squared_error
from wm_jax.run.metrics import read_metrics
from wm_jax.utils.moving_pixels import median_of_five


def test_neighbours_stay_in_their_row():
    around = Neighbours(np.array([30, 3, 60])).around(np.array([[0, 29, 31], [32, 33, 60]]))
    assert around[0, 0].tolist() == [0, 0, 0, 12, 24]
    assert around[0, 1].tolist() == [5, 17, 29, 29, 29]
    assert around[0, 2].tolist() == [30, 30, 31, 32, 32]
    assert around[1, 1].tolist() == [33, 33, 33, 45, 57]
    assert around[1, 2].tolist() == [36, 48, 60, 72, 84]
    assert OFFSETS[MIDDLE] == 0


def test_the_background_is_the_median_of_five():
    around = np.random.default_rng(0).integers(0, 256, (7, 5, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(median_of_five(jnp.asarray(around)), np.median(around, axis=1).astype(np.uint8))


def test_resident_and_streamed_frames_come_with_the_same_neighbours():
    frames = np.random.default_rng(1).integers(0, 256, (50, 64, 64, 3), np.uint8)
    neighbours = Neighbours(np.array([20, 30]))
    resident = ResidentFrames(frames, 4, 0, neighbours)
    streamed = StreamedFrames(lambda i: frames[i], 50, 4, 0, lambda step: step + 3, slice(None), neighbours)
    plain = ResidentFrames(frames, 4, 0)
    for batches in (resident, streamed):
        references = batches.references(5, 3, 4)
        data: Any = batches.data
        batch = np.asarray(batches.fetch(data, jnp.asarray(references)[1]))
        assert batch.shape == (4, 5, 64, 64, 3)
        middle = plain.fetch(plain.data, jnp.asarray(plain.references(5, 3, 4))[1])
        np.testing.assert_array_equal(batch[:, MIDDLE], middle)
        places = neighbours.around(np.asarray(plain.references(5, 3, 4))[1])
        np.testing.assert_array_equal(batch, frames[places])


def test_to_lose_a_moving_pixel_costs_about_the_weight_however_much_it_stands_out():
    still = jnp.full((1, 64, 64, 3), 0.5)
    for channel, difference in ((0, 0.11), (1, 0.3), (2, 0.5)):
        target = still.at[0, 3, 4, channel].add(difference)
        weights = moving_weights(target, still, 0.2)
        extra = squared_error(still, target, weights) - squared_error(still, target)
        np.testing.assert_allclose(extra[0], 0.2 * difference**2 / (difference**2 + SOFT), rtol=1e-4)
        assert int((weights > 1).sum()) == 1 and float(weights.min()) == 1.0
    # What differs by less than that is noise.
    assert float(moving_weights(still + 0.09, still, 0.2).max()) == 1.0


def test_a_weight_of_nothing_is_the_plain_loss():
    vae = make_vae(VanillaConfig(latent=4, width=0.125), nnx.Rngs(0))
    around = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 5, 64, 64, 3), np.uint8))
    batch = Examples(moving_weight=0.0).batch(around, jax.random.key(1))
    plain, weighted = (vae.loss(each, Update(jax.random.key(0))) for each in (Batch(around[:, MIDDLE]), batch))
    assert float(plain[0]) == float(weighted[0])
    assert float(plain[1]["reconstruction"]) == float(weighted[1]["reconstruction"])


def test_training_with_the_weight(tmp_path: Path) -> None:
    words = ["train_vae", "--game", "chaser", "--preset", "smoke", "--run", str(tmp_path)]
    assert cli.main([*words, "--vae.moving_weight", "0.5", "--vae.free_nats", "0", "--vae.width", "1"]) == 0
    rows = [row for row in read_metrics(tmp_path / "vae" / "metrics.jsonl") if "train_loss" in row]
    assert len(rows) == 4
    for row in rows:
        plain = row["train_reconstruction"] + row["train_kl"]
        assert row["train_loss"] > 1.02 * plain  # what moves counts more, and in Chaser something always does


def test_generated_frames_have_no_neighbours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_vae", "--game", "carracing", "--preset", "smoke", "--run", str(tmp_path / "run")]
    assert cli.main([*words, "--vae.frames", "generated", "--vae.moving_weight", "0.5"]) == 2
    assert "--vae.moving_weight 0.5: what moves in generated frames is not known" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
