"""What went wrong, in one sentence, for errors that are not ours."""

import errno
import os


def with_origin(sentence: str, error: Exception) -> str:
    """The sentence, and which other process it comes from, if it does."""
    return " ".join([sentence, *getattr(error, "__notes__", [])])


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
