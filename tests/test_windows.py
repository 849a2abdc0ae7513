"""Recording: what is kept of an episode is what happened, lies all over it, and needs bounded memory."""

import numpy as np
import pytest

from wm_jax.data.windows import EpisodeRecorder

WINDOW, MOST = 5, 20


def record(length: int, window: int = WINDOW, most: int = MOST) -> tuple[EpisodeRecorder, int]:
    """A recorder that has seen an episode whose frames count the steps, and the most frames that it ever held."""
    recorder, held = EpisodeRecorder(window, most), 0
    for step in range(length):
        last = step == length - 1
        recorder.act(frame(step), np.int32(step % 7))
        recorder.step(frame(step + 1), float(step), last, False, done=last)
        held = max(held, recorder.frames)
    return recorder, held


def frame(step: int) -> np.ndarray:
    return np.full((64, 64, 3), (step % 251, step // 251, 0), np.uint8)


def test_a_short_episode_is_kept_whole():
    for length in (1, 4, 5, 6, 19, 20):
        recorder, _ = record(length)
        (episode,) = recorder.episodes(seed=3)
        assert episode.whole is None and episode.seed == 3
        np.testing.assert_array_equal(episode.frames, np.stack([frame(i) for i in range(length + 1)]))
        np.testing.assert_array_equal(episode.actions, np.arange(length) % 7)
        np.testing.assert_array_equal(episode.rewards, np.arange(length, dtype=np.float32))
        assert episode.terminated.tolist() == [False] * (length - 1) + [True] and not episode.truncated.any()


@pytest.mark.parametrize("length", [26, 39, 41, 100, 333, 1000])
def test_of_a_long_episode_windows_are_kept_that_lie_all_over_it(length):
    recorder, held = record(length)
    found = list(recorder.episodes(seed=0))
    steps = [len(episode.rewards) for episode in found]
    # At most K windows beside the end and the window before it, and never more in memory.
    assert sum(steps) <= MOST + 2 * WINDOW and held <= MOST + 3 * WINDOW + 9
    reached = 0
    for episode in found:
        whole, count = episode.whole, len(episode.rewards)
        assert whole is not None and (whole.steps, whole.score) == (length, length * (length - 1) / 2)
        places = np.arange(whole.begin, whole.begin + count)
        np.testing.assert_array_equal(episode.frames, np.stack([frame(i) for i in [*places, whole.begin + count]]))
        np.testing.assert_array_equal(episode.rewards, places)
        np.testing.assert_array_equal(episode.actions, places % 7)
        # Nothing that is left out is longer than a fair share of the episode.
        assert 0 <= whole.begin - reached <= 2 * length / (MOST // WINDOW)
        reached = whole.begin + count
    assert found[0].whole.begin == 0 and reached == length
    assert len(found[-1].rewards) >= WINDOW  # what led to the end
    assert [bool(episode.terminated[-1]) for episode in found] == [False] * (len(found) - 1) + [True]


def test_one_window_is_the_least():
    recorder, _ = record(50, window=10, most=1)
    assert [(e.whole.begin, len(e.rewards)) for e in recorder.episodes(0)] == [(0, 1), (48, 2)]
    recorder, _ = record(50, window=10, most=19)
    assert [(e.whole.begin, len(e.rewards)) for e in recorder.episodes(0)] == [(0, 10), (30, 20)]
