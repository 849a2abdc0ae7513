"""From what a Gymnasium environment declares to what we play: RGB screens, and actions of `envs/spaces.py`.

Whatever an environment shows is held against what it declared before it is converted: a game that is not what it says
it is would otherwise be recorded, and learned from, without a word.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import DTypeLike, NDArray

from wm_jax.envs.spaces import ActionSpace, Continuous, Discrete

MOST_COMBINATIONS = 64
"""Of a MultiDiscrete or MultiBinary action: each becomes an output of the controller."""
LEAST_SIDE = 8
"""Pixels of a picture that is not plainly one (uint8 of height x width x 3): smaller boxes are tables of numbers."""
_WIDEST = 65_535
"""Of the bounds of pictures: those of 16 bits."""
_UNBOUNDED = 1e18
"""Bounds beyond this are none: their difference would be infinite in float32."""
_TOLERANCE = 1e-3
"""By this share of its range a float may lie outside: it is a matter of rounding."""

_WRAP = "wrap it in a module of yours and register that (gymnasium:MODULE:ID)"


class Unplayable(ValueError):
    """An environment whose observations or actions are of a kind that we don't play, or not with these settings."""


class Undeclared(ValueError):
    """An environment returned something else than it declared."""


class Layout(NamedTuple):
    """Where a picture's pixels are in its array."""

    height: int
    width: int
    channels: int
    axis: int | None
    """Of the channels: -1, 0, or None where there is no such axis."""


