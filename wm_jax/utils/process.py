"""Settings of the whole process, made before JAX is imported: memory allocator, compilation cache, quiet libraries.

Everything the user has set in the environment is left alone. Standard library only.
"""

import contextlib
import ctypes
import hashlib
import io
import os
import signal
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2",  # XLA's warnings; its errors are shown
    "GRPC_VERBOSITY": "ERROR",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "SDL_VIDEODRIVER": "dummy",  # games are drawn in memory, also where there is a screen
    "SDL_AUDIODRIVER": "dummy",
    "MPLBACKEND": "agg",
}

# mallopt's parameters in <malloc.h>, and what makes XLA:CPU's large buffers stay in the heap. By default they are
# mapped afresh at every call, which costs a page fault for every 4 KB.
_MALLOC = {
    -4: 0,  # M_MMAP_MAX: nothing is mapped outside the heap
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: the heap isn't given back
    -2: 64 << 20,  # M_TOP_PAD: it grows by 64 MB
    -8: 1,  # M_ARENA_MAX: worker threads share it
}


@cache
def prepare() -> None:
    """Give this process what the commands have, once: freed memory is kept for the next call, which on a CPU is worth
    much, compiled programs are kept on disk, and libraries are quiet. Call it before the first import of JAX.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    keep_freed_memory()
    folder = cache_folder()
    if folder is None:
        return
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    # A cached program holds machine code for the processor that it was compiled on. Home may be shared by several.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "xla" / processor()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def die_on_ctrl_c() -> None:
    """Until a stage takes Ctrl-C over (`run/interrupt.py`), let it end the process at once.

    Nothing is under way before that; and an exception in the middle of an import becomes a traceback, or is swallowed
    by the library that is being imported. Where Ctrl-C is ignored, as in the background of a script, it stays so.
    """
    _exchange(signal.default_int_handler, signal.SIG_DFL)


def raise_on_ctrl_c() -> None:
    """The opposite: let it raise KeyboardInterrupt, for work that has processes and folders to clean up."""
    _exchange(signal.SIG_DFL, signal.default_int_handler)


def _exchange(found: Any, wanted: Any) -> None:
    """Replace the handler of Ctrl-C if it is the one that we expect, and leave any other. Only the main thread may."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is found:
        signal.signal(signal.SIGINT, wanted)


def mend_streams() -> None:
    """See that there are three standard streams, and that they can be written whatever the words are.

    Where one was closed, Python has None, and the next file that is opened takes its number: what a library in C says
    would be written into that file. And an encoding that lacks a letter of a path must not end the work that is done.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(opened, mode, encoding="utf-8", closefd=False))  # noqa: SIM115, for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory for the next call; False where malloc isn't glibc's."""
    chosen_by_user = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen_by_user or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library has none
        return False
    return all([mallopt(parameter, value) == 1 for parameter, value in _MALLOC.items()])


def give_back_memory() -> None:
    """Return freed memory, which `keep_freed_memory` keeps: what a stage needed, the next one may not."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # of another C library
        ctypes.CDLL(None).malloc_trim(0)


def cache_folder() -> Path | None:
    """`wm_jax` in the user's cache folder, else in the temporary one; None when neither can be written.

    `XDG_CACHE_HOME` counts only when absolute, as its specification says.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    homes = [Path(named)] if os.path.isabs(named) else []
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        homes.append(Path(home) / ".cache")
    shared = Path(tempfile.gettempdir()) / f"wm_jax-{os.getuid()}"
    for folder in (*(base / "wm_jax" for base in homes), shared):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Compiled programs are executed: nobody else may have made this folder.
            if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK):
                return folder
        except OSError:
            continue
    return None


def processor() -> str:
    """A short name for this kind of processor: machine code for one may not run on another."""
    system = os.uname()
    text = f"{system.sysname} {system.machine}"
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features", "model name")):
                    text += line
                if not line.strip():  # the end of the first core
                    break
    except OSError:
        pass
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
