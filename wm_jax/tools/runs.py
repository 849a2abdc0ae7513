"""runs: which runs there are, how far each is, how large, and what its agent scores.

bin/runs            # in runs/
bin/runs elsewhere/ --json
"""

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wm_jax.run.folder import NAMED, Run
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils.arguments import Parser
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import to_json

SCORES = ("official_mean", "official_ci_low", "official_ci_high", "official_episodes")
DEEPEST = 4
"""Folders in which runs are looked for, below the one that is named, those of `named/` not counted."""


def main(arguments: Sequence[str] = ()) -> int:
    """Print the list; returns the exit status."""
    parser = Parser(prog="bin/runs", description="Says which runs there are, how far each is, its size and its score.")
    parser.add_argument("folder", nargs="?", default="runs", help="where they lie [runs]")
    parser.add_argument("--json", action="store_true", help="print them as one line of JSON")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)  # taken by every command
    options = parser.parse_args(arguments)
    folder = Path(options.folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one that holds runs")
    found = [described(path, folder) for path in runs_in(folder)]
    print(to_json(found) if options.json else _table(found, folder))
    return 0


def runs_in(folder: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """The folders of runs, this one itself among them, and those that are named there."""
    if any((folder / artifact / "stage.json").is_file() for artifact in CHAIN) or (folder / "base.json").is_file():
        yield folder
        folder, depth = folder / NAMED, DEEPEST
    if depth and folder.is_dir():
        for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from runs_in(path, depth - 1)


def described(path: Path, folder: Path) -> dict[str, Any]:
    """What there is to say of a run.

    Args:
      folder: in which it is looked for; its name is the way from there.
    """
    row: dict[str, Any] = {"run": str(path.relative_to(folder)), "path": str(path)}
    try:
        run = Run.open(path)
        own = {name: run.stage(name) for name in CHAIN if run.stage(name).run == run}
        states = {name: _state(stage) for name, stage in own.items() if stage.path.is_dir()}
        config = next((found["config"] for stage in own.values() if (found := stage.manifest()) is not None), {})
        scores = (own["evaluation"].summary() if "evaluation" in own else None) or {}
        row |= {"game": config.get("game"), "preset": config.get("preset"), "seed": config.get("seed")}
        row |= {"stages": states, **{name: scores.get(name) for name in SCORES}}
    except UserError as error:
        row["damaged"] = str(error)
    return row | {"bytes": _size(path)}


def _state(stage: Any) -> str:
    """`done`, or how far it is."""
    if stage.summary() is not None:
        return "done"
    steps = stage.checkpoints.steps()
    return f"at {steps[-1]:,}" if steps else "begun"


def _size(path: Path) -> int:
    """Of all files but those of the runs that are named there."""
    total = 0
    for folder, folders, names in os.walk(path):
        if Path(folder) == path and NAMED in folders:
            folders.remove(NAMED)
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a run that is being trained: its temporary files go
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def _table(found: list[dict[str, Any]], folder: Path) -> str:
    if not found:
        return f"no runs in {folder}"
    rows = [("run", "game", "size", "score", "stages")]
    for row in found:
        stages = row.get("damaged") or ", ".join(
            name if state == "done" else f"{name} ({state})" for name, state in row["stages"].items()
        )
        rows.append((row["run"], row.get("game") or "", _bytes(row["bytes"]), _score(row), stages))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    )


def _score(row: dict[str, Any]) -> str:
    if row.get("official_mean") is None:
        return ""
    low, high = row["official_ci_low"], row["official_ci_high"]
    spread = "" if low is None else f" ({low:,.4g} to {high:,.4g})"
    return f"{row['official_mean']:,.4g}{spread}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
