"""The catalogue: every game by name, and what the rest of the project needs to know about it.

Nothing is imported or opened to read the catalogue. `find` asks the emulator (Atari), Gymnasium (`gymnasium:ID`) or
the game's own class (`jax:MODULE:CLASS`) for what only they know: the action set and the size of the screen.
"""

from functools import cache

from wm_jax.config.schema import EnvConfig
from wm_jax.config.text import shown
from wm_jax.envs import families
from wm_jax.envs.names import canonical_name, family_of
from wm_jax.envs.types import Game
from wm_jax.utils.errors import UsageError

_ONLY_OF = {
    **dict.fromkeys(("sticky", "frame_skip"), ("atari",)),
    **dict.fromkeys(("difficulty", "levels", "first_level", "test_first_level"), ("procgen",)),
    **dict.fromkeys(("observation", "pixels"), ("gymnasium",)),
    "kwargs": ("gymnasium", "jax", "own"),
    "skill": ("doom",),
}
"""Settings of the families that have them."""


def find(name: str, env: EnvConfig) -> Game:
    """The game with its settings resolved.

    Raises:
      UsageError: an unknown game, or settings that don't fit it.
    """
    name = canonical_name(name)
    _refuse_foreign(name, env)
    if env.backend == "device" and family_of(name) not in ("carracing", "jax"):
        raise UsageError(
            f"env.backend device: only carracing and jax:MODULE:CLASS run on the device, {name} does not; leave it out"
        )
    makers = {
        "carracing": families.carracing,
        "doom": families.doom,
        "atari": families.atari,
        "procgen": families.procgen,
        "gymnasium": families.gymnasium,
        "jax": families.jax,
        "own": families.own,
    }
    game = makers[family_of(name)](name, env)
    _check_crop(game)
    return game


def random_start_in(game: Game, asked: bool | None, option: str) -> bool:
    """Shall episodes of a game begin anywhere? If nothing is asked, those of games on the device do that can.

    Args:
      option: that asks for it.

    Raises:
      UsageError: the game can't.
    """
    if asked and not game.random_starts:
        raise UsageError(
            f"{option}: episodes of {game.name} can't begin anywhere, only those of CarRacing on the device, of Atari "
            "by Gymnasium, and of games of one's own in JAX that say so; leave it out"
        )
    return game.random_starts and game.env.backend == "device" if asked is None else asked


def _refuse_foreign(name: str, env: EnvConfig) -> None:
    """Settings of another family would be passed over in silence."""
    for setting, having in _ONLY_OF.items():
        value = getattr(env, setting)
        if family_of(name) not in having and value != EnvConfig.model_fields[setting].default:
            raise UsageError(
                f"env.{setting} {shown(value)}: only {' and '.join(having)} games have that, {name} has not; "
                "leave it out"
            )


def _check_crop(game: Game) -> None:
    if game.crop is None:
        return
    top, bottom, left, right = game.crop
    height, width = game.screen
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise UsageError(
            f"env.crop {top} {bottom} {left} {right}: must be top < bottom <= {height} and left < right <= {width}, "
            f"the screen of {game.name}"
        )


def announce(game: Game) -> None:
    """Tell the user what is done to the game's observations and actions, and how its settings were taken; once."""
    for conversion in game.conversions:
        _say_once(f"{game.name}: {conversion}")
    for remark in game.remarks:
        _say_once(remark)


@cache
def _say_once(line: str) -> None:
    from wm_jax.distributed.progress import log

    log(line)
