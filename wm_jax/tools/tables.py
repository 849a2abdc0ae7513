"""Tables that grow by a row at a time, and are there after an interruption: NAME.json, and NAME.md for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_jax.utils import markdown
from wm_jax.utils.files import plain, read_manifest, write_atomically, write_manifest

Rows = dict[str, dict[str, Any]]
"""The figures of each row, by its name, which is a number."""


def read_rows(folder: Path, name: str, remedy: str) -> Rows:
    """The rows of a table that is there.

    Raises:
      UserError: it is damaged; the message ends with `remedy`.
    """
    path = folder / f"{name}.json"
    rows = read_manifest(path, remedy) if path.exists() else {}
    return {row: figures for row, figures in rows.items() if isinstance(figures, dict)}


def write_rows(folder: Path, name: str, header: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the whole table, its rows in the order of their numbers."""
    rows = dict(sorted(rows.items(), key=lambda row: float(row[0])))
    write_manifest(folder / f"{name}.json", plain(rows), indent=1)
    text = markdown.table(header, [[row, *figures.values()] for row, figures in rows.items()])
    write_atomically(folder / f"{name}.md", text.encode())
