"""Replays: an append-only store of played episodes, written in whole shards (their files: `shards.py`).

    manifest.json    what the store holds, with a checksum of itself; nothing that it does not name is ever read
    shards/          one folder per shard
    damaged/         shards that `quarantine` set aside; the manifest remembers what was in them, and who played it

A shard is written into a temporary folder, made durable, renamed, and only then named by the manifest, so that a crash
at any moment leaves the store as it was. Frames are protected by a crc32c each, all other files by their SHA-256.
Episodes have numbers, and show in their order: what is played again in place of a damaged shard comes back to where it
was. Frames are numbered through the store in the order of its shards; n recorded steps have n + 1 frames. Of a long
episode there may be several windows instead of all of it: records of one number, in the order of the game.
"""

import contextlib
import itertools
import json
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wm_jax.data import shards
from wm_jax.data.episodes import Episode, Shard, ShardWriter, Split
from wm_jax.data.reader import Damage, FrameReader, damaged, damages_of, read_file
from wm_jax.data.shards import Steps
from wm_jax.utils import files
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME, FRAME_BYTES

FORMAT = "wm_jax replays 3"
READABLE = (FORMAT, "wm_jax replays 2")
"""Format 2 had whole episodes alone."""
START_ANEW = "run collect anew"


class Lost(NamedTuple):
    """An episode that lay in a shard which was set aside.

    number: its own.
    player: who played it.
    length: its steps.
    """

    number: int
    player: Mapping[str, Any]
    length: int


class Counts(NamedTuple):
    """Sizes of a split: episodes that were played, and what was recorded of them."""

    episodes: int
    frames: int
    steps: int


