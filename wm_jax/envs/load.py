"""Games in JAX by the name of their class: ours, and those of the user's own modules."""

import importlib
import traceback
from typing import Any

from wm_jax.envs.importable import make_importable
from wm_jax.envs.types import DeviceGame
from wm_jax.errors import UsageError, UserError
from wm_jax.spaces import ActionSpace


def load_device_game(entry: str, arguments: dict[str, Any], option: str) -> DeviceGame:
    """Make a game of JAX.

    Args:
      entry: `module:NAME` of its class, or of a function that returns it.
      arguments: of that.
      option: by which the user named it, for complaints.

    Raises:
      UsageError: there is no such class.
      UserError: its module or its constructor raised something, or it is no `DeviceGame`.
    """
    module, colon, name = entry.partition(":")
    if not (module and colon and name.isidentifier()):
        raise UsageError(f"{option}: give the module and the class in it, as in jax:my_games:Grid")
    try:
        make_importable(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"{option}: {error}") from None
    try:
        there = importlib.import_module(module)
        if not hasattr(there, name):
            raise UsageError(f"{option}: the module {module} has no {name}; give a class that it has")
        game = getattr(there, name)(**arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever it raises, it is the module's
        said = " ".join(f"{type(error).__name__}: {error}".split())
        failure = UserError(f"{option}: it can't be made ({said}); mend it (--debug shows its traceback)")
        failure.details = "".join(traceback.format_exception(error))
        raise failure from error
    given = isinstance(getattr(game, "name", None), str) and isinstance(getattr(game, "actions", None), ActionSpace)
    if not isinstance(game, DeviceGame) or not given:
        raise UserError(
            f"{option}: it makes {type(game).__name__}, no wm_jax.envs.types.DeviceGame with a name and actions of "
            "wm_jax.spaces; let the class inherit from it and give these (docs/architecture.md)"
        )
    return game
