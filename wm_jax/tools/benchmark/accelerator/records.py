"""What was measured so far: a line of JSON for everything that happens, written at once, so that nothing is lost.

    {"report": 1, "small": false, "device": "NVIDIA H100 80GB HBM3"}
    {"part": "game", "name": "late, 1,024 slots", "state": "begun"}
    {"part": "game", "name": "late, 1,024 slots", "state": "done", "seconds": 4.2, "figures": {...}}

A measurement that was begun and has no other line ended the process, or was ended with it.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from wm_jax.tools.benchmark.accelerator.measurement import Figures
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import to_json

State = Literal["begun", "done", "failed", "skipped"]
VERSION = 1
WHOLE = "all of it"
"""The name of what concerns a whole part, such as that no time was left for it."""


class Records:
    """The lines of one report.

    Args:
      path: of the file.
      about: what all of them belong to: whether sizes are `small`, and the `device`.

    Raises:
      UserError: the file belongs to something else.
    """

    def __init__(self, path: Path, about: dict[str, Any]):
        self._path = path
        self.about, head = about, {"report": VERSION, **about}
        lines = _read(path)
        if not lines:
            self._append(head)
        elif lines[0] != head:
            differing = ", ".join(f"{name} {lines[0].get(name)}, not {head[name]}" for name in head
                                  if lines[0].get(name) != head[name])  # fmt: skip
            raise UserError(f"{path} is of another report ({differing}): give another folder")
        self._lines = lines[1:]

    def add(self, part: str, name: str, state: State, **more: Any) -> None:
        """Write a line."""
        line = {"part": part, "name": name, "state": state, **more}
        self._lines.append(line)
        self._append(line)

    def last(self, part: str) -> dict[str, dict[str, Any]]:
        """The last line of every measurement of a part, by name, in the order of their first ones."""
        lines = [line for line in self._lines if line["part"] == part]
        last = {line["name"]: line for line in lines}
        if WHOLE in last and lines[-1]["name"] != WHOLE:
            del last[WHOLE]  # the part was taken since
        return last

    def is_done(self, part: str, name: str) -> bool:
        """Was it measured?"""
        return self.last(part).get(name, {}).get("state") == "done"

    def tries(self, part: str, name: str) -> int:
        """How often it was begun."""
        return sum((line["part"], line["name"], line["state"]) == (part, name, "begun") for line in self._lines)

    def figures(self, part: str, name: str) -> Figures:
        """What was found; nothing if it wasn't measured."""
        return self.last(part).get(name, {}).get("figures", {})

    def count(self, parts: Iterable[str]) -> Counter[str]:
        """How many measurements are in which state."""
        return Counter(line["state"] for part in parts for line in self.last(part).values())

    def _append(self, line: dict[str, Any]) -> None:
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a") as file:
            file.write("\n" * torn + to_json(line) + "\n")


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, without those that the end of a process tore."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
