"""collect repair: set damaged shards aside, so that `collect` plays their episodes again."""

from typing import Any

from wm_jax.artefacts import open_for_maintenance
from wm_jax.config import Config
from wm_jax.interrupt import Stop
from wm_jax.metrics import log
from wm_jax.run import Run


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
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
        log(
            "the next collect, or any command that needs replays, plays the episodes again"
            if names
            else "nothing is damaged"
        )
    return {"set_aside": len(names), "shards": names}
