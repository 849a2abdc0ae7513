"""import: recordings from elsewhere become a run's replays, which all later stages take.

    bin/import --game own:maze --from recordings/
    bin/train_vae --game own:maze

What they may be: `data/importing.py`. As `own:NAME` they have the actions that were recorded, and nothing plays them;
as a game of the catalogue they have that game's, and C can be evolved on it as ever.
"""

import argparse
from pathlib import Path
from typing import Any

from wm_jax.config.schema import Config
from wm_jax.data.importing import recordings
from wm_jax.distributed import processes
from wm_jax.envs.games import find
from wm_jax.library.recordings import import_recordings, require_no_replays
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.utils.errors import UsageError


def accept(config: Config, options: argparse.Namespace) -> None:
    """Refuse what cannot be imported, before anything is read.

    Raises:
      UsageError: no source is named, or settings that nothing imported has.
    """
    if options.source is None:
        raise UsageError("--from: say which folder or file to import")
    if config.env.kwargs and find(config.game, config.env).recorded:
        raise UsageError("--env.kwargs: the actions of recordings are found in them; leave it out")


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Import everything; returns what the replays hold then."""
    accept(config, options)
    return processes.on_main_process(_import)(config, run, stop, Path(options.source).expanduser())


def _import(config: Config, run: Run, stop: Stop, source: Path) -> dict[str, Any]:
    require_no_replays(run)  # before everything is read
    return import_recordings(config, run, stop, list(recordings(source)))
