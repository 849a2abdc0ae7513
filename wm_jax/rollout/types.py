"""Who plays episodes, by which limits, and what comes of them, wherever that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wm_jax.envs.types import Step

Watch = Callable[[Step, np.ndarray], None]
"""Is shown every `Step` with the finished flags bool[B] (first frames are not steps, nor is the loss of an episode)."""


class Policy(Protocol):
    """Something that acts for many episodes at once."""

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """From now on slots[i] plays episode `episodes[i]` (a position in the list of seeds), from its beginning."""
        ...

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Actions for the slots int32[B] that show frames uint8 [B, 64, 64, 3]."""
        ...


@dataclass(frozen=True)
class EpisodeLimits:
    """When episodes end that the game does not end before.

    steps: after so many (0: never).
    patience: after so many without a positive reward (0: never).
    """

    steps: int = 0
    patience: int = 0


@dataclass(frozen=True)
class EpisodeStats:
    """What came of N episodes.

    returns: float64[N], undiscounted sums of rewards.
    lengths: int64[N], steps.
    seconds: that all of it took.
    acting: seconds of them in the policy; 0 where environments and network are one program.
    waiting: seconds of them in which only the environments were at work; 0 likewise.
    """

    returns: np.ndarray
    lengths: np.ndarray
    seconds: float
    acting: float = 0.0
    waiting: float = 0.0

    @staticmethod
    def concatenate(shares: "Sequence[EpisodeStats]") -> "EpisodeStats":
        """Shares of the episodes, in order, that were played at the same time: as long as the longest."""
        returns, lengths = (np.concatenate([getattr(each, name) for each in shares]) for name in ("returns", "lengths"))
        times = (max(getattr(share, name) for share in shares) for name in ("seconds", "acting", "waiting"))
        return EpisodeStats(returns, lengths, *times)

    def figures(self) -> dict[str, float]:
        """How fast it went, and what it waited for: where acting takes nearly all the time, the network is the limit.

        On a CPU both work on the same cores, and each is slower for the other.
        """
        steps = int(self.lengths.sum())
        rate = steps / self.seconds if self.seconds else 0.0  # of no episodes
        figures: dict[str, float] = {"environment_steps": steps, "steps_per_second": round(rate, 1)}
        if self.acting:
            figures["network_share"] = round(self.acting / self.seconds, 3)
            figures["environments_share"] = round(self.waiting / self.seconds, 3)
        return figures
