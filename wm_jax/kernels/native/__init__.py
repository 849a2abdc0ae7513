"""Kernels in C for CPU, called from jitted programs through XLA's foreign function interface.

They are compiled for the processor at hand when they are first needed (some ten seconds, with any C compiler), and kept
in the user's cache. Where that can't be done `available` says so, and JAX's own operations do the work.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wm_jax.process import cache_folder, processor

SOURCES = ("conv.c", "lstm.c", "scene.c")
HEADERS = ("simd.h", "xla.h")
FUNCTIONS = ("down", "up", "outer", "lstm_forward", "lstm_backward", "scene")
FLAGS = ("-O2", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
COMPILERS = ("cc", "gcc", "clang")


class CannotBuild(Exception):
    """Why there are no kernels in C here, in one sentence with the remedy."""


@cache
def available() -> bool:
    """Are the kernels there? Compiles them if they aren't yet, and says on standard error if that fails.

    They aren't for several devices: XLA can't tell how a foreign function could be shared between them.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return False
    try:
        library = ctypes.CDLL(str(build()))
    except (CannotBuild, OSError) as error:
        print(f"kernels: {error}", file=sys.stderr)
        return False
    for name in FUNCTIONS:
        target = jax.ffi.pycapsule(getattr(library, f"wm_jax_{name}"))
        jax.ffi.register_ffi_target(f"wm_jax_{name}", target, platform="cpu")
    return True


def call(name: str, results: Any, *arguments: Any, **attributes: int) -> Any:
    """Call a kernel on arrays inside a jitted program.

    Args:
      name: one of `FUNCTIONS`.
      results: shapes and types of what it returns, as `jax.ShapeDtypeStruct`s.
    """
    integers = {key: np.int64(value) for key, value in attributes.items()}
    return jax.ffi.ffi_call(f"wm_jax_{name}", results, vmap_method="sequential")(*arguments, **integers)


def check(plain: Callable[..., Any], *arguments: Any) -> None:
    """Refuse what the plain formulation refuses: C takes any numbers for the shapes that it was promised.

    Raises:
      RuntimeError: the kernels are not `available`.
      TypeError: arrays that don't fit together, or whose numbers aren't float32.
    """
    if not available():
        raise RuntimeError("there are no kernels in C here: ask native.available() first")
    jax.eval_shape(plain, *arguments)
    types = {leaf.dtype for leaf in jax.tree.leaves(arguments)} - {np.dtype(bool), np.dtype(np.float32)}
    if types:
        raise TypeError(f"the kernels in C compute in float32, not {', '.join(map(str, types))}")


def build() -> Path:
    """The shared library, compiled unless it is in the cache.

    Raises:
      CannotBuild: there is no compiler, or it fails, or nowhere to write to.
    """
    folder = cache_folder()
    if folder is None:
        raise CannotBuild("no cache folder can be written; set XDG_CACHE_HOME to one that can")
    here = Path(__file__).parent
    compiler, *options = _compiler()
    command = [compiler, *FLAGS, _for_this_processor(), *options, f"-I{jax.ffi.include_dir()}"]
    text = b"".join((here / name).read_bytes() for name in (*SOURCES, *HEADERS))
    key = hashlib.sha256(text + repr((command, processor(), jax.__version__)).encode()).hexdigest()[:16]
    library = folder / "kernels" / f"{key}.so"
    if not library.exists():
        print("kernels: compiling them for this processor (once, about ten seconds)", file=sys.stderr)
        library.parent.mkdir(exist_ok=True)
        _compile([*command, *(str(here / name) for name in SOURCES)], library)
    return library


def _compile(command: list[str], library: Path) -> None:
    # Beside the library and renamed: others may do the same now, and this process may be killed.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unfinished = Path(folder) / library.name
        try:
            done = subprocess.run([*command, "-o", str(unfinished)], capture_output=True, text=True)
        except OSError as error:
            raise CannotBuild(f"{command[0]} can't be started ({error.strerror}); set CC to a C compiler") from None
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), "no reason given")
            raise CannotBuild(f"{command[0]} can't compile them ({reason}); set CC to another compiler")
        os.replace(unfinished, library)


def _compiler() -> list[str]:
    """`CC` with the options in it, or the first compiler that is there."""
    if chosen := shlex.split(os.environ.get("CC", "")):
        return chosen
    found = next(filter(shutil.which, COMPILERS), None)
    if found is None:
        raise CannotBuild("there is no C compiler, so V and M are slow; install one (such as gcc), or set CC")
    return [found]


def _for_this_processor() -> str:
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
