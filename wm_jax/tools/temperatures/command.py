"""train_controller --in dream --temperatures: the paper's table, what is learned at each temperature of the dream.

    bin/train_controller --game carracing --name dream --in dream --temperatures 0.1 0.5 1 1.15 1.3

Each search lies in a run of its own (`RUN/named/temperature-T`), whose base is the run, and goes on where it was.
`RUN/temperatures.json` and `.md` have the table.
"""

import argparse
from typing import Any

from wm_jax import stages
from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.tools.tables import read_rows, write_rows
from wm_jax.utils.errors import UsageError

FIGURES = {
    "dream_best_score": "in the dream",
    "dream_confirmed_score": "real, chosen in the dream",
    "dream_confirmed_error": "+-",
    "confirmed_score": "real, chosen on real games",
    "confirmed_error": "+-",
    "real_steps": "real steps for choosing",
}
"""Of a search's summary, and what they are called in the table. Errors are half of a 95 % interval of the mean."""

TABLE = "temperatures"


def accept(config: Config, options: argparse.Namespace) -> None:
    """Refuse what makes no sense, before anything is played.

    Raises:
      UsageError: a temperature that is none, or twice, or a search in the real game.
    """
    if config.controller.arena != "dream":
        raise UsageError("--temperatures: only dreams have one; add --in dream")
    for temperature in options.temperatures:
        if not 0 < temperature < float("inf"):
            raise UsageError(f"--temperatures {temperature:g}: give numbers above 0")
        if options.temperatures.count(temperature) > 1:
            raise UsageError(f"--temperatures {temperature:g}: it is given twice; leave one out")


@processes.on_main_process
def start_anew(run: Run, options: argparse.Namespace) -> None:
    """Move aside what was evolved at these before: all of it at once, so that a command that is stopped can go on."""
    for temperature in options.temperatures:
        stage = _named(run, temperature, anew=("controller",)).stage("controller")
        if stage.path.exists():
            with stage.lock():
                stage.start_anew()


def _named(run: Run, temperature: float, anew: tuple[str, ...] = ()) -> Run:
    """The run of what is evolved at one temperature."""
    makes = {"controller", "evaluation", "dream"}
    return run.named(f"temperature-{temperature:g}", makes=makes, anew=anew)


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Evolve a controller at each temperature; returns the table's rows by temperature."""
    run.make()
    found = read_rows(run.path, TABLE, "remove the file, and give all temperatures again")
    for temperature in options.temperatures:
        dream = config.dream.model_copy(update={"temperature": temperature})
        own = _named(run, temperature)
        own.make()
        config = config.model_copy(update={"dream": dream})
        summary = stages.make("controller", config, own, stop, f"== {own.path.name}")
        found[f"{temperature:g}"] = {name: summary.get(name) for name in FIGURES}
        if processes.is_main_process():
            write_rows(run.path, TABLE, "temperature", FIGURES, found)
    return {"table": str(run.path / "temperatures.md"), "temperatures": found}
