"""The weights that a stage begins with: fresh ones, or another run's (`--vae.start_from DIR`; M and C likewise).

What they were is a parent of the artifact, by content, under the name `start_from`; where they lay is not. Once a stage
has begun, that parent stays, be the folder named again or gone.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from wm_jax.run.checkpoints import DamagedCheckpoints
from wm_jax.run.folder import Run, Stage
from wm_jax.run.kept import KeptControllers
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils.errors import UserError

PARENT = "start_from"


def starting_params(stage: Stage, start_from: str | None, fresh: Any) -> tuple[Any, dict[str, str]]:
    """The parameters that V or M begins with, and the parents that these are.

    Args:
      stage: that begins, or has begun.
      start_from: a run's folder (None: none, or the one that it has begun with).
      fresh: random parameters, which those of the run must fit.

    Raises:
      UserError: it is no other run, its stage is unfinished or damaged, or of other sizes.
    """
    found, parents = _found(stage, start_from, lambda _: fresh)
    return fresh if found is None else jax.device_put(found), parents


def starting_controller(stage: Stage, start_from: str | None, n_params: int) -> tuple[jax.Array | None, dict[str, str]]:
    """Where the search for C begins: the best controller of a run, float32[n_params]; None: at zero.

    Args:
      stage, start_from: see `starting_params`.
      n_params: as the one that is searched has.

    Raises:
      UserError: as in `starting_params`.
    """

    def template(other: Stage) -> dict[str, jax.Array]:
        manifest = other.manifest()
        if manifest is None:
            raise other.lost_record()
        in_dream = manifest["config"]["controller"].get("arena") == "dream"
        return KeptControllers.empty(n_params, in_dream=in_dream).weights()

    found, parents = _found(stage, start_from, template)
    return None if found is None else jnp.asarray(found["best"]), parents


def require_start(start_from: str | None, name: str) -> None:
    """See, before anything is played, that a setting `start_from` names a run in which that stage is finished.

    Raises:
      UserError: it does not.
    """
    if start_from is not None:
        _finished(start_from, name)


def _found(stage: Stage, start_from: str | None, template: Any) -> tuple[Any, dict[str, str]]:
    """The weights, None where there are none or none are needed; and the parents."""
    manifest = stage.manifest() or {}
    begun = manifest.get("parents", {}).get(PARENT)
    if start_from is None and begun is not None:
        if stage.checkpoints.steps() or stage.summary() is not None:
            return None, {PARENT: begun}
        start_from = manifest["config"][stage.name][PARENT]
    if start_from is None:
        return None, {}
    if Path(start_from).expanduser().resolve() == stage.run.path.resolve():
        raise UserError(
            f"{stage.name}.start_from {start_from}: this is the run itself; give another one, or leave it out"
        )
    other = _finished(start_from, stage.name)
    where = f"{stage.name}.start_from {start_from}"
    try:
        found = other.weights.restore(template(other))
    except DamagedCheckpoints as error:
        raise UserError(f"{where}: {error}; run {CHAIN[stage.name]} there again") from None
    except UserError:
        raise UserError(
            f"{where}: its {stage.name} is of other sizes; give the settings that it was made with, or another run"
        ) from None
    if found is None or found[2]["digest"] != (other.summary() or {}).get("weights"):
        raise UserError(f"{where}: its weights are lost; run {CHAIN[stage.name]} there again")
    return found[1], {PARENT: found[2]["digest"]}


def _finished(start_from: str, name: str) -> Stage:
    """The stage of the run.

    Raises:
      UserError: there is no such run, or the stage is unfinished.
    """
    path = Path(start_from).expanduser()
    if not path.is_dir():
        raise UserError(f"{name}.start_from {start_from}: there is no such folder; give a run's")
    stage = Run.open(path).stage(name)
    if stage.summary() is None:
        raise UserError(f"{name}.start_from {start_from}: no {name} is finished there; run {CHAIN[name]} on it first")
    return stage
