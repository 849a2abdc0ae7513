"""Recordings from elsewhere as episodes: folders of pictures, videos, .npz and HDF5 files, arrays in memory.

One recording is one file, or one folder of pictures; a folder of folders, or of files, is many. Names of arrays that
are common elsewhere are understood (`NAMES`). What does not fit is refused in one sentence that names the recording.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wm_jax.data.episodes import Episode
from wm_jax.distributed.progress import log
from wm_jax.envs.host.resize import shrink
from wm_jax.envs.spaces import ActionSpace
from wm_jax.utils.errors import UserError
from wm_jax.utils.extras import require

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
ARRAYS = (".npz", ".h5", ".hdf5")
NAMES = {
    "frames": ("frames", "observations", "observation", "obs", "images"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "ends": ("ends", "terminals", "dones", "done", "terminations", "terminated"),
    "cuts": ("cuts", "truncated", "truncations", "timeouts"),
}
"""What a recording may have, and what it may be called in a file."""
STRETCH, SHORTEST_STRETCH, STRETCHES = 500, 100, 10
"""A recording without ends is cut into stretches of so many steps, so that some of them can be kept for testing; where
that makes fewer than ten of all recordings, into shorter ones."""
LARGEST_CHOICE = 1000
"""More discrete actions than that are rather numbers of another kind."""


@dataclass(frozen=True)
class Recording:
    """Frames one after the other, and what was done between them.

    name: for people.
    frames: uint8 [N, 64, 64, 3].
    actions: int32 [N - 1] or [N], or float32 [.., A]: action i follows frame i. None: there are none.
    rewards: float32, for each action.
    ends: bool, for each action: the episode ended with it.
    cuts: bool, for each action: the episode was cut off after it, and what follows is another one.
    """

    name: str
    frames: np.ndarray
    actions: np.ndarray | None
    rewards: np.ndarray | None
    ends: np.ndarray | None
    cuts: np.ndarray | None = None

    def last(self, count: int) -> np.ndarray:
        """bool[count]: after which actions another episode follows."""
        marked = [each for each in (self.ends, self.cuts) if each is not None]
        return np.logical_or.reduce(marked) if marked else np.zeros(count, bool)


def recordings(source: Path) -> Iterator[Recording]:
    """All that a file or a folder holds, one at a time, in the order of the names.

    Raises:
      UserError: there is nothing, or something that cannot be read.
    """
    if not source.exists():
        raise UserError(f"{source}: there is no such file or folder")
    if source.is_file():
        yield _of_file(source)
        return
    inside = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    pictures = [path for path in inside if path.suffix.lower() in PICTURES]
    others = [path for path in inside if path.is_dir() or path.suffix.lower() in (*VIDEOS, *ARRAYS)]
    if pictures and others:
        raise UserError(
            f"{source}: {pictures[0].name} and {others[0].name} side by side; give pictures a folder of their own"
        )
    if pictures:
        yield checked(source.name, {"frames": _of_pictures(pictures)})
        return
    if not others:
        raise UserError(f"{source}: it holds no {', '.join((*PICTURES, *VIDEOS, *ARRAYS))}, nor folders of them")
    for path in others:
        yield from recordings(path)


def checked(name: str, arrays: Mapping[str, Any]) -> Recording:
    """A recording of arrays that anybody may have made.

    Args:
      name: for the errors.
      arrays: `frames` of any of the usual layouts; and `actions`, `rewards`, `ends`, `cuts`, or not (see `Recording`).

    Raises:
      UserError: something does not fit.
    """
    frames = _frames(name, np.asarray(arrays["frames"]))
    actions = _actions(name, arrays.get("actions"))
    count = len(frames)
    found: dict[str, np.ndarray | None] = {"actions": actions}
    for what in ("rewards", "ends", "cuts"):
        found[what] = _scalars(name, what, arrays.get(what))
        if found[what] is not None and actions is None:
            raise UserError(f"{name}: it has {what}, but no actions; give these, too, or leave {what} out")
    for what, values in found.items():
        if values is not None and (
            actions is None or len(values) != len(actions) or len(values) not in (count, count - 1)
        ):
            raise UserError(
                f"{name}: {len(values):,} {what} for {count:,} frames"
                + ("" if actions is None or what == "actions" else f" and {len(actions):,} actions")
                + "; there must be one for each frame, or one fewer"
            )
    recording = Recording(name, frames, actions, found["rewards"], found["ends"], found["cuts"])
    if actions is not None and len(actions) == count - 1 and recording.last(count - 1)[:-1].any():
        raise UserError(
            f"{name}: episodes end amid it, but there is no frame for each action ({count:,} and {count - 1:,}); give "
            "each episode a file of its own, or as many frames as actions"
        )
    return replace(recording, frames=shrink(frames, None))


def episodes(recording: Recording, space: ActionSpace, first: int, stretch: int = STRETCH) -> Iterator[Episode]:
    """The episodes of a recording; one without ends is cut into stretches.

    Where there are as many frames as actions, the frame after an episode's last action is not known: the last one that
    is stands in for it.

    Args:
      space: the actions.
      first: the number of the first one, which is kept as its seed.
      stretch: steps of what is cut.

    Raises:
      UserError: it holds no step.
    """
    frames, count = recording.frames, len(recording.frames)
    actions = recording.actions if recording.actions is not None else space.nothing(count - 1)
    rewards = recording.rewards if recording.rewards is not None else np.zeros(len(actions), np.float32)
    ends, cuts = (np.zeros(len(actions), bool) if each is None else each for each in (recording.ends, recording.cuts))
    last = recording.last(len(actions))
    if len(actions) == count:
        frames = np.concatenate([frames, frames[-1:]])
    for begin, end in spans(recording, stretch):
        shown = frames[begin : end + 1]
        if last[end - 1] and end < len(actions):  # what stands there is the next episode's first frame
            shown = np.concatenate([frames[begin:end], frames[end - 1 : end]])
        part = slice(begin, end)
        yield Episode(shown, actions[part], rewards[part], ends[part], cuts[part] & ~ends[part], first)
        first += 1


def stretch_of(found: Sequence[Recording]) -> int:
    """Into how many steps recordings without ends are cut: less than usual if they are few and short."""
    steps = sum(len(each.frames) - 1 for each in found)
    wanted = min(max(steps // STRETCHES, SHORTEST_STRETCH), STRETCH)
    return wanted if len(found) > 1 or steps > wanted else max(-(-steps // 2), 1)


def spans(recording: Recording, stretch: int = STRETCH) -> list[tuple[int, int]]:
    """Of each of its episodes the first action, and the one behind the last.

    Raises:
      UserError: it holds no step.
    """
    count = len(recording.frames) - 1 if recording.actions is None else len(recording.actions)
    if count == 0:
        raise UserError(f"{recording.name}: a single frame; give two or more, one after the other")
    last, found = recording.last(count), []
    for start, stop in itertools.pairwise([0, *(np.flatnonzero(last[:-1]) + 1).tolist(), count]):
        step = stop - start if last[stop - 1] else stretch
        found += [(begin, min(begin + step, stop)) for begin in range(start, stop, step)]
    return found


def arguments_for(actions: Sequence[np.ndarray | None]) -> dict[str, Any]:
    """What the actions of recordings are, as `envs.families.imported_actions` takes it.

    Args:
      actions: of each recording.

    Raises:
      UserError: they are not all of one kind.
    """
    kinds = {None if each is None else (each.dtype.kind, each.shape[1:]) for each in actions}
    if len(kinds) > 1:
        raise UserError("actions: some recordings have none, or others than the rest; import these apart")
    known = [each for each in actions if each is not None]
    if not known:
        return {}
    together = np.concatenate(known)
    if together.dtype.kind == "i":
        return {"actions": int(together.max()) + 1}
    return {"low": together.min(axis=0).tolist(), "high": together.max(axis=0).tolist()}


def _of_file(path: Path) -> Recording:
    suffix = path.suffix.lower()
    try:
        if suffix in VIDEOS:
            return checked(path.name, {"frames": _of_video(path)})
        if suffix in PICTURES:
            raise UserError(f"{path}: a single picture; give the folder that it lies in")
        if suffix == ".npz":
            with np.load(path) as file:
                return checked(path.name, _named(path, {name: file[name] for name in _known(path, file.files)}))
        if suffix in ARRAYS:
            return checked(path.name, _of_hdf5(path))
    except UserError:
        raise
    except Exception as error:  # whatever the libraries that read it raise over a damaged one
        raise UserError(f"{path}: it can't be read ({type(error).__name__}: {error})") from None
    raise UserError(
        f"{path}: no kind of file that is known; give {', '.join((*VIDEOS, *ARRAYS))}, or a folder of pictures"
    )


def _known(path: Path, names: Sequence[str]) -> list[str]:
    """Of the names in a file those that are understood."""
    found = [name for name in names if any(name in ours for ours in NAMES.values())]
    if not any(name in NAMES["frames"] for name in found):
        raise UserError(
            f"{path}: it has no frames, only {', '.join(names) or 'nothing'}; name them {NAMES['frames'][0]}"
        )
    if len(found) < len(names):
        log(
            f"{path.name}: {', '.join(sorted({*names} - {*found}))}: left out; what is understood is in docs/library.md"
        )
    return found


def _named(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By our names."""
    ours: dict[str, np.ndarray] = {}
    for what, names in NAMES.items():
        there = [name for name in names if name in arrays]
        if len(there) > 1:
            raise UserError(f"{path}: {' and '.join(there)} may both be its {what}; leave one out")
        if there:
            ours[what] = arrays[there[0]]
    return ours


