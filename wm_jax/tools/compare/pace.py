"""How long an update takes, so that all contenders get the same time whatever else the machine does meanwhile."""

from functools import cached_property
from pathlib import Path

import numpy as np

from wm_jax.config.vaes import VaeConfig, VanillaConfig
from wm_jax.data.replay import ReplayStore
from wm_jax.tools.benchmark.timing import Timing, Work, alternate
from wm_jax.tools.benchmark.vaes import work_of
from wm_jax.utils.files import read_manifest, write_manifest

REFERENCE = VanillaConfig(width=0.5, batch=32, steps_per_dispatch=10)
"""What all are timed beside, whatever the settings of the game are."""
FRAMES, ROUNDS = 2000, 5
"""Of the training frames, and dispatches on them that are timed."""
REMEDY = "remove the file, and the same command measures it again"


class Pace:
    """Times updates, each in turns with those of `REFERENCE`: what counts is the ratio.

    The reference's own time is measured once, with the first contender, and kept: a machine that is busy later on takes
    updates away from nobody.
    """

    def __init__(self, store: ReplayStore, path: Path):
        """The pace of a comparison.

        Args:
          path: where the reference's time is kept.
        """
        self._store, self._path = store, path

    def seconds_per_update(self, config: VaeConfig) -> float:
        """Of a contender, without compiling."""
        times = alternate({"reference": self._reference, "contender": self._work(config)}, ROUNDS)
        dispatches = times["reference"].faster_than(times["contender"])
        updates = config.steps_per_dispatch / REFERENCE.steps_per_dispatch
        return self._reference_seconds(times["reference"]) * dispatches / updates

    def _reference_seconds(self, measured: Timing) -> float:
        if not self._path.exists():
            write_manifest(self._path, {"seconds_per_update": measured.median / REFERENCE.steps_per_dispatch})
        return float(read_manifest(self._path, REMEDY)["seconds_per_update"])

    @cached_property
    def _reference(self) -> Work:
        return self._work(REFERENCE)

    def _work(self, config: VaeConfig) -> Work:
        return work_of(config, self._frames, config.steps_per_dispatch)

    @cached_property
    def _frames(self) -> np.ndarray:
        return self._store.read("train", np.arange(min(FRAMES, self._store.count("train").frames)))
