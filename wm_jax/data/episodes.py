"""Episodes in memory, their records in the manifest, and the writer that turns them into one shard on disk."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from wm_jax import files
from wm_jax.data.shards import FRAME, STEPS, FrameWriter, Steps, pack
from wm_jax.files import Stamp

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Episode:
    """One played episode of T steps.

    frames: uint8 [T + 1, 64, 64, 3]; the last one is what the last action led to.
    actions: int32 [T] (positions in the action names) or float32 [T, A].
    rewards: float32 [T].
    terminated, truncated: bool [T].
    seed: what the environment was reset with.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    seed: int

    def steps(self) -> Steps:
        """All of it but the frames."""
        return Steps(self.actions, self.rewards, self.terminated, self.truncated)


@dataclass(frozen=True)
class Record:
    """What the manifest says of one episode.

    number: its place among all that are collected; the store shows them in this order.
    shard: name of its shard.
    first: its first frame in the shard.
    first_step: its first step in the shard.
    start: its first frame in the store.
    steps, seed, split, score: length, seed, "train" or "test", sum of the rewards.
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

    @property
    def frames(self) -> int:
        """One more than steps."""
        return self.steps + 1


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
        episodes = [[r.number, r.first, r.steps, r.seed, r.split, r.score] for r in self.records]
        about = {"name": self.name, "frames": self.frames, "player": self.player}
        return {**about, "files": self.stamps, "episodes": episodes}

    @staticmethod
    def from_json(entry: Mapping[str, Any], start: int) -> "Shard":
        """From the manifest.

        Args:
          entry: what `to_json` gave.
          start: number of the shard's first frame in the store.
        """
        stamps = {name: Stamp(*stamp) for name, stamp in entry["files"].items()}
        records, first_step = [], 0
        for number, first, steps, seed, split, score in entry["episodes"]:
            records.append(Record(number, entry["name"], first, first_step, start + first, steps, seed, split, score))
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
        """Write one episode: `number`, or that after the one before.

        Raises:
          ValueError: arrays of wrong shapes or types, or numbers that are not finite.
        """
        self._check(episode, split)
        if self._frames is None:
            self._temporary.mkdir(parents=True)
            self._frames = FrameWriter(self._temporary)
        first, steps = self._frames.count, len(episode.rewards)
        score = float(episode.rewards.sum(dtype=np.float64))
        number = self._number if number is None else number
        seed, name = int(episode.seed), self._target.name
        self.records.append(Record(number, name, first, self._step_count, first, steps, seed, split, score))
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
        self.action = action
