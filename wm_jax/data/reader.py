"""Reading the frames of all shards as one row; damage becomes an error that names the shard."""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorstore as ts

from wm_jax.data import shards
from wm_jax.data.episodes import Shard
from wm_jax.utils import files
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME

READ_AHEAD = 8
READ_FRAMES = 512
CACHE_BYTES = 32 << 20
INDEX_BYTES = 32  # of cache for each frame: its place in the file is 16 bytes


class Damage(NamedTuple):
    """One damaged file."""

    shard: str
    file: str
    what: str


class FrameReader:
    """The frames of some shards, numbered from 0 in the order of the shards.

    Args:
      path: the store's folder.
      entries: the shards.
    """

    def __init__(self, path: Path, entries: Sequence[Shard]):
        self._path, self._entries = path, entries
        self._row: ts.TensorStore | None = None

    def take(self, places: np.ndarray | slice) -> np.ndarray:
        """Frames at int64 [B] places, or a slice of the row: uint8 [B, 64, 64, 3]."""
        with damage_named(self._path):
            return self._all()[places].read().result()

    def runs(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The runs start .. start + length, end to end: uint8 [sum of lengths, 64, 64, 3]."""
        out = np.empty((int(lengths.sum()), *FRAME), np.uint8)
        pending: deque[ts.WriteFutures] = deque()
        with damage_named(self._path):
            for place, start, length in _pieces(starts, lengths):
                # Decodes straight into `out`: reading and copying costs a third more.
                target = ts.array(out[place : place + length], copy=False)
                pending.append(target.write(self._all()[start : start + length]))
                if len(pending) == READ_AHEAD:
                    pending.popleft().result()
            for write in pending:
                write.result()
        return out

    def blocks(self, shard: Shard, size: int) -> Iterator[np.ndarray]:
        """One shard in order, in blocks of at most `size` frames."""
        with damage_named(self._path):
            yield from shards.blocks(self._open(shard, ts.Context()), size)

    def _all(self) -> ts.TensorStore:
        if self._row is None:
            # Room for every shard's index; decoded frames are not worth keeping.
            room = CACHE_BYTES + INDEX_BYTES * sum(shard.frames for shard in self._entries)
            context = ts.Context({"cache_pool": {"total_bytes_limit": room}})
            self._row = ts.concat([self._open(shard, context) for shard in self._entries], axis=0)
        return self._row

    def _open(self, shard: Shard, context: ts.Context) -> ts.TensorStore:
        # The frames have a checksum each; the header that says how to read them has not.
        read_file(self._path, shard, f"{shards.FRAMES}/zarr.json")
        return shards.open_frames(self._path / "shards" / shard.name, context)


def read_file(path: Path, shard: Shard, name: str) -> bytes:
    """One of a shard's small files, whole.

    Raises:
      UserError: it is missing or damaged.
    """
    content = files.read_stamped(path / "shards" / shard.name / name, shard.stamps[name])
    if content is None:
        raise damaged(path, shard.name, f"{name} is missing or does not fit its checksum")
    return content


def damages_of(path: Path, shard: Shard) -> list[Damage]:
    """Every file of a shard whose SHA-256 is wrong; if all are right, the frames are decoded too."""
    damages = []
    for name, stamp in shard.stamps.items():
        file = path / "shards" / shard.name / name
        if not file.exists():
            damages.append(Damage(shard.name, name, "missing"))
        elif files.sha256_of(file) != stamp.sha256:
            damages.append(Damage(shard.name, name, "does not fit its checksum"))
    if damages:
        return damages
    try:
        count = sum(len(block) for block in FrameReader(path, [shard]).blocks(shard, READ_FRAMES))
    except UserError as error:
        return [Damage(shard.name, shards.FRAMES, str(error))]
    return [] if count == shard.frames else [Damage(shard.name, shards.FRAMES, f"{count} frames, not {shard.frames}")]


def damaged(path: Path, shard: str, what: str) -> UserError:
    """The error for a damaged shard of the store at `path`."""
    return UserError(
        f"{path}: shard {shard} of the replays is damaged ({what}): "
        "run collect verify, which names all damage, or run collect repair, which sets it aside to be collected again"
    )


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn TensorStore's errors about a shard into `damaged`."""
    try:
        yield
    except ValueError as error:
        shard = shards.guilty_folder(error)
        if shard is None:
            raise
        raise damaged(path, shard, str(error).split(" [")[0]) from None


def _pieces(starts: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Reads of at most READ_FRAMES frames: (place in the result, first frame, frames). Neighbouring runs are joined."""
    new = np.flatnonzero(np.diff(starts, prepend=-1) != np.concatenate([[-1], lengths[:-1]]))
    joined = np.add.reduceat(lengths, new) if len(new) else lengths
    place = 0
    for start, length in zip(starts[new].tolist(), joined.tolist(), strict=True):
        for offset in range(0, length, READ_FRAMES):
            yield place + offset, start + offset, min(READ_FRAMES, length - offset)
        place += length
