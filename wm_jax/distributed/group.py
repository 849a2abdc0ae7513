"""The exchange of Python objects between processes, through the coordination service of `jax.distributed`.

A store of named byte strings, which lives in the main process: about a millisecond for each object, no device takes
part, and nothing is compiled. `jax.experimental.multihost_utils` exchanges arrays of one shape by programs on devices;
in those a process can neither say that it has failed nor hear that it is to stop, so `mesh.py` uses it for arrays
alone. The service must be reachable by these processes alone: objects are pickled.
"""

import contextlib
import pickle
from dataclasses import dataclass
from typing import Any

from wm_jax.utils.errors import UserError

SLICE_MS = 1000
"""Waiting is cut into slices of this length, so that a second Ctrl-C is heard."""
ASKED_TO_STOP = "wm_jax/stop"
TRIED_WITH = ("0.10.0", "0.10.1", "0.10.2")
"""Versions of JAX in which `store_of_words` finds what it looks for."""


@dataclass
class Group:
    """The processes, as one of them sees them.

    client: of the coordination service: a store of named byte strings that all processes share.
    words: said so far; everybody's word n lies at `wm_jax/n/<index>`.
    shared: the last error that all processes raised at the same word.
    """

    index: int
    count: int
    client: Any
    words: int = 0
    shared: BaseException | None = None

    def exchange(self, word: Any) -> list[Any]:
        """Everybody's word, in the order of the processes; waits for all of them.

        Raises:
          Exception: what one of them raised instead.
        """
        try:
            self._say(word)
        except Exception as error:  # it can't be sent
            self.fail(error)
            raise
        while True:
            heard = self._heard()
            if failed := self._failed(heard):
                self.shared = failed
                raise failed
            if len(heard) == self.count:
                break
            self._wait_for(f"{self._place()}{min(set(range(self.count)) - set(heard))}")
        # Who said word n has heard all words n - 1.
        self.client.key_value_delete(f"{self._place(-1)}{self.index}")
        return [heard[index] for index in range(self.count)]

    def fail(self, error: Exception) -> None:
        """Say an error as the next word: all others raise it where they wait for that word."""
        self._say(Failure.of(error))
        self.shared = error

    def withdraw(self, error: BaseException) -> BaseException | None:
        """Say, instead of the next word, that there won't be one, and ask everybody to stop.

        Returns:
          what another process said in this way before: this one then only did what it was asked to.
        """
        with contextlib.suppress(RuntimeError):  # of JAX: another process was faster, and has left
            self._say(Failure.of(error))
            failed = self._failed(self._heard())
            self.ask_to_stop()
            return failed
        return None

    def ask_to_stop(self) -> None:
        """Ask all processes to stop."""
        self.client.key_value_set(f"{ASKED_TO_STOP}/{self.index}", "", allow_overwrite=True)

    def asked_to_stop(self) -> bool:
        """Did any process ask for it?"""
        return bool(self.client.key_value_dir_get(ASKED_TO_STOP))

    def _say(self, word: Any) -> None:
        # Counted only once it is said: what goes wrong here is said in its place.
        self.client.key_value_set_bytes(f"{self._place(1)}{self.index}", pickle.dumps(word))
        self.words += 1

    def _heard(self) -> dict[int, Any]:
        """What has been said so far in this exchange, by process."""
        said = self.client.key_value_dir_get_bytes(self._place())
        return {int(name.rpartition("/")[2]): pickle.loads(word) for name, word in said}

    def _failed(self, heard: dict[int, Any]) -> BaseException | None:
        """What the first of the others that failed has raised."""
        failures = ((i, word) for i, word in heard.items() if i != self.index and isinstance(word, Failure))
        return next((failure.error_of(i, self.count) for i, failure in failures), None)

    def _place(self, later: int = 0) -> str:
        return f"wm_jax/{self.words + later}/"

    def _wait_for(self, name: str) -> None:
        try:
            self.client.blocking_key_value_get_bytes(name, SLICE_MS)
        except RuntimeError as error:  # of JAX, with the kind of error in its text
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


@dataclass(frozen=True)
class Failure:
    """What a process sends when it can't go on.

    pickled: the error, or None if it can't be sent.
    text: its first line.
    """

    pickled: bytes | None
    text: str

    @staticmethod
    def of(error: BaseException) -> "Failure":
        """What to say of an error."""
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        except Exception:
            pickled = None
        return Failure(pickled, f"{type(error).__name__}: {error}".split("\n")[0])

    def error_of(self, index: int, count: int) -> BaseException:
        """The same error, with a note of where it comes from."""
        error = UserError(self.text) if self.pickled is None else pickle.loads(self.pickled)
        error.add_note(f"(process {index} of {count})")
        return error


def store_of_words() -> Any:
    """The coordination service's client, whose store of named byte strings has no public name in JAX.

    Raises:
      UserError: it is not where it was in the versions that this was tried with.
    """
    try:
        from jax._src.distributed import global_state

        return global_state.client
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"hosts.coordinator: this version of JAX keeps its coordination service elsewhere ({error}); install one "
            f"of those that this was tried with, {', '.join(TRIED_WITH)}, or work with one process"
        ) from None
