"""collect repair: set damaged shards aside, so that `collect` plays their episodes again."""

import argparse
from typing import Any

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.distributed.progress import log
from wm_jax.run.artifacts import open_for_maintenance
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop


@processes.on_main_process
def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Move every damaged shard into `replays/damaged/`; returns their names. Nothing is deleted."""
    stage = run.stage("replays")
    store = open_for_maintenance(run, config)
    with stage.lock():
        names = sorted({damage.shard for damage in store.verify()})
        if names:
            (stage.path / "summary.json").unlink(missing_ok=True)
        for name in names:
            log(f"set aside: {store.quarantine(name) or name + ' (nothing of it was left)'}")
        store.close()
        if not names:
            log("nothing is damaged")
        elif store.lost_imported:
            log("of imported recordings, which nobody can play again: import all anew (bin/import --fresh)")
        else:
            log("the next collect, or any command that needs replays, plays the episodes again")
    return {"set_aside": len(names), "shards": names}
