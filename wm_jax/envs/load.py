"""Games in JAX by the name of their class: ours, and those of the user's own modules."""

from typing import Any

from wm_jax.envs.spaces import ActionSpace
from wm_jax.envs.types import DeviceGame
from wm_jax.utils.errors import UserError
from wm_jax.utils.user_classes import make_own


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
    game = make_own(entry, option, **arguments)
    given = isinstance(getattr(game, "name", None), str) and isinstance(getattr(game, "actions", None), ActionSpace)
    if not isinstance(game, DeviceGame) or not given:
        raise UserError(
            f"{option}: it makes {type(game).__name__}, no wm_jax.envs.types.DeviceGame with a name and actions of "
            "wm_jax.envs.spaces; let the class inherit from it and give these (docs/architecture.md)"
        )
    return game
