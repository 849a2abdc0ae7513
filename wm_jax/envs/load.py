"""Games in JAX by the name of their class: ours, and those of the user's own modules."""

from functools import cache
from typing import Any

from wm_jax.envs.spaces import ActionSpace
from wm_jax.envs.types import DeviceGame
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME
from wm_jax.utils.user_classes import blamed_on, make_custom


def load_device_game(entry: str, arguments: dict[str, Any], option: str) -> DeviceGame:
    """Make a game of JAX.

    Args:
      entry: `module:NAME` of its class, or of a function that returns it.
      arguments: of that.
      option: by which the user named it, for complaints.

    Raises:
      UsageError: there is no such class.
      UserError: its module or its constructor raised something, or it is no `DeviceGame`, or no sound one.
    """
    game = make_custom(entry, option, **arguments)
    given = isinstance(getattr(game, "name", None), str) and isinstance(getattr(game, "actions", None), ActionSpace)
    if not isinstance(game, DeviceGame) or not given:
        raise UserError(
            f"{option}: it makes {type(game).__name__}, no wm_jax.envs.types.DeviceGame with a name and actions of "
            "wm_jax.envs.spaces; let the class inherit from it and give these (docs/architecture.md)"
        )
    _require_sound(game, option)
    return game


@cache
def _require_sound(game: DeviceGame, option: str) -> None:
    """Try a game on shapes alone, so that what does not fit is said before anything is played; equal ones once.

    Raises:
      UserError: a method fails, or returns something else than `DeviceGame` says.
    """
    import jax  # late: the catalogue is read without it
    import jax.numpy as jnp

    with blamed_on(f"{option}: its params_for fails"):
        params = game.params_for([0, 1])
    place = jax.ShapeDtypeStruct((), jnp.int32)
    with blamed_on(f"{option}: its start fails"):
        shown, state = jax.eval_shape(game.start, params, place)
    raw = jax.ShapeDtypeStruct((game.actions.outputs,), jnp.float32)
    action = jax.eval_shape(lambda raw: game.actions.in_game(game.actions.choose(raw)), raw)
    with blamed_on(f"{option}: its step fails"):
        then, after, reward, ended = jax.eval_shape(game.step, params, state, action)
    is_frame = (shown.shape, shown.dtype) == (FRAME, jnp.uint8)
    if not is_frame and not (len(shown.shape) == 1 and shown.dtype == jnp.float32):
        raise UserError(
            f"{option}: it shows {_said(shown)}, no frame uint8{list(FRAME)} and no latent float32[Z]; mend it"
        )
    same_state = jax.tree.structure(state) == jax.tree.structure(after)
    same_state = same_state and list(map(_said, jax.tree.leaves(state))) == list(map(_said, jax.tree.leaves(after)))
    wanted = {
        f"what it shows must stay {_said(shown)}": _said(then) == _said(shown),
        f"its state must stay {_listed(state)}, not become {_listed(after)}": same_state,
        f"its reward must be float32[], not {_said(reward)}": _said(reward) == "float32[]",
        f"whether it has ended must be bool[], not {_said(ended)}": _said(ended) == "bool[]",
    }
    for rule, kept in wanted.items():
        if not kept:
            raise UserError(f"{option}: after a step, {rule}; mend it")


def _said(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _listed(tree: Any) -> str:
    import jax

    return " ".join(map(_said, jax.tree.leaves(tree))) or "empty"
