"""Where a stage goes on: at its newest checkpoint."""

from typing import Any, NamedTuple

import jax

from wm_jax.distributed import processes
from wm_jax.distributed.progress import Stopwatch, log
from wm_jax.run.checkpoints import DamagedCheckpoints
from wm_jax.run.folder import Stage
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils.errors import UserError


class Begun(NamedTuple):
    """Where a stage goes on.

    count: what is done, in the stage's units.
    state: on the device.
    figures: of the last report or evaluation.
    reported: the count that they belong to; -1 before the first.
    watch: holds the time spent so far.
    """

    count: int
    state: Any
    figures: dict[str, Any]
    reported: int
    watch: Stopwatch

    def record(self, figures: dict[str, Any], reported: int) -> dict[str, Any]:
        """What a checkpoint says beside its state, for `resume`."""
        return {"figures": figures, "reported": reported, "seconds": self.watch.seconds()}


def resume(stage: Stage, state: Any, limit: int, unit: str) -> Begun:
    """Where a stage goes on: the newest checkpoint if there is one, else `state` at 0.

    Args:
      limit: what the setting `<stage>.<unit>s` asks for.
      unit: what the stage counts, such as "step".

    Raises:
      UserError: the checkpoint lies beyond the limit, none is intact, or processes don't share the folder.
    """
    try:
        found = processes.main_process_first(lambda: stage.checkpoints.restore(state, mend=True))
    except DamagedCheckpoints as error:
        raise UserError(f"{error}: run {CHAIN[stage.name]} anew") from None
    if other := processes.first_mismatch(found and found[2]["digest"]):
        raise UserError(
            f"{stage.run.path}: process {other} finds other checkpoints of {stage.name} there than process 0; "
            "give all of them one folder, on a file system that they share"
        )
    if found is None:
        return Begun(0, jax.device_put(state), {}, -1, Stopwatch())
    done, state, about = found
    if done > limit:
        raise UserError(
            f"{stage.name}.{unit}s {limit}: {stage.path} is at {unit} {done} already; "
            f"give at least as many, or run {CHAIN[stage.name]} anew"
        )
    log(f"{stage.name}: going on from {unit} {done:,}")
    return Begun(done, jax.device_put(state), about["figures"], about["reported"], Stopwatch(about["seconds"]))
