"""Latents: what V sees in every frame of the replays, one file per shard of the replays.

    manifest.json    identity of V and of the replays, the names and types of the arrays that a latent consists of
                     (`models.latents.named`), and for every file what it was made from; with its own checksum
    000003.npz       these arrays [F, ...] for the frames of replays/shards/000003

Encoding can stop anywhere and go on with the shards that are `missing`.
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wm_jax.data.episodes import Shard, Split
from wm_jax.data.replay import ReplayStore
from wm_jax.utils import files
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import Stamp

FORMAT = "wm_jax latents 2"
GAUSSIAN_FORMAT = "wm_jax latents 1"
"""Of versions that knew Gaussians alone: files 000003.npy, float32 [2, F, Z], means and log variances."""
START_ANEW = "run encode anew"


class Latents(NamedTuple):
    """Episodes end to end: an episode of n steps has n + 1 frames, the last of them without an action.

    arrays: what the latents consist of, each [F, ...].
    action: int32 [F] or float32 [F, A], taken at this frame (zero where there is none).
    reward: float32 [F], of that action.
    done: bool [F], that action ended the game (terminated: a time limit is no end that M could foresee).
    acted: bool [F], there is an action: false on each episode's last frame.
    offsets: int64 [episodes + 1], first frame of each episode, and F.
    """

    arrays: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    done: np.ndarray
    acted: np.ndarray
    offsets: np.ndarray


class Kind(NamedTuple):
    """The type of an array of latents, and its shape without the axis of frames."""

    dtype: str
    shape: tuple[int, ...]


class Entry(NamedTuple):
    """A file of latents.

    name: of the shard that it belongs to.
    stamp: what the file must be.
    frames: how many it holds.
    shard: digest of the shard that was encoded.
    """

    name: str
    stamp: Stamp
    frames: int
    shard: str


class LatentStore:
    """The latents in a folder; opened with `create`, `open` or `open_or_create`.

    Attributes:
      parents: {"vae": identity of V's weights, "replays": identity of the replays}.
      kinds: of the arrays that a latent consists of, by their names.
    """

    def __init__(self, path: Path):
        self.path = path
        content = files.read_manifest(path / "manifest.json", START_ANEW)
        self._content, self._format = content, content.get("format")
        if self._format == GAUSSIAN_FORMAT:
            arrays = dict.fromkeys(("mean", "log_var"), ("float32", [content["latent"]]))
        elif self._format != FORMAT:
            raise UserError(f"{path} holds {self._format}, this program reads {FORMAT}: {START_ANEW}")
        else:
            arrays = content["arrays"]
        self._entries: dict[str, dict[str, Any]] = content["files"]
        self.parents: dict[str, str] = content["parents"]
        self.kinds = {name: Kind(dtype, tuple(shape)) for name, (dtype, shape) in arrays.items()}

    @classmethod
    def create(cls, path: Path, vae: str, replays: str, kinds: Mapping[str, Kind]) -> "LatentStore":
        """Make an empty store.

        Args:
          path: its folder; may exist, but hold no latents.
          vae: identity of V's weights.
          replays: `ReplayStore.id`.
          kinds: of the arrays that a latent consists of.

        Raises:
          UserError: there are latents already.
        """
        path = Path(path)
        if (path / "manifest.json").exists():
            raise UserError(f"{path} holds latents already: open them, or {START_ANEW}")
        path.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "parents": {"vae": vae, "replays": replays}, "arrays": kinds, "files": {}}
        files.write_manifest(path / "manifest.json", content)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "LatentStore":
        """Open a store.

        Raises:
          UserError: there is none, or its manifest is damaged.
        """
        if not (Path(path) / "manifest.json").exists():
            raise UserError(f"{path} holds no latents: run encode first")
        return cls(Path(path))

    @classmethod
    def open_or_create(cls, path: Path, vae: str, replays: str, kinds: Mapping[str, Kind]) -> "LatentStore":
        """Open the latents that are there, or make an empty store.

        Raises:
          UserError: those that are there were made with another V or from other replays.
        """
        if not (Path(path) / "manifest.json").exists():
            return cls.create(path, vae, replays, kinds)
        store = cls.open(path)
        for name, wanted in (("vae", vae), ("replays", replays)):
            if store.parents[name] != wanted:
                raise UserError(
                    f"{path} was made with {name} {store.parents[name][:12]}, but now it is {wanted[:12]}: {START_ANEW}"
                )
        if store.kinds != kinds:
            raise UserError(f"{path} holds {_said(store.kinds)}, but V makes {_said(kinds)}: {START_ANEW}")
        return store

    def missing(self, replays: ReplayStore) -> list[Shard]:
        """The shards of the replays that have no latents yet, or whose latents are lost or damaged.

        Raises:
          UserError: the latents belong to other replays.
        """
        self._check(replays)
        return [shard for shard in replays.shards if not self._is_whole(shard.name)]

    def write(self, shard: Shard, arrays: Mapping[str, np.ndarray]) -> None:
        """Add the latents of one shard, [F, ...] each; they are there after a crash, or absent.

        Raises:
          ValueError: arrays of other names, shapes or types than `kinds`, or numbers that are not finite.
        """
        self.enter([self.write_file(shard, arrays)])

    def write_file(self, shard: Shard, arrays: Mapping[str, np.ndarray]) -> Entry:
        """The first half of `write`: the file, which counts once it has been entered.

        Processes may write files of different shards at the same time; one process enters them.
        """
        found = {name: Kind(str(array.dtype), array.shape[1:]) for name, array in arrays.items()}
        if found != self.kinds or {len(array) for array in arrays.values()} != {shard.frames}:
            raise ValueError(f"{_said(found)} for {shard.frames} frames, expected {_said(self.kinds)}")
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{name} of shard {shard.name} is not finite")
        buffer = io.BytesIO()
        if self._format == GAUSSIAN_FORMAT:
            np.save(buffer, np.stack([arrays["mean"], arrays["log_var"]]))
        else:
            np.savez(buffer, allow_pickle=False, **arrays)
        path = self._file(shard.name)
        files.write_atomically(path, buffer.getvalue())
        return Entry(shard.name, files.stamp_of(path), shard.frames, shard.digest)

    def enter(self, written: Iterable[Entry]) -> None:
        """The second half of `write`: enter files into the manifest."""
        new = {entry.name: {"stamp": entry.stamp, "frames": entry.frames, "shard": entry.shard} for entry in written}
        entries = {**self._entries, **new}
        files.write_manifest(self.path / "manifest.json", self._content | {"files": entries})
        self._entries = entries

    def flat(self, replays: ReplayStore, split: Split | None = None) -> Latents:
        """All latents of a split (None: of everything) with the steps, in the order of the replays' episodes.

        Raises:
          UserError: shards are not encoded yet, a file is damaged, or the latents belong to other replays.
        """
        self._check(replays)
        missing = [shard for shard in replays.shards if shard.name not in self._entries]
        if missing:
            raise UserError(
                f"{self.path} lacks {len(missing)} of {len(replays.shards)} shards of the replays: run encode"
            )
        chosen = [i for i, record in enumerate(replays.records) if split in (None, record.split)]
        offsets = np.cumsum([0, *(replays.records[i].frames for i in chosen)], dtype=np.int64)
        count, (shape, dtype) = int(offsets[-1]), replays.action
        flat = Latents(
            arrays={name: np.empty((count, *kind.shape), kind.dtype) for name, kind in self.kinds.items()},
            action=np.zeros((count, *shape), dtype),
            reward=np.zeros(count, np.float32),
            done=np.zeros(count, bool),
            acted=np.ones(count, bool),
            offsets=offsets,
        )
        flat.acted[offsets[1:] - 1] = False
        loaded, latents = "", {}
        for i, start, stop in zip(chosen, offsets[:-1], offsets[1:], strict=True):
            record, steps = replays.records[i], replays.steps(i)
            if record.shard != loaded:
                loaded, latents = record.shard, self._read(record.shard)
            for name, array in flat.arrays.items():
                array[start:stop] = latents[name][record.first : record.first + record.frames]
            flat.action[start : stop - 1] = steps.actions
            flat.reward[start : stop - 1] = steps.rewards
            flat.done[start : stop - 1] = steps.terminated
        return flat

    def _check(self, replays: ReplayStore) -> None:
        if replays.id != self.parents["replays"]:
            raise UserError(
                f"{self.path} was made from replays {self.parents['replays'][:12]}, "
                f"but {replays.path} is {replays.id[:12]}: {START_ANEW}"
            )
        for shard in replays.shards:
            entry = self._entries.get(shard.name)
            if entry is not None and (entry["frames"], entry["shard"]) != (shard.frames, shard.digest):
                raise UserError(
                    f"{self.path}: shard {shard.name} of {replays.path} is not the one that was encoded "
                    f"({shard.frames} frames, then {entry['frames']}): {START_ANEW}"
                )

    def _is_whole(self, name: str) -> bool:
        entry, path = self._entries.get(name), self._file(name)
        return entry is not None and path.is_file() and files.stamp_of(path) == Stamp(*entry["stamp"])

    def _read(self, name: str) -> dict[str, np.ndarray]:
        content = files.read_stamped(self._file(name), Stamp(*self._entries[name]["stamp"]))
        if content is None:
            raise UserError(
                f"{self._file(name)} is missing or does not fit its checksum: run encode, which writes it again"
            )
        loaded = np.load(io.BytesIO(content))
        if self._format == GAUSSIAN_FORMAT:
            return dict(zip(("mean", "log_var"), loaded, strict=True))
        return {name: loaded[name] for name in self.kinds}

    def _file(self, name: str) -> Path:
        return self.path / (f"{name}.npy" if self._format == GAUSSIAN_FORMAT else f"{name}.npz")


def _said(kinds: Mapping[str, Kind]) -> str:
    """Kinds of arrays in words."""
    return ", ".join(f"{name} {kind.dtype} {list(kind.shape)}" for name, kind in kinds.items()) or "nothing"
