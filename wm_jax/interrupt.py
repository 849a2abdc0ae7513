"""Ctrl-C and SIGTERM ask a stage to save and stop; a second one stops at once.

Of several processes (`hosts.py`), whichever is asked to stop passes it on, and all stop at the same place.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from wm_jax import hosts
from wm_jax.metrics import say


class Interrupted(Exception):
    """The stage saved its state and stopped because it was asked to."""


class Stop:
    """Whether somebody asked this process, or one that works with it, to stop."""

    def __init__(self) -> None:
        self.requested = False

    def agreed(self) -> bool:
        """Is it time to stop? All processes ask this at the same place (see `hosts.py`) and get the same answer."""
        return hosts.agree(self.requested)

    def check(self) -> None:
        """Stop here, where everything is saved.

        Raises:
          Interrupted: when that was asked for.
        """
        if self.requested:
            raise Interrupted


@contextlib.contextmanager
def graceful_stop() -> Iterator[Stop]:
    """While inside, the first SIGINT or SIGTERM sets the flag of the `Stop`; the second acts as usual."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(number, before[signal.Signals(number)])
        say("stopping at the next safe point (once more to stop at once)", everywhere=True)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        with hosts.spread_stop(stop):
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
