"""Training windows for M over the flat latents of all episodes.

Two ways to cut them: independent windows inside episodes, each from the zero state; or B lanes that walk through all
episodes, so that the state is carried from window to window and zeroed only where an episode begins.

Latents lie on the device when they fit there, and windows are cut where they lie; else windows travel, cut on the host
one dispatch ahead. The batches are the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32

from wm_jax.data.ahead import ReadAhead
from wm_jax.data.episodes import Split
from wm_jax.data.latents import LatentStore
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.spaces import ActionSpace
from wm_jax.models.latents import from_named
from wm_jax.models.memory import Sequences
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

Either = Array | np.ndarray
"""On the device, or on the host."""

Offsets = Int[np.ndarray, "offsets"]
"""First frame of each episode, and the number of all frames: one more than there are episodes."""


class FlatLatents(NamedTuple):
    """F frames, episodes end to end: an episode of n steps has n + 1 frames, the last of them without an action.

    latent: of every frame (`models.latents`), its arrays [F, ...].
    action: as M sees it (zero on last frames).
    reward, done: of the step taken at this frame.
    offsets: see `Offsets`.
    """

    latent: Any
    action: Float32[Either, "F A"]
    reward: Float32[Either, "F"]
    done: Float32[Either, "F"]
    offsets: Int[Either, "offsets"]


def flat_latents(
    latents: LatentStore, like: Any, store: ReplayStore, actions: ActionSpace, split: Split
) -> FlatLatents:
    """The latents of a split as arrays for training, actions as M sees them.

    Args:
      like: a latent of the same kind.
    """
    parts = latents.flat(store, split)
    action = actions.encode(jnp.asarray(parts.action)) * jnp.asarray(parts.acted, jnp.float32)[:, None]
    done = parts.done.astype(np.float32)
    latent = from_named(like, parts.arrays)
    return FlatLatents(latent, jax.device_get(action), parts.reward, done, parts.offsets)


class Places(NamedTuple):
    """Where a batch of windows lies, or a stack of batches.

    frames: places in `FlatLatents`.
    weight: how much the step counts: 0 if it is not real, since its next frame is of another episode, or of none.
    is_first: the state is zeroed before this step.
    """

    frames: Int32[Either, "*lead T+1 B"]
    weight: Float32[Either, "*lead T B"]
    is_first: Bool[Either, "*lead T B"]


def random_windows(offsets: Offsets, length: int, batch: int, random: np.random.Generator) -> Places:
    """Windows inside episodes; short ones are padded with their last frame. Every step of every episode counts alike.

    A window that would reach over an episode's beginning or end is moved inside. Were all places inside equally likely,
    the first step and the last, which tells of an end, would each be in one of them alone, and others in `length`. Of
    those that the moved windows show more often, each time counts less.
    """
    steps = np.diff(offsets) - 1
    windows = np.where(steps > 0, steps + length - 1, 0)
    episode = random.choice(len(steps), size=batch, p=windows / windows.sum())
    start = (random.random(batch) * windows[episode]).astype(np.int64) - (length - 1)
    last = np.maximum(steps[episode] - length, 0)
    step = np.clip(start, 0, last) + np.arange(length + 1)[:, None]
    weight = length / _windows_with(step[:-1], steps[episode], last, length)
    weight[step[:-1] >= steps[episode]] = 0.0
    frames = offsets[episode] + np.minimum(step, steps[episode])
    is_first = np.zeros((length, batch), bool)
    is_first[0] = True
    return Places(frames.astype(np.int32), weight.astype(np.float32), is_first)


def _windows_with(
    step: Int[np.ndarray, "T B"], steps: Int[np.ndarray, "B"], last: Int[np.ndarray, "B"], length: int
) -> Int[np.ndarray, "T B"]:
    """In how many of the `steps + length - 1` windows of an episode a step lies: in `length` at least.

    Args:
      last: where the last window begins after it was moved.
    """
    from_, to = np.clip(step - length + 1, 0, last), np.minimum(step, last)
    before, behind = length - 1, steps - 1 - last  # windows that are moved to the beginning, and to the end
    return to - from_ + 1 + before * (from_ == 0) + behind * (to == last)


class Lanes:
    """B lanes of equal length through all episodes, whose order is shuffled anew for every pass."""

    def __init__(self, offsets: Offsets, length: int, batch: int, seed: int):
        self._offsets, self._length, self._batch, self._seed = offsets, length, batch, seed
        self._lane = int(offsets[-1]) // batch
        if self._lane < 2:
            raise UserError(
                f"memory.batch {batch}: with carry_state every one of them needs frames of its own, and there are "
                f"{int(offsets[-1]):,} in all; lower it, or collect more episodes"
            )
        self.windows = max(1, -(-(self._lane - 1) // length))
        self._pass = -1
        self._row = np.empty(0, np.int64)
        self._begins = self._ends = np.empty(0, bool)

    def window(self, step: int) -> Places:
        """The windows of update `step`: each begins where the one before ended."""
        turn, window = divmod(step, self.windows)
        if turn != self._pass:
            self._shuffle(turn)
        time = window * self._length + np.arange(self._length + 1)[:, None]
        lane_start = np.arange(self._batch)[None, :] * self._lane
        places = lane_start + np.minimum(time, self._lane - 1)
        inside = np.broadcast_to(time[:-1] < self._lane - 1, (self._length, self._batch))
        is_first = self._begins[places[:-1]] & inside
        if window == 0:
            is_first[0] = True
        real = ~self._ends[places[:-1]] & inside
        return Places(self._row[places].astype(np.int32), real.astype(np.float32), is_first)

    def _shuffle(self, turn: int) -> None:
        order = streams.generator(self._seed, "lanes", turn).permutation(len(self._offsets) - 1)
        begins, ends = self._offsets[:-1], self._offsets[1:] - 1
        self._row = np.concatenate([np.arange(int(begins[e]), int(ends[e]) + 1) for e in order])
        flags = np.zeros((2, len(self._row)), bool)
        flags[0, begins], flags[1, ends] = True, True
        self._begins, self._ends = flags[:, self._row]
        self._pass = turn


class Windows:
    """Where the windows of every update lie; it depends on the seed and on the update's number alone.

    Args:
      offsets: of the episodes.
      length: T.
      batch: B.
      carried: lanes with carried state instead of independent windows.
    """

    def __init__(self, offsets: Offsets, length: int, batch: int, seed: int, carried: bool):
        self._offsets, self._length, self._batch, self._seed = offsets, length, batch, seed
        self._lanes = Lanes(offsets, length, batch, seed) if carried else None

    def places(self, step: int) -> Places:
        """Those of one update."""
        if self._lanes is not None:
            return self._lanes.window(step)
        random = streams.generator(self._seed, "windows", step)
        return random_windows(self._offsets, self._length, self._batch, random)


class SequenceBatches:
    """Batches of `Sequences` (`data.frames.Batches`) from latents that live on the device; only places travel.

    Args:
      length, batch, carried: see `Windows`.
    """

    batch_axis = 2

    def __init__(self, latents: FlatLatents, length: int, batch: int, seed: int, carried: bool):
        self.data: Any = jax.tree.map(jnp.asarray, latents._replace(offsets=np.empty(0, np.int32)))
        self.windows = Windows(np.asarray(latents.offsets), length, batch, seed, carried)

    def references(self, step: int, count: int, room: int) -> Places:
        """Places of `count` updates, stacked and padded to `room`."""
        return _stacked([self.windows.places(step + i) for i in range(count)], room)

    def fetch(self, data: FlatLatents, reference: Places) -> Sequences:
        """One batch, time first."""
        return jax.tree.map(jnp.asarray, cut(data, reference))

    def close(self) -> None:
        """See `data.frames.Batches`."""
        self.data = ()


class StreamedSequences:
    """The batches of `SequenceBatches`, cut on the host from latents that stay there, one dispatch ahead.

    Args:
      length, batch, carried: see `Windows`.
      following: where the dispatch that starts at a given step ends.
    """

    batch_axis = 2
    data = ()

    def __init__(
        self,
        latents: FlatLatents,
        length: int,
        batch: int,
        seed: int,
        carried: bool,
        following: Callable[[int], int],
    ):
        self._latents = latents
        self.windows = Windows(np.asarray(latents.offsets), length, batch, seed, carried)
        self._ahead = ReadAhead(self._load, following)

    def references(self, step: int, count: int, room: int) -> Any:
        """`Sequences` of `count` updates, stacked and padded to `room`."""
        return self._ahead.get(step, count, room)

    def fetch(self, data: tuple[()], reference: Sequences) -> Sequences:
        """One batch, time first."""
        return reference

    def close(self) -> None:
        """See `data.frames.Batches`."""
        self._ahead.close()

    def _load(self, step: int, count: int, room: int) -> Any:
        return _stacked([cut(self._latents, self.windows.places(step + i)) for i in range(count)], room)


def cut(latents: FlatLatents, places: Places) -> Any:
    """The `Sequences` at these places, as arrays of the same kind: on the device, or on the host."""
    now = places.frames[:-1]
    is_first: Any = places.is_first
    weight: Any = places.weight
    return Sequences(
        latent=jax.tree.map(lambda array: array[places.frames], latents.latent),
        action=latents.action[now],
        reward=latents.reward[now],
        done=latents.done[now],
        is_first=is_first,
        weight=weight,
    )


def _stacked(rows: list[Any], room: int) -> Any:
    """Trees of arrays, stacked; the last stands for those that are missing."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows, *[rows[-1]] * (room - len(rows)))
