"""What finished artifacts were made with holds for all that is made from them.

Every command resolves all settings anew; but those of a V that is trained were settled when it was. A stage therefore
works, and records itself, with the settings that its ancestors were really made with.
"""

import contextlib
from collections.abc import Collection
from typing import Any

from wm_jax.config.layers import of_record
from wm_jax.config.schema import CHOICES, Config
from wm_jax.envs.names import family_of
from wm_jax.run.folder import Run, Stage
from wm_jax.run.provenance import misfit
from wm_jax.run.stage_graph import CHAIN, parents
from wm_jax.utils.errors import UserError

SECTIONS = {"replays": ("collect",), "vae": ("vae",), "memory": ("memory",), "controller": ("controller",)}
"""The settings that belong to an artifact. Those of the game are compared wherever it is opened (`artifacts.py`)."""
COUNTS = {"collect": {"episodes"}, "vae": {"steps"}, "memory": {"steps"}, "controller": {"generations"}}
"""The settings that say how much of an artifact is made. Its summary says under the same names how much there is."""


def inherit_settings(config: Config, run: Run, artifact: str, given: Collection[str] = ()) -> Config:
    """The settings in force for making an artifact: its own as they are, those of finished ancestors as they were.

    Args:
      given: settings of which the command line says itself what they are, as `section.key`.

    Raises:
      UserError: one of these contradicts what a finished ancestor was made with.
    """
    for parent in parents(artifact, config.controller):
        for name, was in _made_with(run.stage(parent)).items():
            recorded = of_record(name, was)
            then, asked = recorded.model_dump(mode="json"), getattr(config, name).model_dump(mode="json")
            for key, value in asked.items():
                if f"{name}.{key}" not in given or (key in then and then[key] == value):
                    continue
                path, option = run.stage(parent).path, f"{name}.{key}"
                if key not in then:
                    chosen = f"{name}.{CHOICES[name].key} {then[CHOICES[name].key]}"
                    raise UserError(f"{option} {value}: {path} was made with {chosen}, which lacks that; leave it out")
                anew = f"run {CHAIN[parent]} with it first"
                raise misfit(path, option, then[key], value, "leave it out", anew, "use another run")
            config = config.model_copy(update={name: recorded})
        config = inherit_settings(config, run, parent, given)
    return config


def with_imported_actions(config: Config, run: Run) -> Config:
    """The settings with the actions that a run's recordings have, which only the run knows.

    Raises:
      UserError: such a game without recordings.
    """
    if family_of(config.game) != "own" or config.env.kwargs:
        return config
    stage = run.stage("replays")
    manifest = stage.manifest()
    if manifest is None:
        raise UserError(f"{run.path} has no recordings of {config.game}: bring them by bin/import --from first")
    require_whole_import(stage)
    env = config.env.model_copy(update={"kwargs": manifest["config"]["env"]["kwargs"]})
    return config.model_copy(update={"env": env})


def require_whole_import(stage: Stage) -> None:
    """See that no import was stopped amid its recordings.

    Raises:
      UserError: the replays are not finished.
    """
    if stage.summary() is None:
        raise UserError(f"{stage.path} holds a part of what bin/import was to bring: give that command again first")


def _made_with(stage: Stage) -> dict[str, dict[str, Any]]:
    """Sections of settings that a finished stage's artifact was made with; none while there is none.

    A record that is damaged is none either: the stage that needs it says so.
    """
    with contextlib.suppress(UserError):
        summary, manifest = stage.summary(), stage.manifest()
        if summary is not None and manifest is not None:
            config = manifest["config"]
            # An untrained world is made with the controller.
            untrained = stage.name == "controller" and config["controller"]["world"] == "random"
            names = (*SECTIONS.get(stage.name, ()), *(("vae", "memory") if untrained else ()))
            own = SECTIONS.get(stage.name, ())
            there = {name: COUNTS[name] & config[name].keys() & summary.keys() for name in own}
            return {name: config[name] | {key: summary[key] for key in there.get(name, ())} for name in names}
    return {}