class ReplayStore:
    """The store in a folder; opened with `create`, `open` or `open_or_create`.

    It shows the episodes that were there when it was opened, and those it appended itself.

    Attributes:
      about: the settings that made the store.
      shards: its shards, in the order of their first episodes (with `episodes=N`: those that hold the first N ones).
      records: its episodes, or their windows, in the order of their numbers.
      lost: the episodes that were set aside and not played again since, likewise.
      imported: some are recordings from elsewhere (bin/import).
      lost_imported: some of the lost ones are, which nobody can play again.
    """

    def __init__(self, path: Path, episodes: int | None = None):
        self.path = path
        self._limit = episodes
        self._unlock: weakref.finalize[..., Any] | None = None
        self._load()

    @classmethod
    def create(cls, path: Path, about: Mapping[str, Any]) -> "ReplayStore":
        """Make an empty store.

        Args:
          path: its folder; may exist, but hold no store.
          about: JSON-able settings that made it.

        Raises:
          UserError: there is a store already.
        """
        path = Path(path)
        if (path / "manifest.json").exists():
            raise UserError(f"{path} holds replays already: open them, or use another run")
        (path / "shards").mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "about": json.loads(json.dumps(about)), "action": None, "next": 0}
        files.write_manifest(path / "manifest.json", {**content, "shards": [], "set_aside": []})
        return cls(path)

    @classmethod
    def open(cls, path: Path, *, episodes: int | None = None, check: bool = True) -> "ReplayStore":
        """Open a store.

        Args:
          path: its folder.
          episodes: see only the first so many (None: all), whatever was appended since.
          check: look that every file is there with its size (what `verify` and `quarantine` do not need).

        Raises:
          UserError: there is no store, it is damaged, or it has fewer episodes.
        """
        if not (Path(path) / "manifest.json").exists():
            raise UserError(f"{path} holds no replays: run collect first")
        store = cls(Path(path), episodes)
        if check:
            store._check_sizes()
        return store

    @classmethod
    def open_or_create(cls, path: Path, about: Mapping[str, Any]) -> "ReplayStore":
        """Open the store that is there, whatever its `about`, or make an empty one.

        Raises:
          UserError: there are shards, but the manifest that names them is lost.
        """
        if (Path(path) / "manifest.json").exists():
            return cls.open(path)
        if (Path(path) / "shards").is_dir() and any((Path(path) / "shards").iterdir()):
            raise UserError(f"{path} holds shards, but its manifest.json is lost: restore it, or {START_ANEW}")
        return cls.create(path, about)

    @property
    def id(self) -> str:
        """Identity of the settings that made the store; it stays when the store grows."""
        return files.identity(self.about)

    @property
    def digest(self) -> str:
        """Identity of the episodes that are seen here: a repaired store has that of before."""
        rows = []
        for record in self.records:
            # Stores of format 2 keep the digests that artifacts were made from: they had no windows that begin later.
            later = [record.begin] if record.begin else []
            rows.append([record.number, record.seed, record.steps, record.split, record.score, *later])
        return files.identity([self.about, rows])

    @property
    def unseen(self) -> int:
        """Episodes that the store holds beyond those seen here."""
        numbers = {number for entry in self._manifest["shards"] for number, *_ in entry["episodes"]}
        return len(numbers) - self.count().episodes

    @property
    def next_shard(self) -> int:
        """Number of the next shard; numbers are never used twice."""
        return self._manifest["next"]

    @property
    def action(self) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of one action: () int32, or (A,) float32.

        Raises:
          UserError: the store is empty.
        """
        if self._manifest["action"] is None:
            raise UserError(f"{self.path} holds no episodes yet: run collect first")
        dtype, shape = self._manifest["action"]
        return tuple(shape), np.dtype(dtype)

    def count(self, split: Split | None = None) -> Counts:
        """Sizes of a split (None: of everything)."""
        chosen = [record for record in self.records if split in (None, record.split)]
        steps = sum(record.steps for record in chosen)
        return Counts(len({record.number for record in chosen}), steps + len(chosen), steps)

    def describe(self) -> dict[str, Any]:
        """What it holds, in figures; `recorded` is the share of the played steps that it keeps."""
        episodes = list({record.number: record for record in self.records}.values())
        size = sum(stamp.size for shard in self.shards for stamp in shard.stamps.values())
        return {
            "episodes": self.count().episodes,
            "train_frames": self.count("train").frames,
            "test_frames": self.count("test").frames,
            "mean_return": round(float(np.mean([episode.score for episode in episodes])), 3),
            "recorded": round(self.count().steps / sum(episode.length for episode in episodes), 3),
            "bytes": size,
            "compressed_to": round(size / (self.count().frames * FRAME_BYTES), 4),
        }

    # -- reading --------------------------------------------------------------------------------------------------

    def episode(self, i: int) -> Episode:
        """What `records[i]` names."""
        record = self.records[i]
        steps = self.steps(i)
        frames = self._reader.take(slice(record.start, record.start + record.frames))
        return Episode(frames, *steps, seed=record.seed, whole=record.whole)

    def steps(self, i: int) -> Steps:
        """`episode(i)` without its frames."""
        record = self.records[i]
        return self._shard_steps(record.shard).slice(record.first_step, record.first_step + record.steps)

    def frames(self, split: Split | None = None) -> np.ndarray:
        """All frames of a split in the order of its episodes, uint8 [F, 64, 64, 3].

        Raises:
          UserError: a shard is damaged.
        """
        starts, lengths, _ = self._places(split)
        return self._reader.runs(starts, lengths)

    def read(self, split: Split | None, indices: np.ndarray) -> np.ndarray:
        """Single frames of a split, uint8 [B, 64, 64, 3]; `indices` int [B] are places in `frames(split)`.

        Raises:
          IndexError: an index is outside the split.
          UserError: a shard is damaged.
        """
        starts, lengths, ends = self._places(split)
        indices = np.asarray(indices, np.int64)
        count = int(lengths.sum())
        if indices.size == 0:
            return np.empty((0, *FRAME), np.uint8)
        if indices.min() < 0 or indices.max() >= count:
            raise IndexError(f"frames {indices.min()} .. {indices.max()} of a split of {count} frames")
        episode = np.searchsorted(ends, indices, side="right")
        return self._reader.take(starts[episode] + indices - (ends - lengths)[episode])

    def iter_shards(
        self, names: Iterable[str] | None = None, block: int = shards.FILE_FRAMES
    ) -> Iterator[tuple[Shard, Iterator[np.ndarray]]]:
        """Shards with all their frames in order, in blocks uint8 [<= block, 64, 64, 3] read one ahead.

        Args:
          names: only these shards (None: all).
          block: frames per block.
        """
        wanted = None if names is None else set(names)
        for shard in self.shards:
            if wanted is None or shard.name in wanted:
                yield shard, self._reader.blocks(shard, block)

    # -- writing --------------------------------------------------------------------------------------------------

    def append(
        self,
        episodes: Iterable[Episode],
        splits: Iterable[Split],
        numbers: Iterable[int] | None = None,
        player: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one shard of these episodes, which are drawn one by one: memory stays at a few blocks of frames.

        Args:
          numbers: of the episodes (None: those that follow the last one).
          player: see `new_shard`.

        Raises:
          UserError: another process is writing.
          ValueError: arrays of wrong shapes or types.
        """
        with self.new_shard(player) as shard:
            places = itertools.repeat(None) if numbers is None else iter(numbers)
            for episode, split in zip(episodes, splits, strict=True):
                shard.add(episode, split, next(places))

    @contextlib.contextmanager
    def new_shard(self, player: Mapping[str, Any] | None = None) -> "Iterator[ShardWriter]":
        """A shard to add episodes to; it joins the store when the block ends without an error.

        Args:
          player: who plays them, JSON-able.

        Raises:
          UserError: another process is writing.
        """
        self._begin_writing()
        following = max((each.number for each in (*self.records, *self.lost)), default=-1) + 1
        name, action = f"{self.next_shard:06d}", self._manifest["action"]
        writer = ShardWriter(self.path / "shards", name, action, player or {}, following)
        try:
            yield writer
            if writer.records:
                self._name(writer.finish(), writer.action)
        finally:
            writer.discard()

    def quarantine(self, name: str) -> Path | None:
        """Set a shard aside in `damaged/`, so that collection can refill: its episodes are `lost` until then.

        Returns:
          Where it lies now, or None when nothing of it was left.

        Raises:
          UserError: no such shard, or another process is writing.
        """
        self._take_lock()
        gone = [entry for entry in self._manifest["shards"] if entry["name"] == name]
        if not gone:
            raise UserError(f"{self.path} has no shard {name}: run collect verify, which names the damaged ones")
        source, target = self.path / "shards" / name, self.path / "damaged" / name
        # Moved first: a crash between the two leaves a shard that is reported missing, not one that is cleaned away.
        if source.exists():
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
            files.sync(target.parent)
            files.sync(source.parent)
        kept = [entry for entry in self._manifest["shards"] if entry["name"] != name]
        content = {**self._manifest, "shards": kept, "set_aside": self._manifest["set_aside"] + gone}
        files.write_manifest(self.path / "manifest.json", content)
        self._load()
        return target if target.exists() else None

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
        """Read everything again: every file's SHA-256, and every frame.

        Args:
          progress: called with (shards done, shards in all).
        """
        damages = []
        for done, shard in enumerate(self.shards, start=1):
            damages += damages_of(self.path, shard)
            if progress is not None:
                progress(done, len(self.shards))
        return damages

    def close(self) -> None:
        """Let others write."""
        if self._unlock is not None:
            self._unlock()
            self._unlock = None

    def _load(self) -> None:
        content = files.read_manifest(self.path / "manifest.json", f"restore it from a copy, or {START_ANEW}")
        if content.get("format") not in READABLE:
            raise UserError(f"{self.path} holds {content.get('format')}, this program reads {FORMAT}: {START_ANEW}")
        entries, start = [], 0
        for entry in sorted(content["shards"], key=_first_episode):
            entries.append(Shard.from_json(entry, start))
            start += entry["frames"]
        records = sorted(
            (record for shard in entries for record in shard.records), key=lambda record: (record.number, record.begin)
        )
        there = {record.number for record in records}
        gone = [Shard.from_json(entry, 0) for entry in content["set_aside"]]
        lost = {each.number: Lost(each.number, shard.player, each.length) for shard in gone for each in shard.records}
        self._manifest = content
        self.about: dict[str, Any] = content["about"]
        self.imported = any(map(_is_imported, entries))
        self.lost = tuple(lost[number] for number in sorted(lost) if number not in there)
        self.lost_imported = any(map(_is_imported, self.lost))
        self.records = tuple(record for record in records if self._limit is None or record.number < self._limit)
        if self._limit is not None and self.count().episodes < self._limit:
            remedy = f"run collect with collect.episodes {self._limit}"
            if self.lost_imported or (self.imported and not self.lost):
                remedy = "recordings were imported: import all again, and train anew what was made of them (--fresh)"
            raise UserError(
                f"{self.path} holds {self.count().episodes} of the {self._limit} episodes that are needed: {remedy}"
            )
        seen = {record.shard for record in self.records}
        # Sorted as they are, the shards of the first episodes come first: `start` stays right without the others.
        self.shards = tuple(shard for shard in entries if shard.name in seen)
        self._reader = FrameReader(self.path, self.shards)
        self._split_places: dict[Split | None, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        # Of no method of this object: it would then hold itself, and its lock, until the garbage is collected.
        by_name = {shard.name: shard for shard in self.shards}
        self._shard_steps = lru_cache(maxsize=4)(partial(_read_steps, self.path, by_name))

    def _check_sizes(self) -> None:
        for shard in self.shards:
            for name, stamp in shard.stamps.items():
                path = self.path / "shards" / shard.name / name
                if not path.exists():
                    raise damaged(self.path, shard.name, f"{name} is missing")
                if path.stat().st_size != stamp.size:
                    raise damaged(
                        self.path, shard.name, f"{name} has {path.stat().st_size} bytes instead of {stamp.size}"
                    )

    def _places(self, split: Split | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each episode of a split: first frame in the store, frames, and frames of the split up to its end."""
        if split not in self._split_places:
            chosen = [record for record in self.records if split in (None, record.split)]
            starts = np.array([record.start for record in chosen], np.int64)
            lengths = np.array([record.frames for record in chosen], np.int64)
            self._split_places[split] = starts, lengths, np.cumsum(lengths)
        return self._split_places[split]

    def _take_lock(self) -> None:
        """Hold the store for writing, and see what others have written up to now."""
        if self._limit is not None:
            raise ValueError("a view of the first episodes is for reading")
        if self._unlock is None:
            self._unlock = weakref.finalize(self, os.close, files.lock(self.path / ".lock", str(self.path)))
            self._load()

    def _begin_writing(self) -> None:
        """Set aside what the manifest does not name: left by a crash, or by a manifest that was put back."""
        self._take_lock()
        named = {entry["name"] for entry in self._manifest["shards"]}
        for folder in (self.path / "shards").iterdir():
            if folder.name not in named:
                target = self.path / "damaged" / f"{folder.name}-{time.time_ns()}"
                target.parent.mkdir(exist_ok=True)
                folder.rename(target)

    def _name(self, shard: Shard, action: list[Any] | None) -> None:
        """Let the manifest name a shard that is on disk."""
        entries = [*self._manifest["shards"], shard.to_json()]
        content = {**self._manifest, "format": FORMAT, "action": action}
        content |= {"next": self.next_shard + 1, "shards": entries}
        files.write_manifest(self.path / "manifest.json", content)
        self._load()


def _read_steps(store: Path, by_name: Mapping[str, Shard], name: str) -> Steps:
    return shards.unpack(read_file(store, by_name[name], shards.STEPS))


def _is_imported(played: Shard | Lost) -> bool:
    return played.player.get("policy") == "imported"


def _first_episode(entry: Mapping[str, Any]) -> int:
    """The lowest number in a shard, given its entry in the manifest."""
    return min(number for number, *_ in entry["episodes"])
