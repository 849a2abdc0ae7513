"""Recording one episode while it is played, in bounded memory: all of a short one, windows of a long one.

How long an episode will be is not known while it is played. It is cut into windows of W steps. Once more than K of
them are kept, every second one is dropped, and from then on only every second (fourth, eighth, ...) new one is kept.
What is left in the end is spread evenly over the whole episode, whatever its length: between K / 2 and K windows. The
end of the episode is kept in any case, with at least one window before it: what ends a game is rare and matters.
"""

from collections.abc import Iterator

import numpy as np

from wm_jax.data.episodes import Episode, Whole


class _Window:
    """Consecutive steps; `frames` holds one frame more than there are steps once the window is closed."""

    def __init__(self, index: int):
        self.index = index
        self.frames: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.steps: list[tuple[float, bool, bool]] = []

    def __len__(self) -> int:
        return len(self.steps)


class EpisodeRecorder:
    """What is kept of one episode.

    Args:
      window: W, steps of a window; not more than `most`.
      most: steps that are kept of the episode, its end not counted: K = most // W windows, at least one.
    """

    def __init__(self, window: int, most: int):
        self._window = min(window, most)
        self._most = most // self._window
        self._stride = 1
        self._kept: list[_Window] = []
        self._before: _Window | None = None
        self._now = _Window(0)
        self._length, self._score = 0, 0.0

    def act(self, frame: np.ndarray, action: np.ndarray) -> None:
        """A frame uint8 [64, 64, 3], and the action that was taken at it."""
        self._now.frames.append(frame.copy())
        self._now.actions.append(action)

    def step(self, frame: np.ndarray, reward: float, terminated: bool, truncated: bool, *, done: bool) -> None:
        """What the action led to; `done`: the episode is over."""
        self._now.steps.append((reward, terminated, truncated))
        if done or len(self._now) == self._window:
            self._now.frames.append(frame.copy())
            self._close(done)

    def episodes(self, seed: int) -> Iterator[Episode]:
        """What was kept of the episode, which is over: neighbouring windows as one."""
        run: list[_Window] = []
        for window in self._kept:
            if run and window.index != run[-1].index + 1:
                yield self._joined(run, seed)
                run = []
            run.append(window)
        yield self._joined(run, seed)
        self._kept = []

    @property
    def length(self) -> int:
        """Steps of the windows that are over, kept or not; of an episode that is over, all."""
        return self._length

    @property
    def frames(self) -> int:
        """Frames that are kept so far."""
        return sum(len(window.frames) for window in self._kept)

    def _close(self, done: bool) -> None:
        window, before = self._now, self._before
        self._length += len(window)
        self._score += sum(reward for reward, _, _ in window.steps)
        if window.index % self._stride == 0 or done:
            # The end alone may be a step or two: then nothing would be seen of what led there.
            if done and before is not None and (not self._kept or self._kept[-1] is not before):
                self._kept.append(before)
            self._kept.append(window)
        while not done and len(self._kept) > self._most:
            self._stride *= 2
            self._kept = [kept for kept in self._kept if kept.index % self._stride == 0]
        self._before, self._now = window, _Window(window.index + 1)

    def _joined(self, run: list[_Window], seed: int) -> Episode:
        rewards, terminated, truncated = zip(*(step for window in run for step in window.steps), strict=True)
        # Each window but the last ends with the frame that the next one begins with.
        frames = [frame for window in run[:-1] for frame in window.frames[:-1]] + run[-1].frames
        begin = run[0].index * self._window
        return Episode(
            frames=np.stack(frames),
            actions=np.stack([action for window in run for action in window.actions]),
            rewards=np.array(rewards, np.float32),
            terminated=np.array(terminated),
            truncated=np.array(truncated),
            seed=seed,
            whole=None if len(rewards) == self._length else Whole(begin, self._length, self._score),
        )
