"""The stages, one for each artifact; and how every command has one of them do its work."""

import importlib
from typing import Any

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.distributed.progress import log
from wm_jax.run.ancestors import inherit_settings
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils import process

COLLECTIVE = {"vae", "latents", "memory", "controller"}
"""Artifacts that several processes make together. The others are made by the main process, while the rest wait."""


def make(artifact: str, config: Config, run: Run, stop: Stop, heading: str | None = None) -> dict[str, Any]:
    """Make an artifact of a run, or go on with it, as its finished ancestors were made; returns the stage's summary.

    To be called in all processes.

    Args:
      heading: the user is told before it begins.

    Raises:
      Interrupted: a stop was asked for before it began, or while it worked.
      UserError: see the stage.
    """
    check_stop(stop)
    if heading is not None:
        log(heading)
    work = importlib.import_module(f"wm_jax.stages.{CHAIN[artifact]}").run
    if artifact not in COLLECTIVE:
        work = processes.on_main_process(work)
    summary = work(inherit_settings(config, run, artifact), run, stop)
    process.give_back_memory()
    return summary


def accept(artifact: str, config: Config) -> None:
    """Refuse settings that the artifact's stage does not take, before anything upstream is made.

    Raises:
      UserError: the first of them.
    """
    stage = importlib.import_module(f"wm_jax.stages.{CHAIN[artifact]}")
    if hasattr(stage, "accept"):
        stage.accept(config)


def check_stop(stop: Stop) -> None:
    """Between two stages, for those that find all done already ask nobody.

    Raises:
      Interrupted: a stop was asked for.
    """
    if stop.agreed():
        raise Interrupted
