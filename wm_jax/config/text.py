"""Settings as text: as they are given on the command line, and the names near a mistyped one."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from wm_jax.utils.errors import UsageError

_SCIENTIFIC = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def arguments_of(option: str, words: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE words as a mapping; values are YAML.

    Raises:
      UsageError: a word is not NAME=VALUE.
    """
    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not name.isidentifier() or not equals or not text:
            raise UsageError(f"{option} {word}: give NAME=VALUE, with a value as in YAML")
        if name in found:
            raise UsageError(f"{option} {word}: {name} is given twice; give it once")
        # YAML 1.1 takes 1e-3 for a word, which nobody means.
        found[name] = float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value
    return found


def shown(value: Any) -> str:
    """A setting's value as it is given on the command line."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={json.dumps(each)}" for name, each in value.items()) or "none"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def nearest(word: str, known: tuple[str, ...]) -> str:
    """`; did you mean a, b?` for the names near `word`, or nothing."""
    near = alike(word, known)[:3]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def alike(word: str, known: tuple[str, ...]) -> list[str]:
    """The ten names nearest to `word`, of those that are near at all."""
    return difflib.get_close_matches(word, known, n=10, cutoff=0.5)
