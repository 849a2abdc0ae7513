"""Tables that grow by a row at a time, and are there after an interruption: NAME.json, and NAME.md for people."""

from collections.abc import Mapping
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


def write_rows(folder: Path, name: str, first: str, figures: Mapping[str, str], rows: Rows) -> None:
    """Write the whole table, its rows in the order of their numbers.

    Args:
      first: the title of the column of these numbers.
      figures: the titles of the others, by the names that the rows have for them.
    """
    rows = dict(sorted(rows.items(), key=lambda row: float(row[0])))
    write_manifest(folder / f"{name}.json", plain(rows), indent=1)
    cells = [[row, *(found.get(name) for name in figures)] for row, found in rows.items()]
    text = markdown.table([first, *figures.values()], cells)
    write_atomically(folder / f"{name}.md", text.encode())
