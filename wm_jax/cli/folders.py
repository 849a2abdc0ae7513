"""The run's folder, as the command line names it."""

import argparse
import os
import re
from pathlib import Path
from typing import Any

from wm_jax.cli.commands import MAINTENANCE, described
from wm_jax.config.layers import file_name
from wm_jax.config.schema import Config
from wm_jax.utils.errors import UsageError, UserError


def open_run(command: str, options: argparse.Namespace, config: Config) -> Any:
    """The run's folder, with what --fresh makes anew."""
    from wm_jax.run.folder import MADE, NAMED, Run

    this = described(command)
    for option, why in this.refuses.items():
        if getattr(options, option) is not None:
            raise UsageError(f"--{option}: {why}; leave it out, or give another --run")
    if options.pretrained:
        from wm_jax.run.pretrained import require

        require(config.game)
    path = Path("runs") / f"{file_name(config.game)}-{'pretrained' if options.pretrained else config.preset}"
    if options.run is not None:
        if not options.run.strip():
            raise UsageError(f"--run: no folder is named; leave it out for {path}, or name one")
        path = _folder("--run", options.run)
    _require_utf8(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"--run {path}: this is a file; give a folder")
    base = None if options.base is None else _folder("--base", options.base)
    if options.name is not None:
        if base is not None:
            raise UsageError("--name: with it, the run itself is the base; leave --base out, or give another --run")
        if not re.fullmatch(r"[\w.-]*\w[\w.-]*", options.name):
            raise UsageError(f"--name {options.name}: give a word of letters, digits, '.', '_' and '-'")
        base, path = path, path / NAMED / options.name
        if options.name.startswith(tuple(f"{kind}-" for kind in MADE)) and not path.exists():
            raise UsageError(
                f"--name {options.name}: it does not exist, and what other commands make is called so; take another"
            )
    made = this.makes(config.controller)
    if options.fresh and not made:
        action = f"collect {command}" if command in MAINTENANCE else command
        raise UsageError(f"--fresh: {action} makes nothing anew; leave it out")
    # A chain on a base is there for what comes after the replays.
    makes = set(made) - ({"replays"} if len(made) > 1 and base is not None else set())
    # What is done in place of the stage makes nothing of the run itself, and does so anew by itself.
    anew = made if options.fresh and not this.is_replaced(options) else ()
    return Run.open(path, base, makes=makes, anew=anew)


def _folder(option: str, name: str) -> Path:
    """A folder as it is named; `~` is home, also where the shell leaves it as it is, as in `--run=~/x`.

    Raises:
      UsageError: no folder can have this name.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except RuntimeError:
        raise UsageError(f"{option} {name}: nobody knows that home; give the folder's whole name") from None
    except OSError as error:
        short = name if len(name) <= 80 else f"{name[:77]}..."
        raise UsageError(f"{option} {short}: {os.strerror(error.errno or 0)}; give another folder") from None
    return path


def _require_utf8(path: Path) -> None:
    """See that libraries in C++, which are given names as UTF-8, will find the same folder as Python.

    Raises:
      UsageError: they won't.
    """
    whole = os.path.abspath(path)
    try:
        if whole.encode() == os.fsencode(whole):
            return
    except UnicodeEncodeError:
        pass  # bytes that Python could not read as letters
    raise UsageError(
        f"--run {whole}: such a name needs a UTF-8 locale, as with LC_ALL=C.UTF-8 or PYTHONUTF8=1; "
        "set that, or give a name in plain ASCII"
    )
