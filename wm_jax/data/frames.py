"""Batches of single frames for V: on the device when they fit, else streamed ahead of it.

A source gives, for any step, the same batch: batch s is places s*B .. (s+1)*B of an endless row of shuffled epochs.
That is what makes a resumed training exact.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.data.ahead import ReadAhead
from wm_jax.data.conditions import Conditions, rows
from wm_jax.data.neighbours import MIDDLE, Neighbours
from wm_jax.utils import streams
from wm_jax.utils.sizes import FRAME


class Batches(Protocol):
    """What the training loop draws from.

    Attributes:
      data: pytree that stays on the device.
      batch_axis: which axis of all references is the batch.
    """

    data: Any
    batch_axis: int

    def references(self, step: int, count: int, room: int) -> Any:
        """What `fetch` needs for steps `step .. step + count`: arrays with a leading axis of length `room`."""
        ...

    def fetch(self, data: Any, reference: Any) -> Any:
        """One batch, inside jit, from `data` and one row of the references."""
        ...

    def close(self) -> None:
        """Let go of the data, and end whatever reads it."""
        ...


class Shuffle:
    """The endless row of shuffled epochs over items 0 .. count, the same for the same seed.

    Args:
      epoch: int[N], the items of an epoch, if not each comes once.
    """

    def __init__(self, count: int, seed: int, epoch: np.ndarray | None = None):
        self._epoch = epoch
        self.count, self.seed = count if epoch is None else len(epoch), seed
        self._epochs: dict[int, np.ndarray] = {}

    def items(self, start: int, stop: int) -> np.ndarray:
        """Items at places start .. stop of the row, int64[stop - start]."""
        first, last = start // self.count, (stop - 1) // self.count
        known = self._epochs  # read once, and written once: threads may ask at the same time
        epochs = {
            epoch: known[epoch]
            if epoch in known
            else streams.generator(self.seed, "epoch", epoch).permutation(self.count)
            for epoch in range(first, last + 1)
        }
        self._epochs = epochs
        row = np.concatenate(list(epochs.values()))[start - first * self.count : stop - first * self.count]
        return row if self._epoch is None else self._epoch[row]


class ResidentFrames:
    """Frames that live on the device as uint8 [F, 64, 64, 3]; only indices travel.

    Args:
      neighbours: says which frames lie around each: then batches are uint8 [B, 5, 64, 64, 3], see `Neighbours`.
      epoch: see `Shuffle`.
      conditions: of the frames: then batches are mappings of `frames` and `condition` float32 [B, K].
    """

    batch_axis = 1

    def __init__(
        self,
        frames: np.ndarray,
        batch: int,
        seed: int,
        neighbours: Neighbours | None = None,
        epoch: np.ndarray | None = None,
        conditions: Conditions | None = None,
    ):
        self._neighbours, self._conditions = neighbours, conditions
        self.data: Any = jnp.asarray(frames)
        if conditions is not None:
            self.data = self.data, jax.tree.map(jnp.asarray, conditions.arrays)
        self._batch = batch
        self._shuffle = Shuffle(len(frames), seed, epoch)

    def references(self, step: int, count: int, room: int) -> np.ndarray:
        """Indices int32 [room, B], or [room, B, 5]; rows past `count` are unused."""
        items = self._shuffle.items(step * self._batch, (step + count) * self._batch).reshape(count, self._batch)
        chosen = items if self._neighbours is None else self._neighbours.around(items)
        padded = np.zeros((room, *chosen.shape[1:]), np.int32)
        padded[:count] = chosen
        return padded

    def fetch(self, data: Any, reference: jax.Array) -> Any:
        """uint8 [B, 64, 64, 3], or with neighbours [B, 5, 64, 64, 3]; with conditions a mapping."""
        if self._conditions is None:
            return data[reference]
        frames, conditions = data
        own = reference if self._neighbours is None else reference[:, MIDDLE]
        return {"frames": frames[reference], "condition": self._conditions.read(rows(conditions, own))}

    def close(self) -> None:
        """See `Batches`."""
        self.data = ()


class StreamedFrames:
    """Frames read from the store one dispatch ahead, in the order that `ResidentFrames` would use.

    Args:
      read: indices int[B] to frames uint8 [B, 64, 64, 3].
      count: frames in all.
      following: where the dispatch that starts at a given step ends.
      mine: the part of every batch that is read; the rest is zero. It is other processes' part.
      neighbours, epoch, conditions: as for `ResidentFrames`.
    """

    batch_axis = 1

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        count: int,
        batch: int,
        seed: int,
        following: Callable[[int], int],
        mine: slice = slice(None),
        neighbours: Neighbours | None = None,
        epoch: np.ndarray | None = None,
        conditions: Conditions | None = None,
    ):
        self._neighbours, self._conditions = neighbours, conditions
        self.data = ()
        self._read, self._batch, self._mine = read, batch, mine
        self._shuffle = Shuffle(count, seed, epoch)
        self._ahead = ReadAhead(self._load, following)

    def references(self, step: int, count: int, room: int) -> Any:
        """Frames uint8 [room, B, 64, 64, 3], or [room, B, 5, 64, 64, 3], and with conditions what they are made from,
        likewise [room, B, ...]; rows past `count` are unused.
        """
        return self._ahead.get(step, count, room)

    def fetch(self, data: tuple[()], reference: Any) -> Any:
        """See `ResidentFrames`."""
        if self._conditions is None:
            return reference
        frames, conditions = reference
        return {"frames": frames, "condition": self._conditions.read(conditions)}

    def close(self) -> None:
        """See `Batches`."""
        self._ahead.close()

    def _load(self, step: int, count: int, room: int) -> Any:
        items = self._shuffle.items(step * self._batch, (step + count) * self._batch)
        items = items.reshape(count, self._batch)[:, self._mine]
        chosen = items if self._neighbours is None else self._neighbours.around(items)

        def padded(found: np.ndarray) -> np.ndarray:
            all_rows = np.zeros((room, self._batch, *found.shape[2:]), found.dtype)
            all_rows[:count, self._mine] = found
            return all_rows

        frames = padded(self._read(chosen.ravel()).reshape(*chosen.shape, *FRAME))
        return frames if self._conditions is None else (frames, jax.tree.map(padded, self._conditions.at(items)))
