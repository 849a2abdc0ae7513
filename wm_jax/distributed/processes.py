"""Multi-process runs: process identity, and exchange of Python objects between them.

Every process runs the same lines of the same stages on the same run folder. What must be done once, the main process
(number 0) does: all writing, and every decision that is read from the folder. Its answers reach the others through
`on_main_process`, the shares of a piece of work through `all_gather_objects`. So the contract is: **all processes call
these two, `main_process_first`, `agree` and `wait` in the same order.** A process that fails, or is interrupted, sends
that instead of its next object, and the others raise what it raised. A process by itself is a group of one: nothing is
sent, nothing waits.

How they travel is in `group.py`. Imports no JAX until processes are joined.
"""

import contextlib
import functools
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar

from wm_jax.config.schema import HostsConfig
from wm_jax.distributed.group import Group, store_of_words
from wm_jax.utils.errors import UsageError, UserError

P = ParamSpec("P")
T = TypeVar("T")

GLANCE_S = 0.5
"""How often a process looks whether another one was asked to stop."""
JOIN_S = 300
HEARTBEAT_S = 60
"""A process that is silent for so long is dead: JAX then ends the others, with a message."""
LEAVE_S = 120
"""How long a process that is done, or has failed, waits for the others to leave too."""


class Stoppable(Protocol):
    """What `spread_stop` watches and sets: see `interrupt.Stop`."""

    requested: bool


_group: Group | None = None
"""None: this process is by itself."""
_alone: ContextVar[bool] = ContextVar("alone", default=False)
"""This thread does alone what the other processes wait for. Other threads know nothing of that."""


def _current() -> Group | None:
    """The processes that this thread works with now; None if it works alone."""
    return None if _alone.get() else _group


def count() -> int:
    """How many processes work together now."""
    group = _current()
    return group.count if group else 1


def index() -> int:
    """This one's number among them."""
    group = _current()
    return group.index if group else 0


def is_main_process() -> bool:
    """Is this the main process, number 0, which alone writes and tells the user what happens?"""
    return index() == 0


