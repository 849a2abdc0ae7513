"""How long an update takes, so that all contenders get the same time whatever else the machine does meanwhile."""

from functools import cached_property
from pathlib import Path

import numpy as np

from wm_jax.config.vaes import VaeConfig
from wm_jax.data.replay import ReplayStore
from wm_jax.tools.benchmark.timing import Timing, Work, alternate
from wm_jax.tools.benchmark.vaes import work_of
from wm_jax.utils.files import read_manifest, write_manifest

FRAMES, ROUNDS = 2000, 5
"""Of the training frames, and dispatches on them that are timed."""
REFERENCE, CONTENDER = "reference", "contender"


class Pace:
    """Times updates, each in turns with those of one reference: what counts is the ratio.

    The reference's own time is measured once, with the first contender, and kept: a machine that is busy later on takes
    updates away from nobody.
    """

    def __init__(self, reference: VaeConfig, store: ReplayStore, path: Path):
        """The pace of a comparison.

        Args:
          reference: the settings that all are timed beside: the game's.
          path: where the reference's time is kept.
        """
        self._reference, self._store, self._path = reference, store, path

    def seconds_per_update(self, config: VaeConfig) -> float:
        """Of a contender, without compiling."""
        times = alternate({REFERENCE: self._reference_work, CONTENDER: self._work(config)}, ROUNDS)
        ratio = times[REFERENCE].faster_than(times[CONTENDER])
        each = config.steps_per_dispatch / self._reference.steps_per_dispatch
        return ratio * self._reference_seconds(times[REFERENCE]) / each

    def _reference_seconds(self, measured: Timing) -> float:
        if not self._path.exists():
            seconds = measured.median / self._reference.steps_per_dispatch
            write_manifest(self._path, {"seconds_per_update": seconds})
        return float(
            read_manifest(self._path, "remove the file, and the same command measures it again")["seconds_per_update"]
        )

    @cached_property
    def _reference_work(self) -> Work:
        return self._work(self._reference)

    def _work(self, config: VaeConfig) -> Work:
        return work_of(config, self._frames, config.steps_per_dispatch)

    @cached_property
    def _frames(self) -> np.ndarray:
        return self._store.read("train", np.arange(min(FRAMES, self._store.count("train").frames)))
