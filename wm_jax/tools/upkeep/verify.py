"""collect verify: check every stored byte of a run's replays, and name what is damaged."""

import argparse
from typing import Any

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.distributed.progress import Progress, log
from wm_jax.run.artifacts import open_for_maintenance
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop


@processes.on_main_process
def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Read the whole store; the summary's `failed` is True when something is damaged."""
    store = open_for_maintenance(run, config)
    with Progress("verify", len(store.shards), "shard") as progress:

        def one_more(done: int, total: int) -> None:
            stop.check()
            progress.advance(1)

        damages = store.verify(one_more)
    named = [f"{damage.shard}/{damage.file}: {damage.what}" for damage in damages]
    for line in named:
        log(f"damaged: {line}")
    if damages:
        log("bin/collect repair sets these shards aside, and the next collect plays their episodes again")
    return {"frames": store.count().frames, "damaged": len(damages), "failed": bool(damages), "damages": named}