def share(items: int) -> slice:
    """This process's part of so many items: neighbours, as many as the others have, or one more or less."""
    return slice(items * index() // count(), items * (index() + 1) // count())


def on_main_process(work: Callable[P, T]) -> Callable[P, T]:
    """`work` done by the main process alone; the others wait, and get what it returned or raised."""

    @functools.wraps(work)
    def done(*args: P.args, **kwargs: P.kwargs) -> T:
        group = _current()
        if group is None:
            return work(*args, **kwargs)
        if group.index:
            return group.exchange(None)[0]
        before = _alone.set(True)
        try:
            answer = work(*args, **kwargs)
        except Exception as error:
            group.fail(error)
            raise
        finally:
            _alone.reset(before)
        return group.exchange(answer)[0]

    return done


def all_gather_objects(work: Callable[[], T]) -> list[T]:
    """What `work` returns on every process, in their order; what it raises on one is raised on all."""
    group = _current()
    if group is None:
        return [work()]
    try:
        mine = work()
    except Exception as error:
        group.fail(error)
        raise
    return group.exchange(mine)


def main_process_first(work: Callable[[], T]) -> T:
    """`work` done by the main process, and then by all others, who find what it left in the run's folder."""
    if not is_main_process():
        wait()
        return work()
    mine = work()
    wait()
    return mine


def wait() -> None:
    """Until all processes are here."""
    all_gather_objects(lambda: None)


def agree(flag: bool) -> bool:
    """Is the flag set on any process? The same answer on all."""
    return any(all_gather_objects(lambda: flag))


def first_mismatch(value: Any) -> int | None:
    """The first process whose value is not that of the main process, if there is one."""
    values = all_gather_objects(lambda: value)
    return next((other for other, found in enumerate(values) if found != values[0]), None)


@contextlib.contextmanager
def joined(settings: HostsConfig) -> Iterator[None]:
    """While inside, this process is one of those that the settings name; JAX must not have looked for devices yet.

    Raises:
      UsageError: the settings don't name a group and a place in it.
      UserError: the others can't be reached.
    """
    global _group
    check(settings)
    if settings.coordinator is None:
        yield
        return
    group = _group = _join(settings)
    try:
        yield
        wait()  # for the slowest, which may take its time
    except BaseException as error:
        if group and error is not group.shared and (failed := group.withdraw(error)):
            raise failed from None
        raise
    finally:
        _group = None


@contextlib.contextmanager
def spread_stop(stop: Stoppable) -> Iterator[None]:
    """While inside, a request to stop one process reaches all; they agree on where to stop at their next exchange."""
    group, over = _current(), threading.Event()
    if group is None:
        yield
        return

    def watch() -> None:
        with contextlib.suppress(RuntimeError):  # of JAX: the service has ended
            while not over.wait(GLANCE_S):
                if stop.requested:
                    group.ask_to_stop()
                    break
                if group.asked_to_stop():
                    stop.requested = True

    watcher = threading.Thread(target=watch, name="stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def check(settings: HostsConfig) -> None:
    """See that the settings name a group of processes and a place in it, or neither.

    Raises:
      UsageError: what is missing or does not fit.
    """
    place, number, mine = settings.coordinator, settings.count, settings.index
    given = " ".join(
        f"hosts.{name} {value}" for name, value in (("count", number), ("index", mine)) if value is not None
    )
    if place is None and given:
        raise UsageError(f"{given}: say where process 0 is, with hosts.coordinator HOST:PORT")
    if place == "auto" and given:
        raise UsageError(f"{given}: hosts.coordinator auto finds this out by itself; leave it out")
    if place in (None, "auto"):
        return
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):[0-9]{1,5}", place):
        raise UsageError(f"hosts.coordinator {place}: give HOST:PORT, for example node0:4321, or auto")
    if number is None or mine is None:
        raise UsageError(
            f"hosts.coordinator {place}: also give hosts.count and, other for every process, "
            "hosts.index (0 for the one at that address)"
        )
    if mine >= number:
        raise UsageError(f"hosts.index {mine}: with hosts.count {number} it is one of 0 to {number - 1}")


def _join(settings: HostsConfig) -> Group | None:
    """The group, once everybody is there; None if it is of one."""
    import jax

    # Signals are ours: `run/interrupt.py` turns them into a stop that all processes agree on.
    jax.config.update("jax_enable_preemption_service", False)
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    automatic = settings.coordinator == "auto"
    arguments: dict[str, Any] = {
        "initialization_timeout": JOIN_S,
        "heartbeat_timeout_seconds": HEARTBEAT_S,
        "shutdown_timeout_seconds": LEAVE_S,
    }
    if not automatic:
        arguments |= {
            "coordinator_address": settings.coordinator,
            "num_processes": settings.count,
            "process_id": settings.index,
            "cluster_detection_method": "deactivate",
        }
    # Said beforehand: when nobody comes, JAX ends the process with a message of its own.
    where = "" if automatic else f" as process {settings.index} of {settings.count} at {settings.coordinator}"
    print(f"hosts: meeting the others{where}, for at most {JOIN_S} s", file=sys.stderr)
    try:
        jax.distributed.initialize(**arguments)
    except (ValueError, RuntimeError) as error:
        if automatic and isinstance(error, ValueError):
            raise UsageError(
                "hosts.coordinator auto: JAX finds no Slurm job, MPI job or TPU slice here; "
                "give HOST:PORT, hosts.count and hosts.index"
            ) from None
        reason = str(error).split("\n")[0]
        raise UserError(
            f"hosts.coordinator {settings.coordinator}: can't join the other processes ({reason})"
        ) from None
    # Looking for devices is a meeting of all processes, so here and now, before the main one does anything by itself.
    if jax.process_count() == 1:
        return None
    return Group(jax.process_index(), jax.process_count(), store_of_words())
