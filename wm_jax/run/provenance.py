"""What made what: the one comparison of settings and parents with those on record, and its one style of message.

An artifact is good for what it was made with and from. Whatever is to go on with it, or to be built on it, is held
against its record here: its own stage (`folder.py`), the stages that open it (`artifacts.py`), and the settings of
those that are built on it (`ancestors.py`).
"""

import contextlib
import importlib.metadata
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wm_jax import __version__
from wm_jax.config.schema import CHOICES, all_fields, chosen_type, current_names, default_of
from wm_jax.config.text import shown
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import plain

RECORDED_PACKAGES = ("jax", "flax", "optax", "evosax", "orbax-checkpoint", "envpool", "gymnasium", "ale-py", "numpy")


class Difference(NamedTuple):
    """What an artifact was made with, or from, and what is asked for now.

    key: a setting as `section.key`, or the name of a parent.
    """

    key: str
    was: Any
    now: Any


def first_difference(was: Mapping[str, Any], now: Mapping[str, Any], first: str = "") -> Difference | None:
    """The first value that differs; the game before all others, and what chooses a section's type before the rest of
    it, since they may be why the others differ.

    Args:
      was, now: by key. What the record lacks is the setting's default: it did not exist yet when the record was made.
      first: the section whose settings come next, since they may be why those of others matter at all.
    """
    was = current_names("", was)
    choosing = {f"{section}.{choice.key}" for section, choice in CHOICES.items()}
    order = {key: (key != "game", key.partition(".")[0] != first, key not in choosing, key) for key in (*was, *now)}
    for key in sorted(order, key=lambda key: order[key]):
        if _is_idle(key, was) and _is_idle(key, now):
            continue
        difference = Difference(key, *(each.get(key, default_of(key)) for each in (was, now)))
        if difference.was != difference.now:
            return difference
    return None


def _is_idle(key: str, settings: Mapping[str, Any]) -> bool:
    """Does the type that these settings choose for their section lack this one? Earlier records have such, too."""
    section, _, name = key.partition(".")
    if section not in CHOICES or name not in all_fields(section):
        return False
    prefix = f"{section}."
    mine = {other.removeprefix(prefix): value for other, value in settings.items() if other.startswith(prefix)}
    return name not in chosen_type(section, mine).model_fields


def require_same(
    path: Path,
    was: Mapping[str, Any],
    now: Mapping[str, Any],
    *remedies: str,
    first: str = "",
    mend: str = "give that",
) -> None:
    """Refuse an artifact that was made otherwise.

    Args:
      path: of the artifact.
      was, now, first: see `first_difference`.
      remedies: what the user may do instead of making things as they were.
      mend: the advice where the recorded value is not empty.

    Raises:
      UserError: the first difference, with both values and the remedies.
    """
    difference = first_difference(was, now, first)
    if difference is not None:
        unset = difference.was in (None, {})
        raise misfit(path, *difference, "leave it out" if unset else mend, *remedies)


def misfit(path: Path, key: str, was: Any, now: Any, *remedies: str) -> UserError:
    """The error for an artifact that was made with, or from, something else than there is now."""
    return UserError(f"{path} was made with {key} {_short(was)}, but now it is {_short(now)}: {', or '.join(remedies)}")


def identity(settings: Mapping[str, Any], parents: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What tells an artifact from others, as `stage.json` records it.

    Args:
      settings: by section, as in {"vae": {"beta": 1}}, which becomes {"vae.beta": 1}, or by key.
      parents: identities of what it is made from, by name.
    """
    flat: dict[str, Any] = {}
    for key, value in plain(settings).items():
        flat |= {f"{key}.{name}": leaf for name, leaf in value.items()} if isinstance(value, dict) else {key: value}
    return {"settings": flat, "parents": plain(parents)}


def made_with() -> dict[str, str]:
    """Versions of what the figures depend on."""
    versions = {"python": platform.python_version(), "wm_jax": __version__}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def now() -> str:
    """Local time, readable and sortable."""
    return time.strftime("%Y-%m-%d %H:%M:%S%z")


def _short(value: Any) -> str:
    """A setting's value as it is given; of a digest its first digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}", r"\1", shown(value))
