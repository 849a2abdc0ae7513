"""Keeps a worker process from outliving the process that it works for, whatever its environment does.

The process that was started stays behind as the guard of a child, in which the worker goes on. Neither of the simpler
ways is enough: a thread of the worker can't run while an environment is stuck in C and holds Python's lock, and Linux's
PR_SET_PDEATHSIG leaves no time to close environments, and takes the end of the thread that started a worker for the
end of its process. Standard library only, and little of it: a guard should cost next to nothing.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time

GLANCE_S = 0.5
"""Between two looks whether the process that is worked for is still there."""
TRACE_S = 0.2
"""For writing down where a worker is, before it is killed."""
_PR_SET_PDEATHSIG = 1


def guarded(employer: int, grace: float, descriptors: tuple[int, ...]) -> None:
    """Fork, and return in the child, which leads a process group of its own; the parent becomes its guard.

    The guard ends as the child has ended: with its exit code, or by the same signal. It kills the child, with all
    processes that the child has started and not moved to another group,

    - once `employer` is gone, but only `grace` seconds later, in which the child can close what it has opened;
    - on SIGUSR1, at once; on SIGUSR2 the child is expected to write down where it is, as it is asked to before this;
    - of a child that has ended by itself, what it has left behind.

    Args:
      employer: the process that is worked for; the guard's parent.
      grace: seconds.
      descriptors: open files that are the child's alone.
    """
    guard = os.getpid()
    child = os.fork()
    if child:
        for descriptor in descriptors:
            os.close(descriptor)
        _guard(child, employer, grace)
    os.setpgid(0, 0)
    if sys.platform == "linux":  # should anybody kill the guard itself; its thread that forked lives as long as it does
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)


def _guard(child: int, employer: int, grace: float) -> None:
    """Wait for the child's end, and end alike; never returns."""

    def kill(*_: object) -> None:
        os.kill(child, signal.SIGUSR2)
        time.sleep(TRACE_S)
        _kill_group(child)

    def watch() -> None:
        while os.getppid() == employer:
            time.sleep(GLANCE_S)
        time.sleep(grace)
        _kill_group(child)

    with contextlib.suppress(OSError):  # the child may have done so, and more, already
        os.setpgid(child, child)
    # When to stop is the employer's decision, also where all processes are told to.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, kill)
    threading.Thread(target=watch, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    _kill_group(child)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core of the guard would tell nothing
        with contextlib.suppress(OSError):  # SIGKILL acts as it does anyway
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # none is left, or only what has ended
        os.killpg(leader, signal.SIGKILL)


def leave_signals_to_the_employer() -> None:
    """Let SIGINT and SIGTERM, sent to all processes, pass by here: the employer decides when to stop.

    By handlers rather than SIG_IGN, which the programs that an environment starts would inherit; and only in this
    process, since an environment may fork others that it ends by such signals.
    """
    worker = os.getpid()

    def handle(number: int, _: object) -> None:
        if os.getpid() != worker:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
