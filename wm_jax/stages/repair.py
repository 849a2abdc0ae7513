"""collect repair: set damaged shards aside, so that `collect` plays their episodes again."""

from typing import Any

from wm_jax.config import Config
from wm_jax.data.replay import ReplayStore
from wm_jax.interrupt import Stop
from wm_jax.metrics import say
from wm_jax.run import Run


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Move every damaged shard into `replays/damaged/`; returns their names. Nothing is deleted."""
    stage = run.stage("replays")
    with stage.lock():
        store = ReplayStore.open(stage.path, check=False)
        names = sorted({damage.shard for damage in store.verify()})
        for name in names:
            say(f"set aside: {store.quarantine(name) or name + ' (nothing of it was left)'}")
        store.close()
        if names:
            (stage.path / "summary.json").unlink(missing_ok=True)
            say("the next collect, or any command that needs replays, plays the episodes again")
    return {"set_aside": len(names), "shards": names}
