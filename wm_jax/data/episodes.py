"""Episodes in memory, their records in the manifest, and the writer that turns them into one shard on disk.

Short episodes are recorded whole; of a long one windows are, spread over all of it (`windows.py`). Both are an
`Episode` here: a stretch of consecutive steps.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from wm_jax.data.shards import STEPS, FrameWriter, Steps, pack
from wm_jax.utils import files
from wm_jax.utils.files import Stamp
from wm_jax.utils.sizes import FRAME

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


def split_of(episode: int, test_fraction: float) -> Split:
    """Test episodes lie evenly among the others, the first episode being one."""
    return "test" if math.ceil((episode + 1) * test_fraction) > math.ceil(episode * test_fraction) else "train"


@dataclass(frozen=True)
class Whole:
    """The episode that a window was recorded from.

    begin: its steps before the window.
    steps: its length.
    score: the sum of all its rewards.
    """

    begin: int
    steps: int
    score: float


@dataclass(frozen=True)
class Episode:
    """T consecutive steps of a played episode.

    frames: uint8 [T + 1, 64, 64, 3]; the last one is what the last action led to.
    actions: int32 [T] (positions in the action names) or float32 [T, A].
    rewards: float32 [T].
    terminated, truncated: bool [T], as the game said: a window that ends amid the episode has neither at its end.
    seed: what the environment was reset with.
    whole: the episode that this is a window of (None: this is all of it).
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    seed: int
    whole: Whole | None = None

    def steps(self) -> Steps:
        """All of it but the frames."""
        return Steps(self.actions, self.rewards, self.terminated, self.truncated)


@dataclass(frozen=True)
class Record:
    """What the manifest says of one episode, or of one window of it.

    number: of the episode, its place among all that are collected; the store shows them in this order.
    shard: name of its shard.
    first: its first frame in the shard.
    first_step: its first step in the shard.
    start: its first frame in the store.
    steps: that are recorded here.
    seed, split, score: of the episode: its seed, "train" or "test", and the sum of all its rewards.
    begin: steps of the episode before the first one here.
    length: steps of the whole episode.
    """

    number: int
    shard: str
    first: int
    first_step: int
    start: int
    steps: int
    seed: int
    split: Split
    score: float
    begin: int
    length: int

    @property
    def frames(self) -> int:
        """One more than steps."""
        return self.steps + 1

    @property
    def whole(self) -> Whole | None:
        """The episode, if this is a window of it."""
        return None if self.steps == self.length else Whole(self.begin, self.length, self.score)

    def to_json(self) -> list[Any]:
        """For the manifest: windows say two things more."""
        window = [] if self.whole is None else [self.begin, self.length]
        return [self.number, self.first, self.steps, self.seed, self.split, self.score, *window]


@dataclass(frozen=True)
class Shard:
    """What the manifest says of one shard.

    frames: how many.
    stamps: SHA-256 and size of every file, by its path in the shard.
    player: who played its episodes, JSON-able: whoever plays a lost shard again has to be the same.
    records: its episodes.
    """

    name: str
    frames: int
    stamps: Mapping[str, Stamp]
    player: Mapping[str, Any]
    records: tuple[Record, ...]

    @property
    def digest(self) -> str:
        """Identity of its content."""
        return files.identity({name: stamp.sha256 for name, stamp in self.stamps.items()})

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        about = {"name": self.name, "frames": self.frames, "player": self.player}
        return {**about, "files": self.stamps, "episodes": [record.to_json() for record in self.records]}

    @staticmethod
    def from_json(entry: Mapping[str, Any], start: int) -> "Shard":
        """From the manifest.

        Args:
          entry: what `to_json` gave.
          start: number of the shard's first frame in the store.
        """
        stamps = {name: Stamp(*stamp) for name, stamp in entry["files"].items()}
        records, first_step = [], 0
        for number, first, steps, seed, split, score, *window in entry["episodes"]:
            begin, length = window or (0, steps)
            place = entry["name"], first, first_step, start + first
            records.append(Record(number, *place, steps, seed, split, score, begin, length))
            first_step += steps
        return Shard(entry["name"], entry["frames"], stamps, entry["player"], tuple(records))


