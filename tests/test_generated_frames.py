"""Frames that are driven while V trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.config.schema import EnvConfig
from wm_jax.envs.car_racing.game import CarRacingGame
from wm_jax.envs.device import start_all, step_all
from wm_jax.envs.games import find
from wm_jax.training import generated_frames
from wm_jax.training.generated_frames import GeneratedFrames
from wm_jax.utils.errors import UsageError


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(generated_frames, "EPISODES", 4)


def source(seed: int = 0, batch: int = 8, steps: int = 20, random_start: bool = False) -> GeneratedFrames:
    """Blocks of 40 frames: 5 updates of 8."""
    actions = find("carracing", EnvConfig(backend="device")).actions
    game = CarRacingGame(random_start, endless=True)
    return GeneratedFrames(game, actions, batch, seed, steps=steps, policy="brownian", hold=8.0)


def test_a_step_sees_the_same_wherever_training_was_resumed():
    whole = np.asarray(source().references(3, 6, 6))
    assert whole.shape == (6, 8, 64, 64, 3) and whole.dtype == np.uint8
    late = source()
    pieces = [np.asarray(late.references(at, count, 4)) for at, count in ((3, 1), (4, 2), (6, 3))]
    assert all(len(piece) == 4 for piece in pieces)
    np.testing.assert_array_equal(
        np.concatenate([piece[:n] for piece, n in zip(pieces, (1, 2, 3), strict=True)]), whole
    )
    assert (np.asarray(source(seed=1).references(3, 1, 1)) != whole[:1]).any()


def test_every_frame_of_a_block_is_seen_once_and_blocks_differ():
    frames = np.asarray(source().references(0, 10, 10))
    first, second = (half.reshape(40, -1) for half in (frames[:5], frames[5:]))
    assert len(np.unique(first, axis=0)) == 40
    assert not {row.tobytes() for row in first} & {row.tobytes() for row in second}


def test_a_batch_that_no_block_can_fill_is_refused():
    with pytest.raises(UsageError, match=r"vae.batch 41.*40 frames"):
        source(batch=41)


def test_blocks_are_driven_by_one_program(caplog):
    """Compiled for each block, a long training would end with the process's memory maps."""
    frames = source()
    frames.references(0, 1, 1)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        frames.references(5, 1, 1)
        frames.references(10, 1, 1)
    assert [line for line in caplog.messages if "Compiling" in line and ("draw" in line or "_play" in line)] == []


def test_they_begin_anywhere_if_asked_to():
    assert (np.asarray(source(random_start=True).references(0, 5, 5)) != np.asarray(source().references(0, 5, 5))).any()


def test_the_first_frame_is_kept_and_then_every_second():
    game, plans = CarRacingGame(endless=True), jnp.full((4, 20, 3), 0.5)  # as in `source`: one program for both
    params, step = game.params_for(range(4)), jax.jit(step_all, static_argnums=0)
    kept = np.asarray(generated_frames._play(game, params, plans)).reshape(10, 4, 64, 64, 3)[:3]
    frames, states = start_all(game, params, jnp.arange(4, dtype=jnp.int32))
    expected = [frames]
    for i in range(4):
        frames, states, _, _ = step(game, params, states, plans[:, i])
        expected += [frames] if i % 2 else []
    np.testing.assert_allclose(kept.astype(int), np.asarray(expected, int), atol=1)
