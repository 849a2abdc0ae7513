"""The training loop: exact resume, NaN stop, streamed and resident frames alike."""

import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wm_jax.data.frames import ResidentFrames, Shuffle, StreamedFrames
from wm_jax.distributed.mesh import open_mesh
from wm_jax.run.folder import Run, Stage
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.metrics import read_metrics
from wm_jax.training import dispatch
from wm_jax.training.dispatch import compile_dispatch, lay_out, one_by_one
from wm_jax.training.loop import Schedule, fit
from wm_jax.training.task import Task, TrainState
from wm_jax.utils.errors import UserError

FRAMES = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), dtype=np.uint8)


def gradient(params: Any, batch: jax.Array, carry: jax.Array, key: jax.Array, step: Any) -> tuple[Any, Any, Any, Any]:
    """A linear auto-encoder with noise, so that batches, keys and the carry all matter."""

    def loss(weights: jax.Array) -> jax.Array:
        x = batch.reshape(batch.shape[0], -1)[:, :64].astype(jnp.float32) / 255
        noise = jax.random.normal(key, x.shape) * 0.1
        return jnp.mean((jnp.tanh((x + noise) @ weights) @ weights.T - x) ** 2)

    value, gradients = jax.value_and_grad(loss)(params)
    return {"loss": value}, carry + value, gradients, None


def task() -> Task:
    """A fresh task over the same data."""
    return Task.single(gradient, optax.adam(1e-2), ResidentFrames(FRAMES, 8, seed=3))


def stage(path: Path) -> Stage:
    """A stage folder."""
    run = Run(path)
    (path / "vae").mkdir(parents=True)
    return run.stage("vae")