class ShardWriter:
    """Writes episodes, one by one, into a temporary folder that `finish` renames.

    Args:
      folder, name: of the shard.
      action: see below.
      player: who plays the episodes.
      number: of the first episode, unless `add` says otherwise.

    Attributes:
      action: type and shape of one action, the same for all episodes: None until the first.
      records: of the episodes so far (their `start` counts from this shard's first frame).
    """

    def __init__(self, folder: Path, name: str, action: list[Any] | None, player: Mapping[str, Any], number: int):
        self.action = action
        self.records: list[Record] = []
        self._player, self._number = player, number
        self._target, self._temporary = folder / name, folder / f"{name}.tmp"
        self._frames: FrameWriter | None = None
        self._steps: list[Steps] = []
        self._step_count = 0

    def add(self, episode: Episode, split: Split, number: int | None = None) -> None:
        """Write one episode, or one window of it: `number`, or that after the one before.

        Raises:
          ValueError: arrays of wrong shapes or types, or numbers that are not finite.
        """
        self._check(episode, split)
        if self._frames is None:
            self._temporary.mkdir(parents=True)
            self._frames = FrameWriter(self._temporary)
        first, steps = self._frames.count, len(episode.rewards)
        whole = episode.whole or Whole(0, steps, float(episode.rewards.sum(dtype=np.float64)))
        number = self._number if number is None else number
        place = self._target.name, first, self._step_count, first
        about = int(episode.seed), split, whole.score, whole.begin, whole.steps
        self.records.append(Record(number, *place, steps, *about))
        self._number = number + 1
        self._frames.add(episode.frames)
        self._steps.append(episode.steps())
        self._step_count += steps

    def finish(self) -> Shard:
        """Make all durable and give the shard its name."""
        if self._frames is None:
            raise ValueError("a shard without episodes")
        self._frames.finish()
        (self._temporary / STEPS).write_bytes(pack(Steps(*map(np.concatenate, zip(*self._steps, strict=True)))))
        paths = sorted(path for path in self._temporary.rglob("*") if path.is_file())
        for path in [*paths, *{path.parent for path in paths}]:
            files.sync(path)
        stamps = {str(path.relative_to(self._temporary)): files.stamp_of(path) for path in paths}
        self._temporary.rename(self._target)
        files.sync(self._target.parent)
        return Shard(self._target.name, self._frames.count, stamps, self._player, tuple(self.records))

    def discard(self) -> None:
        """Remove what was not finished."""
        if self._frames is not None:
            self._frames.abandon()
        if self._temporary.exists():
            shutil.rmtree(self._temporary)

    def _check(self, episode: Episode, split: Split) -> None:
        count = len(episode.rewards)
        action = [str(episode.actions.dtype), list(episode.actions.shape[1:])]
        expected = {
            "frames": (episode.frames, np.uint8, (count + 1, *FRAME)),
            "rewards": (episode.rewards, np.float32, (count,)),
            "terminated": (episode.terminated, np.bool_, (count,)),
            "truncated": (episode.truncated, np.bool_, (count,)),
        }
        for name, (array, dtype, shape) in expected.items():
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name}: {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        if len(episode.actions) != count or (action[0], len(action[1])) not in (("int32", 0), ("float32", 1)):
            raise ValueError(f"actions: {action[0]} {episode.actions.shape}, expected int32 [T] or float32 [T, A]")
        if self.action is not None and action != self.action:
            raise ValueError(f"actions: {action}, but the store holds {self.action}")
        if not (np.isfinite(episode.rewards).all() and np.isfinite(episode.actions).all()):
            raise ValueError("rewards or actions are not finite")
        if count == 0 or split not in get_args(Split):
            raise ValueError(f"an episode of {count} steps in split {split!r}")
        if (whole := episode.whole) is not None and not 0 <= whole.begin <= whole.steps - count:
            raise ValueError(f"a window of {count} steps from step {whole.begin} on, in an episode of {whole.steps}")
        self.action = action
