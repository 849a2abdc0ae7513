"""The weights that a stage begins with: fresh ones, or another run's (`--vae.start_from DIR`; M and C likewise).

What they were is a parent of the artifact, by content, under the name `start_from`; where they lay is not.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from wm_jax.run.checkpoints import DamagedCheckpoints
from wm_jax.run.folder import Run, Stage
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils.errors import UserError

PARENT = "start_from"


def starting_params(start_from: str | None, stage: str, fresh: Any) -> tuple[Any, dict[str, str]]:
    """The parameters that V or M begins with, and the parents that these are.

    Args:
      start_from: a run's folder (None: none).
      stage: `vae` or `memory`.
      fresh: random parameters, which those of the run must fit.

    Raises:
      UserError: it is no run, its stage is unfinished or damaged, or of other sizes.
    """
    if start_from is None:
        return fresh, {}
    params, digest = _weights(start_from, stage, fresh)
    return jax.device_put(params), {PARENT: digest}


def starting_controller(start_from: str | None, n_params: int) -> tuple[jax.Array | None, dict[str, str]]:
    """Where the search for C begins: the best controller of a run, float32[n_params]; None: at zero.

    Args:
      n_params: as the one that is searched has.

    Raises:
      UserError: as in `starting_params`.
    """
    if start_from is None:
        return None, {}
    arena = (_finished(start_from, "controller").manifest() or {})["config"]["controller"].get("arena", "game")
    kept = ("best", "latest", *(("dream",) if arena == "dream" else ()))
    params, digest = _weights(start_from, "controller", dict.fromkeys(kept, jnp.zeros(n_params, jnp.float32)))
    return jnp.asarray(params["best"]), {PARENT: digest}


def _weights(start_from: str, name: str, template: Any) -> tuple[Any, str]:
    stage = _finished(start_from, name)
    try:
        found = stage.weights.restore(template)
    except DamagedCheckpoints as error:
        raise UserError(f"{name}.start_from {start_from}: {error}; run {CHAIN[name]} there again") from None
    except UserError:
        raise UserError(
            f"{name}.start_from {start_from}: its {name} is of other sizes; give the settings that it was made with, "
            "or another run"
        ) from None
    if found is None or found[2]["digest"] != (stage.summary() or {}).get("weights"):
        raise UserError(f"{name}.start_from {start_from}: its weights are lost; run {CHAIN[name]} there again")
    return found[1], found[2]["digest"]


def _finished(start_from: str, name: str) -> Stage:
    """The stage of the run; its weights are whole if it is."""
    path = Path(start_from).expanduser()
    if not path.is_dir():
        raise UserError(f"{name}.start_from {start_from}: there is no such folder; give a run's")
    stage = Run.open(path).stage(name)
    if not isinstance(stage.summary(), Mapping):
        raise UserError(f"{name}.start_from {start_from}: no {name} is finished there; run {CHAIN[name]} on it first")
    return stage
