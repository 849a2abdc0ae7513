"""Batches that are read while the device is busy with those before them."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from wm_jax.distributed.progress import log

T = TypeVar("T")
Dispatch = tuple[int, int, int]
"""(first step, steps, room) as in `frames.Batches.references`."""


class ReadAhead(Generic[T]):
    """What `load` returns for a dispatch, loaded in a thread during the dispatch before it.

    Never more than one is being loaded, so `load` needs no locks.

    Args:
      load: (step, count, room) to the references of a dispatch.
      following: where the dispatch that starts at a given step ends; at that step itself after the last one.
    """

    def __init__(self, load: Callable[[int, int, int], T], following: Callable[[int], int]):
        self._load, self._following = load, following
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._ahead: tuple[Dispatch, Future[T]] | None = None

    def get(self, step: int, count: int, room: int) -> T:
        """The references of this dispatch; those of the following one are begun.

        Raises:
          Exception: what `load` raised, also for a dispatch that was foreseen and is not wanted now.
        """
        wanted, found = (step, count, room), None
        if self._ahead is not None:
            (foreseen, future), self._ahead = self._ahead, None
            loaded = future.result()
            found = loaded if foreseen == wanted else None
        references = self._load(*wanted) if found is None else found
        begin = step + count
        if (ahead := self._following(begin) - begin) > 0:
            foreseen = (begin, ahead, room)
            self._ahead = foreseen, self._reader.submit(self._load, *foreseen)
        return references

    def close(self) -> None:
        """End the thread, once it has read what it is reading; an error in that is told, since nobody asks for it."""
        self._reader.shutdown(cancel_futures=True)
        if self._ahead is not None:
            (step, *_), future = self._ahead
            self._ahead = None
            if not future.cancelled() and (error := future.exception()) is not None:
                log(f"reading ahead, for step {step:,}: {error}")
