"""Kernels in C for CPU, called from jitted programs through XLA's foreign function interface.

They are compiled for the processor at hand when they are first needed (some fifteen seconds, with any C compiler), and
kept in the user's cache. Where that can't be done `available` says so, and JAX's own operations do the work.
"""

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wm_jax.utils.process import cache_folder, processor

FUNCTIONS = ("down", "up", "outer", "lstm_forward", "lstm_backward", "mixture", "scene", "nearest")
NARROW_FUNCTIONS = ("narrow_down", "narrow_up", "narrow_outer")
"""There only where the processor multiplies bfloat16."""
FLAGS = (
    *("-O2", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    "-fno-gcse",  # half of GCC's time, and no gain
)
COMPILERS = ("cc", "gcc", "clang")
_FLOATS: Mapping[str, Any] = {}
"""No array holds anything but float32."""


class CannotBuild(Exception):
    """Why there are no kernels in C here, in one sentence with the remedy."""


@cache
def available() -> bool:
    """Are the kernels there? Compiles them if they aren't yet, and says on standard error if that fails.

    A program that XLA splits between several devices can use them, but every device then computes everything: XLA can't
    tell how a foreign function could be shared (`mesh.without_kernels`).
    """
    return jax.default_backend() == "cpu" and bool(_registered())


@cache
def narrow() -> bool:
    """Are there kernels that multiply bfloat16 and add up in float32, by instructions of the processor for that?

    AMX's tiles, or AVX512-BF16; a compiler that is told to do without them (`CC`) leaves them out.
    """
    return available() and set(NARROW_FUNCTIONS) <= _registered()


@cache
def _registered() -> frozenset[str]:
    """The names of the functions, which jitted programs may call from now on; none if they can't be had."""
    try:
        functions = _load()
    except CannotBuild as error:
        print(f"kernels: {error}", file=sys.stderr)
        return frozenset()
    for name, function in functions.items():
        jax.ffi.register_ffi_target(f"wm_jax_{name}", jax.ffi.pycapsule(function), platform="cpu")
    return frozenset(functions)


def _load() -> dict[str, Any]:
    """The functions by name. A library that can't be loaded is compiled anew, once.

    Raises:
      CannotBuild: see `build`; or the new one can't be loaded either.
    """
    for again in (True, False):
        library = build()
        try:
            loaded = ctypes.CDLL(str(library))
            names = FUNCTIONS + (NARROW_FUNCTIONS if loaded.wm_jax_narrow() else ())
            return {name: getattr(loaded, f"wm_jax_{name}") for name in names}
        except (OSError, AttributeError) as error:
            library.unlink(missing_ok=True)
            if not again:
                raise CannotBuild(f"what {_compiler()[0]} makes can't be loaded ({error}); set CC to another") from None
    raise AssertionError


def call(name: str, results: Any, *arguments: Any, **attributes: int) -> Any:
    """Call a kernel on arrays inside a jitted program.

    Args:
      name: one of `FUNCTIONS`.
      results: shapes and types of what it returns, as `jax.ShapeDtypeStruct`s.
    """
    integers = {key: np.int64(value) for key, value in attributes.items()}
    return jax.ffi.ffi_call(f"wm_jax_{name}", results, vmap_method="sequential")(*arguments, **integers)


def require(
    name: str, arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, Any] = _FLOATS
) -> None:
    """Refuse arrays that aren't what a kernel was written for: C reads whatever lies behind a smaller one.

    Args:
      name: of the operation, for errors.
      arrays: by name.
      shapes: what each must have.
      types: what each must hold, if not float32.

    Raises:
      RuntimeError: the kernels are not `available`.
      ValueError: another shape, or an empty one.
      TypeError: another type.
    """
    if not available():
        raise RuntimeError("there are no kernels in C here: ask native.available() first")
    for each, array in arrays.items():
        if array.shape != shapes[each] or 0 in array.shape:
            raise ValueError(f"{name}: {each} is {array.shape}; it must be {shapes[each]}, and not empty")
        wanted = np.dtype(types.get(each, np.float32))
        if array.dtype != wanted:
            raise TypeError(f"{name}: {each} holds {array.dtype}, but the kernels in C take {wanted}")


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
    files = sorted(here.glob("*.[ch]"))
    text = b"".join(file.read_bytes() for file in files)
    made_for = repr((command, processor(), importlib.metadata.version("jaxlib")))
    key = hashlib.sha256(text + made_for.encode()).hexdigest()[:16]
    library = folder / "kernels" / f"{key}.so"
    if not library.exists():
        print("kernels: compiling them for this processor (once, about fifteen seconds)", file=sys.stderr)
        library.parent.mkdir(exist_ok=True)
        _compile([*command, *(str(file) for file in files if file.suffix == ".c")], library)
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
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise CannotBuild(f"CC={os.environ['CC']} is no command ({error}); set CC to a C compiler") from None
    if chosen:
        return chosen
    found = next(filter(shutil.which, COMPILERS), None)
    if found is None:
        raise CannotBuild("there is no C compiler, so much is slow; install one (such as gcc), or set CC")
    return [found]


def _for_this_processor() -> str:
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
