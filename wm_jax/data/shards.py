"""One shard of replays on disk: the frames of some episodes end to end, and their steps beside them.

    shards/000003/frames/zarr.json          TensorStore zarr3 array uint8 [F, 64, 64, 3], one frame per chunk
    shards/000003/frames/0.0.0.0, ...       FILE_FRAMES frames each, every frame zstd-compressed with its crc32c
    shards/000003/steps.npz                 actions, rewards, terminated, truncated of all steps end to end

Frames go out in blocks of one file, so that writing needs the memory of a few blocks whatever the shard's size.
Missing files would read as zeros in zarr; `fill_missing_data_reads` turns that into an error.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from wm_jax.utils.sizes import FRAME

FILE_FRAMES = 2048
FRAMES, STEPS = "frames", "steps.npz"
# More than any shard holds: the true length is written when the shard is finished.
OPEN_ENDED = 1 << 40


class Steps(NamedTuple):
    """Steps end to end.

    actions: int32 [T] (positions) or float32 [T, A].
    rewards: float32 [T].
    terminated, truncated: bool [T].
    """

    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def slice(self, start: int, stop: int) -> "Steps":
        """The steps start .. stop."""
        return Steps(*(array[start:stop] for array in self))


class FrameWriter:
    """Appends frames to the array of a new shard."""

    def __init__(self, folder: Path):
        self.count = 0
        self._store = ts.open(
            _spec(folder) | {"metadata": _metadata(OPEN_ENDED), "create": True, "store_data_equal_to_fill_value": True},
            # Durability is one fsync per file, when the shard is finished.
            context=ts.Context({"file_io_sync": False}),
        ).result()
        self._buffer = np.empty((FILE_FRAMES, *FRAME), np.uint8)
        self._pending: ts.WriteFutures | None = None

    def add(self, frames: np.ndarray) -> None:
        """Append uint8 [n, 64, 64, 3]."""
        while len(frames):
            used = self.count % FILE_FRAMES
            piece = frames[: FILE_FRAMES - used]
            self._buffer[used : used + len(piece)] = piece
            self.count += len(piece)
            frames = frames[len(piece) :]
            if self.count % FILE_FRAMES == 0:
                self._flush(FILE_FRAMES)

    def finish(self) -> None:
        """Write what is buffered and the array's true length."""
        self._flush(self.count % FILE_FRAMES)
        self._wait()
        self._store.resize(exclusive_max=[self.count, *FRAME], resize_metadata_only=True).result()

    def abandon(self) -> None:
        """Let go of the files, so that they can be removed."""
        with contextlib.suppress(ValueError):
            self._wait()

    def _flush(self, frames: int) -> None:
        # A file is compressed while the next one is collected.
        self._wait()
        if frames:
            start = self.count - frames
            self._pending = self._store[start : self.count].write(self._buffer[:frames])
            self._pending.copy.result()

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()


def open_frames(folder: Path, context: ts.Context) -> ts.TensorStore:
    """The frames of a finished shard, for reading; a missing or changed byte raises on read."""
    spec = _spec(folder) | {"fill_missing_data_reads": False, "recheck_cached_data": "open"}
    return ts.open(spec, read=True, context=context).result()


def blocks(store: ts.TensorStore, size: int) -> Iterator[np.ndarray]:
    """All frames in order, `size` at a time, read one block ahead."""
    count = store.shape[0]
    ahead = store[: min(size, count)].read()
    for start in range(0, count, size):
        block = ahead.result()
        after = start + size
        if after < count:
            ahead = store[after : min(after + size, count)].read()
        yield block


def guilty_folder(error: Exception) -> str | None:
    """The shard that a TensorStore error complains about: all its messages name the file."""
    found = re.search(rf'/([^/"]+)/{FRAMES}/[^/"]*"', str(error))
    return found.group(1) if found else None


def pack(steps: Steps) -> bytes:
    """As a compressed npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **steps._asdict())
    return buffer.getvalue()


def unpack(content: bytes) -> Steps:
    """Back from `pack`; the caller has checked that the content is intact."""
    with np.load(io.BytesIO(content)) as arrays:
        return Steps(**{name: arrays[name] for name in Steps._fields})


def _spec(folder: Path) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str((folder / FRAMES).resolve())}}


def _metadata(frames: int) -> dict[str, Any]:
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    # Level 1 is within 2 % of level 3's size on game frames.
    frame = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]
    sharding = {"chunk_shape": [1, *FRAME], "codecs": frame, "index_codecs": index}
    return {
        "shape": [frames, *FRAME],
        "data_type": "uint8",
        "fill_value": 0,
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [FILE_FRAMES, *FRAME]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
