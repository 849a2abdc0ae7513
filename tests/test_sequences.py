"""Windows of M: what they may and may not contain."""

import numpy as np
import pytest

from wm_jax import streams
from wm_jax.data.sequences import FlatLatents, Lanes, SequenceBatches, random_windows
from wm_jax.errors import UserError

STEPS = np.array([7, 1, 20, 12])
OFFSETS = np.concatenate([[0], np.cumsum(STEPS + 1)])
EPISODE = np.repeat(np.arange(len(STEPS)), STEPS + 1)


def latents() -> FlatLatents:
    """Every number tells where it stands."""
    count = OFFSETS[-1]
    place = np.arange(count, dtype=np.float32)
    return FlatLatents(place[:, None], place[:, None] + 0.5, place[:, None], place, place * 0, OFFSETS)


def test_random_windows_stay_inside_episodes() -> None:
    places = random_windows(OFFSETS, 10, 500, streams.generator(0, "test"))
    now, following = places.frames[:-1], places.frames[1:]
    assert (EPISODE[now] == EPISODE[places.frames[0]][None, :]).all()
    assert (following[places.mask] == now[places.mask] + 1).all()
    assert (following[~places.mask] == now[~places.mask]).all()
    assert places.first[0].all() and not places.first[1:].any()


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
        assert (following[places.mask] == now[places.mask] + 1).all()
        assert (EPISODE[following[places.mask]] == EPISODE[now[places.mask]]).all()
        seen.append(now[places.mask])
        firsts.append(now[places.first])
    visited = np.concatenate(seen)
    assert len(np.unique(visited)) == len(visited)
    # Each lane's last frame has no successor in the lane, and the remainder of the division is left out.
    assert len(visited) >= STEPS.sum() - batch - OFFSETS[-1] % batch
    begun = set(OFFSETS[:-1]) & set(visited)
    assert begun <= set(np.concatenate(firsts)) and len(begun) >= len(STEPS) - 1


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
    places = batches.places(0)
    batch = batches.fetch(batches.data, places)
    assert batch.mean.shape == (5, 3, 1) and batch.action.shape == (4, 3, 1)
    np.testing.assert_array_equal(batch.action[..., 0], batch.mean[:-1, :, 0])
    np.testing.assert_array_equal(batch.reward, places.frames[:-1])


def test_more_lanes_than_frames_are_refused() -> None:
    with pytest.raises(UserError, match=r"--memory.batch 23: .* 44 in all; lower it"):
        Lanes(OFFSETS, 4, 23, seed=0)
    assert Lanes(OFFSETS, 4, 22, seed=0).window(0).mask.any()
