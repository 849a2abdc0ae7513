"""Windows of M: what they may and may not contain."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from wm_jax.config.schema import Config, DataConfig, MemoryConfig
from wm_jax.data.sequences import FlatLatents, Lanes, SequenceBatches, StreamedSequences, random_windows
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.models.memory import gradient_of
from wm_jax.run.artifacts import init_memory
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.stages import train_memory
from wm_jax.training.loop import Schedule, fit
from wm_jax.training.task import Task
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

STEPS = np.array([7, 1, 20, 12])
OFFSETS = np.concatenate([[0], np.cumsum(STEPS + 1)])
EPISODE = np.repeat(np.arange(len(STEPS)), STEPS + 1)


def latents() -> FlatLatents:
    """Every number tells where it stands."""
    count = OFFSETS[-1]
    place = np.arange(count, dtype=np.float32)
    return FlatLatents(Gaussian(place[:, None], place[:, None] + 0.5), place[:, None], place, place * 0, OFFSETS)


def test_random_windows_stay_inside_episodes() -> None:
    places = random_windows(OFFSETS, 10, 500, streams.generator(0, "test"))
    now, following = places.frames[:-1], places.frames[1:]
    assert (EPISODE[now] == EPISODE[places.frames[0]][None, :]).all()
    assert (following[places.weight > 0] == now[places.weight > 0] + 1).all()
    assert (following[places.weight == 0] == now[places.weight == 0]).all()
    assert places.is_first[0].all() and not places.is_first[1:].any()


def test_random_windows_reach_every_step_about_equally_often_per_episode_length() -> None:
    places = random_windows(OFFSETS, 1, 40_000, streams.generator(0, "test"))
    counts = np.bincount(places.frames[0], minlength=OFFSETS[-1])
    lasts = OFFSETS[1:] - 1
    assert (counts[lasts] == 0).all()
    others = np.delete(counts, lasts)
    np.testing.assert_allclose(others, 40_000 / STEPS.sum(), rtol=0.2)


@pytest.mark.parametrize("batch", [1, 3])
def test_lanes_visit_every_step_once_and_zero_the_state_at_every_episode(batch: int) -> None:
    lanes = Lanes(OFFSETS, 5, batch, seed=0)
    windows = -(-(OFFSETS[-1] // batch - 1) // 5)
    seen, firsts = [], []
    for window in range(windows):
        places = lanes.window(window)
        now, following = places.frames[:-1], places.frames[1:]
        assert (following[places.weight > 0] == now[places.weight > 0] + 1).all()
        assert (EPISODE[following[places.weight > 0]] == EPISODE[now[places.weight > 0]]).all()
        seen.append(now[places.weight > 0])
        firsts.append(now[places.is_first])
    visited = np.concatenate(seen)
    assert len(np.unique(visited)) == len(visited)
    # Each lane's last frame has no successor in the lane, and the remainder of the division is left out.
    assert len(visited) >= STEPS.sum() - batch - OFFSETS[-1] % batch
    begun = set(OFFSETS[:-1]) & set(visited)
    assert begun <= set(np.concatenate(firsts)) and len(begun) >= len(STEPS) - 1


@pytest.mark.parametrize("steps", [(200,), (30, 200), (5, 20, 21, 50), (3, 1)])
def test_every_step_counts_alike(steps: tuple[int, ...]) -> None:
    """A last one tells of an end, a first one how a dream begins; short games are those that ended early."""
    length, offsets = 20, np.concatenate([[0], np.cumsum(np.array(steps) + 1)])
    places = random_windows(offsets, length, 200_000, streams.generator(0, "test"))
    counts = np.bincount(places.frames[:-1].ravel(), places.weight.ravel(), minlength=offsets[-1])
    real = np.delete(counts, offsets[1:] - 1)
    np.testing.assert_allclose(real, real.mean(), rtol=0.06)
    assert counts.sum() == pytest.approx(real.sum()) and places.weight.max() == 1.0


def test_lanes_continue_where_they_ended() -> None:
    lanes = Lanes(OFFSETS, 5, 2, seed=1)
    first, second = lanes.window(0), lanes.window(1)
    np.testing.assert_array_equal(first.frames[-1], second.frames[0])


def test_batches_depend_on_the_step_alone() -> None:
    for carried in (False, True):
        one, two = (SequenceBatches(latents(), 4, 3, seed=5, carried=carried) for _ in range(2))
        together = two.references(0, 6, 6)
        for step in (5, 2, 0):
            alone = one.references(step, 1, 1)
            for a, b in zip(alone, together, strict=True):
                np.testing.assert_array_equal(a[0], b[step])


def test_fetch_pairs_each_frame_with_its_action_and_its_successor() -> None:
    batches = SequenceBatches(latents(), 4, 3, seed=5, carried=False)
    places = batches.windows.places(0)
    batch = batches.fetch(batches.data, places)
    assert batch.latent.mean.shape == (5, 3, 1) and batch.action.shape == (4, 3, 1)
    np.testing.assert_array_equal(batch.action[..., 0], batch.latent.mean[:-1, :, 0])
    np.testing.assert_array_equal(batch.reward, places.frames[:-1])


@pytest.mark.parametrize("carried", [False, True])
def test_streamed_windows_are_the_resident_ones(carried: bool) -> None:
    schedule = Schedule(steps=9, per_dispatch=4, save_every=6, report_every=100)
    resident = SequenceBatches(latents(), 4, 3, seed=5, carried=carried)
    streamed = StreamedSequences(latents(), 4, 3, seed=5, carried=carried, following=schedule.next_stop)
    assert not jax.tree.leaves(streamed.data), "nothing stays on the device"
    for step, count in ((0, 4), (4, 2), (6, 2), (8, 1), (3, 1)):
        a, b = resident.references(step, count, 4), streamed.references(step, count, 4)
        assert all(leaf.shape[0] == 4 and leaf.shape[streamed.batch_axis] == 3 for leaf in jax.tree.leaves(b))
        for i in range(count):
            one = resident.fetch(resident.data, jax.tree.map(lambda leaf, i=i: leaf[i], a))
            other = streamed.fetch((), jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), b))
            assert jax.tree.structure(one) == jax.tree.structure(other)
            for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)
    streamed.close()


@pytest.mark.parametrize("carried", [False, True])
def test_latents_beyond_the_budget_are_streamed_and_m_learns_the_same(carried: bool, tmp_path: Path) -> None:
    memory = MemoryConfig(hidden=4, mixtures=2, sequence=4, batch=3, carry_state=carried, steps=5, steps_per_dispatch=2)
    trained, reported = [], []
    for budget, kind in ((1e-5, SequenceBatches), (1e-6, StreamedSequences)):
        config = Config(game="enduro", data=DataConfig(device_budget_gb=budget), memory=memory)
        batches, held_out = train_memory._batches(config, latents(), latents(), seed=5)
        assert type(batches) is type(held_out) is kind
        graphdef, params = init_memory(memory, LatentKind(1), 1, seed=0)
        report = train_memory._reporter(graphdef, held_out, memory.batch)
        stage = Run(tmp_path / kind.__name__).stage("memory")
        with stage.lock():
            found, figures = fit(
                Task.single(gradient_of(graphdef, carried), optax.sgd(1e-3), batches),
                params,
                nnx.merge(graphdef, params).init_carry(memory.batch),
                schedule=Schedule.of(memory),
                stage=stage,
                seed=5,
                stop=Stop(),
                report=report,
            )
        trained.append(found)
        reported.append(figures["test_nll"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *trained)
    assert reported[0] == pytest.approx(reported[1], rel=1e-5)


def test_more_lanes_than_frames_are_refused() -> None:
    with pytest.raises(UserError, match=r"memory.batch 23: .* 44 in all; lower it"):
        Lanes(OFFSETS, 4, 23, seed=0)
    assert Lanes(OFFSETS, 4, 22, seed=0).window(0).weight.any()
