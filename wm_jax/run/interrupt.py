"""Ctrl-C and SIGTERM ask a stage to save and stop; a second one stops at once.

Of several processes (`distributed/processes.py`), whichever is asked to stop passes it on, and all stop at the same
place.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from wm_jax.distributed import processes
from wm_jax.distributed.progress import log

SPEAK_S = 1.0
"""How long the end waits for what is said about a signal."""


class Interrupted(Exception):
    """The stage saved its state and stopped because it was asked to."""


class Stop:
    """Whether somebody asked this process, or one that works with it, to stop."""

    def __init__(self) -> None:
        self.requested = False

    def agreed(self) -> bool:
        """Is it time to stop? All processes ask this at the same place and get the same answer."""
        return processes.agree(self.requested)

    def check(self) -> None:
        """Stop here, where everything is saved.

        Raises:
          Interrupted: when that was asked for.
        """
        if self.requested:
            raise Interrupted


@contextlib.contextmanager
def graceful_stop() -> Iterator[Stop]:
    """While inside, the first SIGINT or SIGTERM sets the flag of the `Stop`; the second, of either, acts as usual.

    A signal that this process was started to ignore, as a job in the background is, stays ignored. Only the main
    thread may be asked: where this runs in another, signals are the caller's.
    """
    stop = Stop()
    with contextlib.ExitStack() as ends:
        if threading.current_thread() is threading.main_thread():
            ends.enter_context(_heard(stop))
        ends.enter_context(processes.spread_stop(stop))
        yield stop


@contextlib.contextmanager
def _heard(stop: Stop) -> Iterator[None]:
    """Have signals set the flag, and say so.

    A handler runs between any two instructions, perhaps in the middle of a `print`, whose lock it would wait for in
    vain. So it says nothing itself: it writes a byte into a pipe, and the thread that waits there speaks.
    """
    reader, writer = os.pipe()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        restore()
        os.write(writer, b"!")

    def speak() -> None:
        while os.read(reader, 1):
            log("stopping at the next safe point (once more to stop at once)", everywhere=True)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None: a handler of another language, which could not be put back.
    before = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    speaker = threading.Thread(target=speak, name="signals", daemon=True)
    speaker.start()
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
        os.close(writer)
        speaker.join(SPEAK_S)  # what it writes to may be full, and never be read
        if not speaker.is_alive():
            os.close(reader)
