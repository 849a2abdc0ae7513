"""What went wrong, in one sentence, with the words that mend it as they are typed."""

import errno
import os
import re
from functools import cache

from wm_jax.cli.commands import COMMANDS
from wm_jax.config.schema import field_names
from wm_jax.utils.errors import UserError


@cache
def _typed() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What the library calls things, and what is typed on the command line for them."""
    settings = "|".join(re.escape(name) for name in field_names() if "." in name)
    command = rf"(?:{'|'.join(COMMANDS)})(?![\w/-]|\.\w)"  # and not a folder's name that begins so
    rules = {
        rf"^(?=(?:game|preset|seed|devices|run|base) (?!{command})\S)": "--",
        rf"(?<![\w./-])(?=(?:{settings})(?![\w.]))": "--",
        rf"(?<![\w/.-])run ({command}) anew\b": r"run bin/\1 --fresh",
        rf"(?<![\w/.-])run ({command})": r"run bin/\1",
        r"\banother run\b": "another --run",
    }
    return tuple((re.compile(pattern), typed) for pattern, typed in rules.items())


def as_typed(sentence: str) -> str:
    """A sentence of the library with its settings as options, and its stages as commands.

    One about a settings file, which it begins with, stays as it is: so they are written there.
    """
    if re.match(r"\S+\.yaml: ", sentence):
        return sentence
    for pattern, typed in _typed():
        sentence = pattern.sub(typed, sentence)
    return sentence


def explained(error: Exception, *, debug: bool) -> str:
    """The sentence for an error: of the user's mistake, or of anything else.

    Args:
      debug: the traceback was printed already.
    """
    if not isinstance(error, UserError):
        return with_origin(sentence_of(error), error)
    more = " (--debug shows its traceback)" if error.details and not debug else ""
    return with_origin(as_typed(str(error)) + more, error)


def with_origin(sentence: str, error: Exception) -> str:
    """The sentence, and which other process it comes from, if it does."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith("(process ")]  # JAX adds its own
    return " ".join([sentence, *notes])


def sentence_of(error: Exception) -> str:
    """The cause and the remedy of an error of the system, of a library, or of nobody knows what."""
    # TensorStore and Orbax report a full disk as errors of their own, with the system's words in them.
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
        place = getattr(error, "filename", None) or "while writing"
        return f"the disk is full ({place}): free some space, then give the same command"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return (
            f"{error.filename}: can't be written or read ({error.strerror}); change its permissions or give --run DIR"
        )
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return (
            f"{error.filename}: {'a folder' if isinstance(error, IsADirectoryError) else 'a file'} is in the way "
            "there; move it, or give another --run"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; mend that, or give another --run"
    if "RESOURCE_EXHAUSTED" in str(error) or isinstance(error, MemoryError):
        return (
            "out of memory: lower the sizes of what was asked for (networks, batches, population, --collect.slots), "
            "or --data.device_budget_gb"
        )
    first = str(error).strip().split("\n")[0]
    return f"unexpected {type(error).__name__}: {first} (give --debug for the traceback, and please report it)"
