"""What must hold for any input of the functions that cut, share and order things."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_jax.data.episodes import split_of
from wm_jax.data.frames import Shuffle
from wm_jax.data.reader import READ_FRAMES, _pieces
from wm_jax.data.sequences import Lanes, random_windows
from wm_jax.distributed import processes
from wm_jax.training.loop import Schedule
from wm_jax.utils import streams
from wm_jax.utils.arrays import padded_size

# The same examples everywhere, nothing on disk, and no clock: these machines are busy.
settings.register_profile("here", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("here")

EPISODES = st.lists(st.integers(1, 40), min_size=1, max_size=12)
"""Steps of each."""


def offsets_of(steps: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(steps) + 1)])


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 3000)), max_size=8))
def test_pieces_are_the_runs_in_order_and_none_is_too_long(runs: list[tuple[int, int]]) -> None:
    starts, lengths = np.array([run[0] for run in runs], np.int64), np.array([run[1] for run in runs], np.int64)
    read = np.full(int(lengths.sum()), -1)
    for place, first, count in _pieces(starts, lengths):
        assert 0 < count <= READ_FRAMES and (read[place : place + count] == -1).all()
        read[place : place + count] = np.arange(first, first + count)
    wanted = [np.arange(first, first + count) for first, count in runs]
    np.testing.assert_array_equal(read, np.concatenate([*wanted, np.zeros(0, int)]))


@given(EPISODES, st.integers(1, 30), st.integers(0, 2**31 - 1))
def test_windows_never_leave_their_episode(steps: list[int], length: int, seed: int) -> None:
    offsets = offsets_of(steps)
    places = random_windows(offsets, length, 7, np.random.default_rng(seed))
    episode = np.searchsorted(offsets, places.frames, side="right") - 1
    assert (episode == episode[0]).all()
    moves = np.diff(places.frames, axis=0)
    assert (moves[places.weight > 0] == 1).all() and (moves[places.weight == 0] == 0).all()
    whole = np.minimum(length, np.array(steps)[episode[0]])
    np.testing.assert_array_equal((places.weight > 0).sum(0), whole)


@given(EPISODES.filter(lambda steps: sum(steps) + len(steps) >= 8), st.integers(1, 9), st.integers(1, 4))
def test_lanes_see_no_step_twice_in_a_pass_and_begin_where_episodes_do(
    steps: list[int], length: int, batch: int
) -> None:
    offsets = offsets_of(steps)
    lanes = Lanes(offsets, length, batch, seed=3)
    seen: Counter[int] = Counter()
    for window in range(lanes.windows):
        places = lanes.window(window)
        assert (np.diff(places.frames, axis=0)[places.weight > 0] == 1).all()
        seen.update(places.frames[:-1][places.weight > 0].tolist())
        assert np.isin(offsets[:-1], places.frames[:-1]).any() or not places.is_first[1:].any()
    assert not seen or max(seen.values()) == 1
    assert not set(seen) & set((offsets[1:] - 1).tolist()), "an episode's last frame has no step"


@given(st.integers(1, 10**6))
def test_sizes_are_few_and_waste_little(count: int) -> None:
    size = padded_size(count)
    assert count <= size < (1.5 if count > 16 else 2) * count or size == 1
    assert padded_size(size) == size and padded_size(count + 1) >= size


@given(st.integers(1, 50), st.integers(0, 300), st.integers(1, 60), st.integers(0, 59))
def test_epochs_are_permutations_wherever_they_are_looked_at(count: int, start: int, length: int, cut: int) -> None:
    row = Shuffle(count, 5).items(0, start + length + 2 * count)
    for epoch in range(len(row) // count):
        assert sorted(row[epoch * count : (epoch + 1) * count]) == list(range(count))
    again = Shuffle(count, 5)
    middle = start + min(cut, length - 1) + 1
    parts = [again.items(start, middle), again.items(middle, start + length)] if middle < start + length else []
    found = np.concatenate(parts) if parts else again.items(start, start + length)
    np.testing.assert_array_equal(found, row[start : start + length])


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_shares_are_neighbours_of_nearly_one_size(items: int, count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "count", lambda: count)
        shares = []
        for index in range(count):
            patch.setattr(processes, "index", lambda index=index: index)
            shares.append(processes.share(items))
    assert shares[0].start == 0 and shares[-1].stop == items
    assert all(before.stop == after.start for before, after in itertools.pairwise(shares))
    sizes = {each.stop - each.start for each in shares}
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 499))
def test_dispatches_end_at_the_same_places_wherever_training_went_on(
    steps: int, dispatch: int, save: int, report: int, begun: int
) -> None:
    schedule = Schedule(steps, dispatch, save, report)

    def stops(step: int) -> list[int]:
        found = []
        while step < steps:
            following = schedule.next_stop(step)
            assert step < following <= min(step + dispatch, steps)
            found.append(step := following)
        return found

    whole = stops(0)
    assert set(range(save, steps, save)) | set(range(report, steps, report)) | {steps} <= set(whole)
    resumed = whole[begun % len(whole)]
    assert stops(resumed) == whole[begun % len(whole) + 1 :]


@given(st.floats(0.001, 0.5), st.integers(1, 2000))
def test_the_share_of_test_episodes_is_right_at_every_count(fraction: float, count: int) -> None:
    held_out = sum(split_of(episode, fraction) == "test" for episode in range(count))
    assert abs(held_out - count * fraction) < 1.000001 and split_of(0, fraction) == "test"


@given(st.integers(0, 2**63 - 1), st.text(max_size=8), st.integers(0, 10**9))
def test_streams_depend_on_every_name(seed: int, name: str, number: int) -> None:
    value = streams.integer(seed, name, number)
    assert value == streams.integer(seed, name, number) and 0 <= value < 2**31
    assert value != streams.integer(seed, name, number + 1) or value != streams.integer(seed, name + "x", number)
