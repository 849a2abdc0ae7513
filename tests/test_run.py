"""A run's folder: what made what, what does not fit, and what a damaged checkpoint does."""

import os
from pathlib import Path

import numpy as np
import pytest

from wm_jax import streams
from wm_jax.checkpoints import Checkpoints
from wm_jax.errors import UserError
from wm_jax.metrics import Metrics, clock, read_metrics
from wm_jax.run import Run


def test_going_on_with_other_settings_names_both(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock():
        stage.claim({"beta": 1.0, "size": (1, 2)}, {"replays": "abc"}, {})
        stage.claim({"beta": 1.0, "size": (1, 2)}, {"replays": "abc"}, {})
        with pytest.raises(UserError, match=r"made with --beta 1.0, but now it is 4.0.*--fresh"):
            stage.claim({"beta": 4.0, "size": (1, 2)}, {"replays": "abc"}, {})
        with pytest.raises(UserError, match=r"made with another replays \(abc\), but now it is xyz"):
            stage.claim({"beta": 1.0, "size": (1, 2)}, {"replays": "xyz"}, {})


def test_fresh_moves_aside_and_loses_nothing(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock():
        (stage.path / "precious").write_text("weights")
        with pytest.raises(UserError, match="being written"):
            stage.discard()
    first = stage.discard()
    with stage.lock():
        pass
    second = stage.discard()
    assert first is not None and second is not None and first != second
    assert (first / "precious").read_text() == "weights"
    assert stage.discard() is None


def test_a_stage_has_one_worker(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock(), pytest.raises(UserError, match=f"being written by process {os.getpid()}"), stage.lock():
        pass
    with stage.lock():
        pass


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    tree = {"w": np.random.default_rng(0).random(5000).astype(np.float32)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, tree, {"note": "first"})
    checkpoints.save(2, {"w": tree["w"] + 1}, {"note": "second"})
    checkpoints.close()
    files = [
        path for path in (tmp_path / "checkpoints" / "2").rglob("*") if path.is_file() and path.stat().st_size > 9000
    ]
    assert files, "the array's bytes are somewhere"
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = Checkpoints(tmp_path / "checkpoints").restore(tree)
    assert found is not None
    step, restored, about = found
    assert (step, about["note"]) == (1, "first")
    np.testing.assert_array_equal(restored["w"], tree["w"])


def test_training_goes_on_over_a_damaged_or_repeated_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"w": np.arange(5000, dtype=np.float32)})
    checkpoints.save(2, {"w": np.arange(5000, dtype=np.float32) + 1})
    # Stopped between a save and what comes after it: the same step is saved again.
    checkpoints.save(2, {"w": np.arange(5000, dtype=np.float32) + 2})
    found = Checkpoints(tmp_path / "checkpoints").restore({"w": np.zeros(5000, np.float32)})
    assert found is not None and found[0] == 2 and found[1]["w"][0] == 2
    for path in (tmp_path / "checkpoints" / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    again = Checkpoints(tmp_path / "checkpoints")
    found = again.restore({"w": np.zeros(5000, np.float32)})
    assert found is not None and found[0] == 1
    again.save(2, {"w": np.arange(5000, dtype=np.float32) + 3})
    found = Checkpoints(tmp_path / "checkpoints").restore({"w": np.zeros(5000, np.float32)})
    assert found is not None and found[1]["w"][0] == 3


def test_arrays_of_other_sizes_are_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"w": np.zeros(7, np.float32)})
    with pytest.raises(UserError, match="other sizes"):
        checkpoints.restore({"w": np.zeros(5, np.float32)})


def test_no_intact_checkpoint_is_an_error(tmp_path: Path) -> None:
    tree = {"w": np.zeros(10, np.float32)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(tree) is None
    checkpoints.save(1, tree)
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is intact"):
        Checkpoints(tmp_path / "checkpoints").restore(tree)


def test_torn_metrics_are_read_up_to_the_tear(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write(1, loss=0.5)
        metrics.write(2, loss=0.25)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    with Metrics(tmp_path, resume_at=1) as metrics:
        metrics.write(2, loss=0.125)
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 0.5), (2, 0.125)]


def test_streams_are_named_and_independent() -> None:
    assert streams.integer(0, "collect", 1) == streams.integer(0, "collect", 1)
    numbers = {streams.integer(seed, name, i) for seed in range(5) for name in ("a", "b") for i in range(50)}
    assert len(numbers) == 500
    assert streams.integer(0, "a", 11) != streams.integer(0, "a1", 1)
    np.testing.assert_array_equal(streams.generator(3, "x").random(4), streams.generator(3, "x").random(4))


def test_clock() -> None:
    assert [clock(s) for s in (3.2, 185, 7620)] == ["3s", "3m05s", "2h07m"]
