"""Modules of the user's own: installed ones, and those of the current folder."""

import importlib.machinery
import importlib.util
import os
import sys


def make_importable(module: str) -> None:
    """Let a module be imported from the current folder, if it is there and nowhere else.

    The folder comes last, so that no file of it takes the place of a library.

    Raises:
      ModuleNotFoundError: it is nowhere; says so in a sentence.
    """
    root = module.partition(".")[0]
    if root in sys.modules or importlib.util.find_spec(root) is not None:
        return
    here = os.getcwd()
    if importlib.machinery.PathFinder.find_spec(root, [here]) is None:
        raise ModuleNotFoundError(
            f"there is no module {root}, neither installed nor in the current folder ({here}); go to its folder, "
            "install it, or put its folder on PYTHONPATH"
        )
    sys.path.append(here)