def _of_hdf5(path: Path) -> dict[str, np.ndarray]:
    require("hdf5", f"{path}: reading HDF5")
    import h5py  # pyright: ignore[reportMissingImports]

    with h5py.File(path, "r") as file:
        arrays = {name: file[name] for name in _known(path, list(file))}
        return _named(path, {name: np.asarray(each) for name, each in arrays.items()})


def _of_video(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as video:
        if not video.streams.video:
            raise UserError(f"{path}: there are no pictures in it")
        return _together(path.name, (frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)))


def _of_pictures(paths: Sequence[Path]) -> np.ndarray:
    return _together(str(paths[0].parent), map(_picture, paths))


def _picture(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                grey = np.asarray(picture).astype(np.int64) >> 8
                return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: it can't be read ({error})") from None


def _together(name: str, frames: Iterable[np.ndarray]) -> np.ndarray:
    """Shrunk one by one, for large ones together may not fit into memory; pictures may be of different sizes."""
    small = [shrink(frame[None], None) for frame in frames]
    if not small:
        raise UserError(f"{name}: there are no frames in it")
    return np.concatenate(small)


def _frames(name: str, frames: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] of frames in any usual layout."""
    if frames.ndim == 3 and frames.shape[-1] in (3, 4):
        raise UserError(f"{name}: a single picture {list(frames.shape)}; stack them, [frames, height, width, 3]")
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.ndim != 4 or 0 in frames.shape:
        raise UserError(f"{name}: frames {list(frames.shape)}; give [frames, height, width, 3]")
    if frames.shape[-1] not in (1, 3, 4) and frames.shape[1] in (1, 3, 4):
        frames = np.moveaxis(frames, 1, -1)
    if frames.shape[-1] not in (1, 3, 4):
        raise UserError(f"{name}: frames of {frames.shape[-1]} channels; give 3 (colours), 1 (grey) or 4 (with alpha)")
    frames = np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames[..., :3]
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise UserError(f"{name}: frames of type {frames.dtype}; give uint8, or floats in [0, 1]")
    low, high = frames.min(), frames.max()
    if not (low >= 0 and high <= 1):  # as it is if one of them is NaN
        raise UserError(f"{name}: frames from {low:.4g} to {high:.4g}; give uint8, or finite floats in [0, 1]")
    return np.round(frames * 255).astype(np.uint8)


def _actions(name: str, actions: Any) -> np.ndarray | None:
    if actions is None:
        return None
    actions = np.asarray(actions)
    if actions.ndim == 2 and actions.shape[1] == 1 and np.issubdtype(actions.dtype, np.integer):
        actions = actions[:, 0]
    if np.issubdtype(actions.dtype, np.integer) and actions.ndim == 1:
        if actions.size and not 0 <= actions.min() <= actions.max() < LARGEST_CHOICE:
            raise UserError(
                f"{name}: actions from {actions.min()} to {actions.max()}; choices are 0 to {LARGEST_CHOICE - 1}; give "
                "others as floats"
            )
        return actions.astype(np.int32)
    if np.issubdtype(actions.dtype, np.floating) and actions.ndim in (1, 2) and 0 not in actions.shape[1:]:
        if not np.isfinite(actions).all():
            raise UserError(f"{name}: actions that are not finite")
        return actions.reshape(len(actions), -1).astype(np.float32)
    raise UserError(f"{name}: actions {actions.dtype} {list(actions.shape)}; give integers [T], or floats [T, A]")


def _scalars(name: str, what: str, values: Any) -> np.ndarray | None:
    """Rewards as float32 [T], ends and cuts as bool [T]."""
    if values is None:
        return None
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise UserError(f"{name}: {what} {values.dtype} {list(values.shape)}; give one number for each step, [T]")
    if not np.isfinite(values).all():
        raise UserError(f"{name}: {what} that are not finite")
    if what == "rewards":
        return values.astype(np.float32)
    if not np.isin(values, (0, 1)).all():
        raise UserError(f"{name}: {what} other than 0 and 1 (false and true)")
    return values.astype(bool)