@dataclass(frozen=True)
class Pictures:
    """How RGB screens are made of what an environment shows.

    path: keys that lead to the picture in an observation.
    dtype, shape: of the picture, as declared.
    low, high: declared bounds of its values, numbers or arrays of that shape; None where no value can lie outside.
    scale: the two values that become 0 and 255 (None: the values stay).
    """

    path: tuple[Any, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    layout: Layout
    low: Any = None
    high: Any = None
    scale: tuple[float, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the screens, in pixels."""
        return self.layout.height, self.layout.width

    @property
    def remarks(self) -> tuple[str, ...]:
        """Every conversion, in words."""
        found = []
        if self.path:
            found.append(f"of each observation, the entry {_name(self.path)} is seen")
        if self.layout.axis == 0:
            found.append("pictures come with the channels first, which are moved last")
        if self.layout.channels != 3:
            found.append("pictures are grey" if self.layout.channels == 1 else "of RGBA pictures, alpha is left out")
        if self.scale is not None and self.scale != (0, 255):
            found.append(f"pixels of {self.dtype} in [{self.scale[0]:g}, {self.scale[1]:g}] are scaled to 0..255")
        elif self.dtype != np.uint8:
            found.append(f"pixels of {self.dtype} are rounded to uint8")
        return tuple(found)

    def screen(self, observation: Any, deed: str) -> NDArray[np.uint8]:
        """The RGB screen uint8 [H, W, 3] of an observation.

        Args:
          deed: what returned it, for the error.

        Raises:
          Undeclared: its type, shape or range is not the declared one.
        """
        for i, key in enumerate(self.path):
            try:
                observation = observation[key]
            except (KeyError, IndexError, TypeError):
                entry = _name(self.path[: i + 1])
                raise Undeclared(f"it declared an entry {entry} of observations, but {deed} returned none") from None
        picture = np.asarray(observation)
        if (picture.dtype, picture.shape) != (self.dtype, self.shape):
            raise Undeclared(
                f"it declared pictures of {_words(self.dtype, self.shape)}, but {deed} returned "
                f"{_words(picture.dtype, picture.shape)}"
            )
        if self.low is not None and not self._within(picture):
            raise Undeclared(
                f"it declared pictures within [{np.min(self.low):g}, {np.max(self.high):g}], but {deed} returned one "
                f"that lies outside, with values from {picture.min():g} to {picture.max():g}"
            )
        if self.scale is not None:
            low, high = self.scale
            picture = np.clip(np.rint((picture - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
        picture = picture[..., None] if self.layout.axis is None else np.moveaxis(picture, self.layout.axis, -1)
        picture = np.repeat(picture, 3, axis=-1) if self.layout.channels == 1 else picture[..., :3]
        return np.ascontiguousarray(picture)

    def _within(self, picture: NDArray[Any]) -> bool:
        """Are all values within the declared bounds? NaN is within none."""
        slack = _TOLERANCE * (self.high - self.low) if np.issubdtype(self.dtype, np.floating) else 0
        return bool((picture >= self.low - slack).all() and (picture <= self.high + slack).all())


def pictures(space: spaces.Space[Any], key: str | None) -> Pictures:
    """How screens are made of observations of this space.

    Args:
      key: which entry of a Dict is the picture (None: the only one).

    Raises:
      Unplayable: none of it is a picture, or nobody said which.
    """
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        if key is not None:
            raise Unplayable(f"env.observation {key}: observations are {space}, not a Dict; leave it out")
        found = _of_box((), space)
        if found is None:
            raise Unplayable(
                f"observations are {space}, not images (Box of height x width x 3, or grey, RGBA or channels first; "
                f"uint8, or float with bounds): give env.pixels render to see what it draws, or {_WRAP}"
            )
        return found
    entries = {_name(path): (leaf, _of_box(path, leaf)) for path, leaf in _leaves((), space)}
    images = [name for name, (_, found) in entries.items() if found is not None]
    choice = f"choose {' or '.join(images)} with env.observation"
    if not images:
        kinds = ", ".join(f"{name}: {leaf}" for name, (leaf, _) in entries.items())
        raise Unplayable(
            f"observations have no entry that is an image ({kinds}): give env.pixels render to see what it draws, "
            f"or {_WRAP}"
        )
    if key is None and len(images) > 1:
        raise Unplayable(f"observations have several images; {choice}")
    leaf, found = entries.get(images[0] if key is None else key, (None, None))
    if found is None:
        what = "no such entry of the observations" if leaf is None else f"this entry is {leaf}, not an image"
        raise Unplayable(f"env.observation {key}: {what}; {choice}")
    return found


def drawn(picture: Any) -> Pictures:
    """How screens are made of what an environment draws: like the first of its pictures.

    Raises:
      Undeclared: that is no picture.
    """
    shape, dtype = np.shape(picture), getattr(picture, "dtype", None)
    layout = _layout(shape) if dtype == np.uint8 else None
    if layout is None:
        what = type(picture).__name__ if dtype is None else _words(dtype, shape)
        raise Undeclared(f"it declared the render mode rgb_array, but render returned {what}")
    return Pictures((), np.dtype(np.uint8), shape, layout)


def _of_box(path: tuple[Any, ...], space: spaces.Space[Any]) -> Pictures | None:
    """For a space that is a picture."""
    if not isinstance(space, spaces.Box) or space.dtype is None:
        return None
    layout = _layout(space.shape)
    low, high = float(space.low.min()), float(space.high.max())
    uniform = bool((space.low == low).all() and (space.high == high).all())
    if layout is None or (_is_small(layout) and not (space.dtype == np.uint8 and space.shape[2:] == (3,))):
        return None
    if space.dtype == np.uint8:
        free = uniform and (low, high) == (0, 255)
        bounds = (None, None) if free else (space.low, space.high)
        return Pictures(path, space.dtype, space.shape, layout, *bounds)
    # Bounds far from any picture's are a way to say that there are none: scaled by them, all would be one grey.
    if not uniform or low >= high or not np.isfinite([low, high]).all() or high - low > _WIDEST:
        return None
    if np.issubdtype(space.dtype, np.floating):
        return Pictures(path, space.dtype, space.shape, layout, low, high, (low, high))
    return Pictures(path, space.dtype, space.shape, layout, low, high, (low, high)) if (low, high) == (0, 255) else None


def _layout(shape: tuple[int, ...]) -> Layout | None:
    """Where height, width and channels are; None for what is no picture.

    Four planes that come first are taken for stacked frames, not for RGBA.
    """
    if len(shape) == 2 and min(shape) >= LEAST_SIDE:
        return Layout(*shape, 1, None)
    found = []
    if len(shape) == 3 and shape[-1] in (1, 3, 4):
        found.append(Layout(*shape, -1))
    if len(shape) == 3 and shape[0] in (1, 3):
        found.append(Layout(shape[1], shape[2], shape[0], 0))
    return min(found, key=_is_small, default=None)


def _is_small(layout: Layout) -> bool:
    return min(layout.height, layout.width) < LEAST_SIDE


def _leaves(path: tuple[Any, ...], space: spaces.Space[Any]) -> Iterator[tuple[tuple[Any, ...], spaces.Space[Any]]]:
    """Every entry of nested spaces, with the keys that lead there."""
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves((*path, key), inner)
    elif isinstance(space, spaces.Tuple):
        for place, inner in enumerate(space.spaces):
            yield from _leaves((*path, place), inner)
    else:
        yield path, space


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _words(dtype: DTypeLike, shape: tuple[int, ...]) -> str:
    return f"{np.dtype(dtype)} {list(shape)}"


class Moves(NamedTuple):
    """How an environment is acted on.

    space: the actions as we play them.
    convert: from an index of `Discrete.indices`, or a vector float32[A], to an action of the environment.
    remarks: every conversion, in words.
    """

    space: ActionSpace
    convert: Callable[[Any], Any]
    remarks: tuple[str, ...] = ()


def moves(space: spaces.Space[Any]) -> Moves:
    """How to act in a space.

    Raises:
      Unplayable: it is of another kind, or has too many combinations.
    """
    if isinstance(space, spaces.Discrete):
        numbers = tuple(range(int(space.start), int(space.start) + int(space.n)))
        return Moves(Discrete(tuple(map(str, numbers)), numbers), int)
    if isinstance(space, spaces.MultiDiscrete):
        return _combined(space, np.asarray(space.nvec), np.asarray(space.start), ":")
    if isinstance(space, spaces.MultiBinary):
        return _combined(space, np.full(space.shape, 2), np.zeros(space.shape, np.int64), "")
    if isinstance(space, spaces.Box):
        return _vector(space)
    raise Unplayable(
        f"actions are {space}; only Discrete, MultiDiscrete, MultiBinary and Box can be played: choose another game, "
        f"or {_WRAP}"
    )


def _combined(space: spaces.Space[Any], counts: NDArray[Any], start: NDArray[Any], between: str) -> Moves:
    """Several choices as one: of all their combinations, the last choice changing fastest."""
    total = int(np.prod(counts, dtype=object))
    if total > MOST_COMBINATIONS:
        raise Unplayable(
            f"actions are {space} with {total:,} combinations; up to {MOST_COMBINATIONS} can be played: {_WRAP}, "
            "with those that matter as a Discrete"
        )
    table = np.stack([start + np.reshape(each, counts.shape) for each in np.ndindex(*counts.ravel().tolist())])
    table = table.astype(space.dtype)
    names = tuple(between.join(map(str, each.ravel().tolist())) for each in table)
    remark = f"actions of {space} are played as one choice of {total} combinations, from {names[0]} to {names[-1]}"
    return Moves(Discrete(names, tuple(range(total))), lambda index: table[index].copy(), (remark,))


def _vector(space: spaces.Box) -> Moves:
    """A box of any shape as a vector within finite bounds."""
    if 0 in space.shape:
        raise Unplayable(f"actions are {space}, which are empty: there is nothing to play")
    names = tuple("_".join(["action", *map(str, index)]) for index in np.ndindex(*space.shape))
    bounds = [_finite(float(low), float(high)) for low, high in zip(space.low.flat, space.high.flat, strict=True)]
    remarks = []
    if len(space.shape) != 1:
        remarks.append(f"actions of shape {list(space.shape)} are played as a vector of {len(names)}")
    for name, low, high, (least, most) in zip(names, space.low.flat, space.high.flat, bounds, strict=True):
        if (least, most) != (low, high):
            remarks.append(f"{name} has no bounds [{low:g}, {high:g}], and is played within [{least:g}, {most:g}]")
    whole = np.issubdtype(space.dtype, np.integer)
    if whole:
        remarks.append(f"actions are rounded to {space.dtype}")

    def convert(vector: NDArray[np.float32]) -> NDArray[Any]:
        action = np.reshape(vector, space.shape)
        if whole:
            return np.clip(np.rint(action.astype(np.float64)), space.low, space.high).astype(space.dtype)
        # The bounds are held in the declared type: in float32 they may have been rounded outwards.
        return np.clip(action.astype(space.dtype), space.low, space.high)

    low, high = (tuple(side) for side in zip(*bounds, strict=True))
    return Moves(Continuous(names, low, high, ("tanh",) * len(names)), convert, tuple(remarks))


def _finite(low: float, high: float) -> tuple[float, float]:
    """Bounds with those that are missing replaced: [-1, 1], moved as far as the other one asks."""
    has_low, has_high = low > -_UNBOUNDED, high < _UNBOUNDED
    return (
        low if has_low else min(-1.0, high - 1.0) if has_high else -1.0,
        high if has_high else max(1.0, low + 1.0) if has_low else 1.0,
    )
