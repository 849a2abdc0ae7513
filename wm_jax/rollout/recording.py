"""Recording what is played: a policy that remembers every frame that it is shown and what it did about it.

For the replays (`stages/collect.py`) and for looking at the games of an agent (`evaluation/inspection.py`).
"""

from collections.abc import Callable

import numpy as np

from wm_jax.data.windows import EpisodeRecorder
from wm_jax.envs.types import Step
from wm_jax.rollout.types import Policy


class Recorder:
    """A policy around another one, and the watch of the same call of `play`.

    Args:
      policy: acts.
      episodes: how many are played.
      window, most: see `EpisodeRecorder`.
      stepped: is told how many steps were played, after each.
      ended: is told how many frames are kept of an episode, and how many steps it had, at its end.

    Attributes:
      recordings: one for each episode.
    """

    def __init__(
        self,
        policy: Policy,
        episodes: int,
        window: int,
        most: int,
        *,
        stepped: Callable[[int], None] = lambda _: None,
        ended: Callable[[int, int], None] = lambda _, __: None,
    ):
        self._policy, self._stepped, self._ended = policy, stepped, ended
        self._playing: dict[int, EpisodeRecorder] = {}
        self._sizes = window, most
        self.recordings = [EpisodeRecorder(window, most) for _ in range(episodes)]

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """See `Policy`: remember who plays what."""
        self._policy.start(slots, episodes)
        for slot, episode in zip(slots.tolist(), episodes.tolist(), strict=True):
            # Anew, since one that was lost with its process is played again.
            self._playing[slot] = self.recordings[episode] = EpisodeRecorder(*self._sizes)

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """See `Policy`: remember the frames and the actions."""
        actions = self._policy.act(ids, frames)
        for slot, frame, action in zip(ids.tolist(), frames, actions, strict=True):
            self._playing[slot].act(frame, action)
        return actions

    def watch(self, step: Step, done: np.ndarray) -> None:
        """See `types.Watch`: remember what the actions led to."""
        self._stepped(len(done))
        for i, slot in enumerate(step.ids.tolist()):
            ended, recording = bool(done[i]), self._playing[slot]
            flags = bool(step.terminated[i]), bool(step.truncated[i])
            recording.step(step.frames[i], float(step.reward[i]), *flags, done=ended)
            if ended:
                self._ended(recording.frames, recording.length)