def convolution_gradient(params: Any, batch: jax.Array, carry: Any, key: jax.Array, step: Any) -> tuple[Any, ...]:
    """One convolution by XLA that learns to return its image, with noise."""

    def loss(weights: jax.Array) -> jax.Array:
        x = batch[:, :8, :8].astype(jnp.float32) / 255
        y = jax.lax.conv_general_dilated(x, weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean((y - x - jax.random.normal(key, x.shape)) ** 2)

    value, gradients = jax.value_and_grad(loss)(params)
    return {"loss": value}, carry, gradients, None


class StopAt(Stop):
    """Asks to stop when it is looked at for the n-th time, which training does once per dispatch."""

    def __init__(self, looks: int):
        self.looks = looks

    @property
    def requested(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.looks -= 1
        return self.looks <= 0


def train(folder: Stage, steps: int, stop: Stop | None = None) -> tuple[np.ndarray, dict[str, float]]:
    """Train `steps` in dispatches of 4."""
    params = jax.random.normal(jax.random.key(1), (64, 4)) * 0.1
    trained, figures = fit(
        task(),
        params,
        jnp.float32(0),
        schedule=Schedule(steps, per_dispatch=4, save_every=6, report_every=10),
        stage=folder,
        seed=7,
        stop=stop or Stop(),
        report=lambda params, step: {"test_norm": float(jnp.sum(params**2))},
    )
    return np.asarray(trained), figures


def test_resume_is_exact_bit_for_bit(tmp_path: Path) -> None:
    whole, _ = train(stage(tmp_path / "whole"), 23)
    broken = stage(tmp_path / "broken")
    # Stopped twice at odd places, and once at its end, then extended.
    with pytest.raises(Interrupted):
        train(broken, 23, StopAt(2))
    assert broken.checkpoints.steps()[-1] not in (0, 23)
    with pytest.raises(Interrupted):
        train(broken, 23, StopAt(1))
    train(broken, 17)
    resumed, _ = train(broken, 23)
    np.testing.assert_array_equal(whole, resumed)


def test_what_was_stopped_at_its_new_end_is_reported(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    with pytest.raises(Interrupted):
        train(folder, 23, StopAt(2))
    (step,) = folder.checkpoints.steps()
    assert 0 < step < 10, "before the first report"
    trained, figures = train(folder, step)
    assert figures["test_norm"] == float(jnp.sum(jnp.asarray(trained) ** 2))


def test_metrics_are_continued_without_gaps_or_repeats(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    with pytest.raises(Interrupted):
        train(folder, 23, StopAt(3))
    train(folder, 23)
    steps = [row["step"] for row in read_metrics(folder.path / "metrics.jsonl") if "train_loss" in row]
    assert steps == sorted(set(steps)) and steps[-1] == 23


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    good, _ = train(folder, 12)

    def broken(params: Any, batch: Any, carry: Any, key: jax.Array, step: Any) -> tuple[Any, Any, Any, Any]:
        metrics, carry, gradients, others = gradient(params, batch, carry, key, step)
        return {"loss": metrics["loss"] * jnp.float32(jnp.nan)}, carry, gradients * jnp.float32(jnp.nan), others

    with pytest.raises(UserError, match="stopped being finite before step 16; step 12 is kept"):
        fit(
            Task.single(broken, optax.adam(1e-2), ResidentFrames(FRAMES, 8, seed=3)),
            jnp.zeros((64, 4)),
            jnp.float32(0),
            schedule=Schedule(40, 4, 6, 10),
            stage=folder,
            seed=7,
            stop=Stop(),
            report=lambda params, step: {},
        )
    kept, _ = train(folder, 12)
    np.testing.assert_array_equal(good, kept)


def test_what_the_caller_gave_stays_whole(tmp_path: Path) -> None:
    """Dispatches give up their own state alone; and one array may stand for two parts of it."""
    params, zero = jax.random.normal(jax.random.key(1), (64, 4)) * 0.1, jnp.float32(0)
    before = np.array(params)
    for turn in ("first", "second"):
        trained, _ = fit(
            task(),
            params,
            zero,
            schedule=Schedule(4, 4, 4, 4),
            stage=stage(tmp_path / turn),
            seed=7,
            stop=Stop(),
            report=lambda params, step: {},
        )
        assert not params.is_deleted() and not zero.is_deleted()
        assert (np.asarray(trained) != before).any()
    np.testing.assert_array_equal(params, before)


def test_streamed_frames_are_the_resident_ones() -> None:
    resident = ResidentFrames(FRAMES, 8, seed=3)
    reads = []

    def read(indices: np.ndarray) -> np.ndarray:
        reads.append(len(indices))
        return FRAMES[indices]

    schedule = Schedule(steps=11, per_dispatch=4, save_every=6, report_every=100)
    streamed = StreamedFrames(read, len(FRAMES), 8, seed=3, following=schedule.next_stop)
    for step, count in ((0, 4), (4, 2), (6, 2), (8, 3), (3, 1)):
        a, b = resident.references(step, count, 4), streamed.references(step, count, 4)
        for i in range(count):
            np.testing.assert_array_equal(resident.fetch(resident.data, a[i]), streamed.fetch((), b[i]))
    # Every dispatch of the schedule was read once, ahead of it; the last one here was not foreseen.
    assert reads[:5] == [32, 16, 16, 24, 8]


def test_every_epoch_shows_every_frame_once() -> None:
    shuffle = Shuffle(50, seed=0)
    first, second = shuffle.items(0, 50), shuffle.items(50, 100)
    assert sorted(first) == sorted(second) == list(range(50))
    assert (first != second).any()
    np.testing.assert_array_equal(shuffle.items(45, 60), np.concatenate([first, second])[45:60])


def test_an_epoch_asked_for_by_another_thread_changes_nothing() -> None:
    """The other one asks at the worst moment: when this one has noted its epochs."""

    class Disturbed(Shuffle):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "_epochs" and self.__dict__.pop("other", False):
                self.items(1000, 1001)

    disturbed = Disturbed(50, seed=0)
    disturbed.other = True
    np.testing.assert_array_equal(disturbed.items(45, 60), Shuffle(50, seed=0).items(45, 60))


def broken_from(place: int) -> StreamedFrames:
    """Frames of which those of dispatches other than the first can't be read."""
    reads = []

    def read(indices: np.ndarray) -> np.ndarray:
        reads.append(len(indices))
        if len(reads) > place:
            raise UserError("shard 3 is damaged")
        return FRAMES[indices]

    return StreamedFrames(read, len(FRAMES), 8, seed=3, following=Schedule(40, 4, 40, 40).next_stop)


@pytest.mark.parametrize("step", [4, 3])
def test_what_goes_wrong_in_reading_ahead_is_raised_wherever_one_goes_on(step: int) -> None:
    frames = broken_from(1)
    frames.references(0, 4, 4)
    with pytest.raises(UserError, match="shard 3 is damaged"):
        frames.references(step, 4, 4)
    frames.close()


def test_what_goes_wrong_after_the_last_batch_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    frames = broken_from(1)
    frames.references(0, 4, 4)
    frames.close()
    assert "reading ahead, for step 4: shard 3 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of", "params", "calls"), [(gradient, jnp.ones((64, 4)), 0), (convolution_gradient, jnp.ones((3, 3, 3, 3)), 1)]
)
def test_on_a_cpu_no_convolution_by_xla_lies_in_a_loop(
    of: Any, params: jax.Array, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # XLA:CPU takes a hundred times as long there.
    chosen: list[Any] = []
    monkeypatch.setattr(dispatch, "one_by_one", lambda *arguments: chosen.append(arguments) or one_by_one(*arguments))
    job = Task.single(of, optax.adam(1e-2), ResidentFrames(FRAMES, 8, seed=3))
    references = job.batches.references(4, 3, 3)
    arguments = job.batches.data, references, 4, 3, jax.random.key(0)

    def start() -> TrainState:
        return job.start(params.copy(), jnp.float32(0))  # it is given away

    state, data, run_updates = lay_out(job, start(), open_mesh(1, 8, ""))
    state, sums = run_updates(state, data, *arguments[1:])
    assert len(chosen) == calls
    # Either way, the updates are those of one program.
    expected, their_sums = compile_dispatch(job)(start(), *arguments)
    np.testing.assert_allclose(state.params, expected.params, rtol=1e-5)
    np.testing.assert_allclose(sums["loss"], their_sums["loss"], rtol=1e-5)


def test_training_ends_its_reader(tmp_path: Path) -> None:
    def readers() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("ahead")}

    before = readers()
    frames = StreamedFrames(FRAMES.__getitem__, len(FRAMES), 8, seed=3, following=Schedule(40, 4, 40, 40).next_stop)
    with pytest.raises(Interrupted):
        fit(
            Task.single(gradient, optax.adam(1e-2), frames),
            jnp.zeros((64, 4)),
            jnp.float32(0),
            schedule=Schedule(40, 4, 40, 40),
            stage=stage(tmp_path),
            seed=7,
            stop=StopAt(1),
            report=lambda params, step: {},
        )
    assert readers() <= before
