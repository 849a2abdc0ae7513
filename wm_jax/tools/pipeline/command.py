"""pipeline: every stage that is not finished, one after the other, and then the report.

bin/pipeline --game enduro
"""

import argparse
from typing import Any

from wm_jax.config.schema import Config
from wm_jax.distributed import processes
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.tools.pipeline import report
from wm_jax.utils.errors import UsageError


def accept(config: Config, options: argparse.Namespace) -> None:
    """Refuse to move aside what is needed.

    Raises:
      UsageError: --fresh with an agent that is to play first.
    """
    if options.fresh and config.collect.policy == "agent":
        raise UsageError(
            "--fresh: it would move aside the agent that --collect.policy agent lets play; collect first "
            "(bin/collect), then start the later stages anew, one by one"
        )


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """The report; the stages are what the command needs first. Returns the scores, and where it is."""
    return processes.on_main_process(report.run)(config, run, stop)
