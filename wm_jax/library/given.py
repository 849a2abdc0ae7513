"""What callers hand in, seen to before anything is opened, played or trained."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

LARGEST_SEED = 2**31 - 1


def seeds_of(seeds: Any) -> list[int]:
    """The seeds of episodes, one at least.

    Raises:
      ValueError: they are no whole numbers that a game takes.
    """
    if not isinstance(seeds, Iterable):
        raise ValueError(f"seeds: {seeds!r}, expected one for each episode, in a list")
    found = [np.asarray(seed).item() if np.ndim(seed) == 0 else seed for seed in seeds]
    if not found:
        raise ValueError("seeds: give one for each episode")
    if wrong := [seed for seed in found if not _is_seed(seed)]:
        raise ValueError(f"seeds: {wrong[0]!r}, expected whole numbers from 0 to {LARGEST_SEED:,}")
    return found


def _is_seed(seed: Any) -> bool:
    return isinstance(seed, Integral) and not isinstance(seed, bool) and 0 <= int(seed) <= LARGEST_SEED


def path_of(path: Any, name: str) -> Path:
    """A path, with `~` resolved.

    Args:
      name: of the argument.

    Raises:
      TypeError: it is none.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"{name}: {path!r}, expected a path")
    return Path(path).expanduser()


def film_of(path: Any) -> Path:
    """Where a film is to lie.

    Raises:
      TypeError: it is no path.
      ValueError: no film can be written there.
    """
    found = path_of(path, "path")
    if found.is_dir() or found.suffix.lower() != ".mp4":
        raise ValueError(f"path: {found}, expected a file that ends in .mp4")
    return found


def settings_of(settings: Any, name: str) -> dict[str, Any]:
    """Settings by name.

    Args:
      name: of the argument.

    Raises:
      TypeError: they are none.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise TypeError(f"{name}: {settings!r}, expected settings by name, such as {{'steps': 2000}}")
    return dict(settings or {})


def environment_of(made: Any) -> Any:
    """An environment with Gymnasium's methods.

    Raises:
      TypeError: it lacks one.
    """
    if lacking := [name for name in ("reset", "step", "close") if not callable(getattr(made, name, None))]:
        raise TypeError(f"make: it made {type(made).__name__}, which has no {lacking[0]}; see wm_jax.play")
    return made
