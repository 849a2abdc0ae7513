"""Lets EnvPool's Procgen run without system packages.

EnvPool links against Qt 5's Core and Gui. The PyPI package `PyQt5-Qt5` carries both, but not where the loader looks,
so they are loaded by path before EnvPool is imported. A system-wide Qt 5 does as well.
"""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

# In the order of their dependencies.
_LIBRARIES = ("libicudata.so.56", "libicuuc.so.56", "libicui18n.so.56", "libQt5Core.so.5", "libQt5Gui.so.5")


@cache
def preload() -> None:
    """Load Qt into this process, once; does nothing where `PyQt5-Qt5` isn't installed."""
    found = importlib.util.find_spec("PyQt5")
    for folder in (found.submodule_search_locations or ()) if found else ():
        libraries = [Path(folder) / "Qt5" / "lib" / name for name in _LIBRARIES]
        if all(library.exists() for library in libraries):
            for library in libraries:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
