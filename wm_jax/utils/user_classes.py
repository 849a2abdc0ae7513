"""Classes of the user's own, by MODULE:NAME: of installed modules, and of those in the current folder."""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from wm_jax.utils.errors import UsageError, UserError


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


def make_custom(entry: str, option: str, *given: Any, **arguments: Any) -> Any:
    """What a class of the user's own makes.

    Args:
      entry: `MODULE:NAME` of the class, or of a function.
      option: by which the user named it, for complaints.
      given, arguments: of the class.

    Raises:
      UsageError: there is no such class.
      UserError: its module or its constructor raised something.
    """
    module, colon, name = entry.partition(":")
    if not (module and colon and name.isidentifier()):
        raise UsageError(f"{option}: give the module and the class in it, MODULE:CLASS")
    try:
        make_importable(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"{option}: {error}") from None
    with blamed_on(f"{option}: it can't be made", f"mend it{', or what it is given' if arguments else ''}"):
        there = importlib.import_module(module)
        if not hasattr(there, name):
            raise UsageError(f"{option}: the module {module} has no {name}; give a class that it has")
        return getattr(there, name)(*given, **arguments)


@contextlib.contextmanager
def blamed_on(what: str, remedy: str = "mend it") -> Iterator[None]:
    """While inside, what is raised is the fault of the user's own code.

    Args:
      what: fails, such as "vae.variant m:C: it can't be made".

    Raises:
      UserError: in one sentence what was raised; its traceback is in `details`.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        failure = UserError(f"{what} ({said}); {remedy}")
        failure.details = "".join(traceback.format_exception(error))
        raise failure from error
