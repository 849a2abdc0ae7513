"""Which game scores are published for, and how another one differs from it."""

from wm_jax.config.schema import EnvConfig
from wm_jax.envs.games import find
from wm_jax.envs.types import Game

_ATARI_RULES = {"sticky": 0.25, "frame_skip": 4}
"""Of ALE/NAME-v5 (Machado et al. 2018)."""

_PROCGEN_LEVELS = {"easy": 200, "hard": 500}
"""Training levels of the published scores (Cobbe et al. 2020)."""


def official(game: Game) -> Game:
    """The game that scores are published for, seen with the same crop and played with the same actions.

    Procgen has two published difficulties, of which it stays the one trained on; its levels stay too, for they say
    which ones training never saw.
    """
    rules = {**_ATARI_RULES, "skill": EnvConfig.model_fields["skill"].default}
    return find(game.name, game.env.model_copy(update={"episode_steps": None, **rules}))


def is_official(game: Game) -> bool:
    """Whether the game that replays and training come from is the official one itself."""
    return game == official(game) and (game.family in ("gymnasium", "jax") or game.env.backend == "gymnasium")


def is_transfer(game: Game) -> bool:
    """Whether an agent trained on this game meets other pictures or rules in the official one, or other levels were
    to be trained on. The length of episodes does not count: that of training has settings of its own anyway.

    EnvPool and the device have CarRacings of their own. Of Atari EnvPool shows, pixel by pixel, the brighter one of the
    last two emulator frames.
    """
    if game.family in ("carracing", "atari") and game.env.backend != "gymnasium":
        return True
    skill = EnvConfig.model_fields["skill"].default
    published = {**_ATARI_RULES, "skill": skill, "first_level": 0, "levels": _PROCGEN_LEVELS[game.env.difficulty]}
    return any(getattr(game.env, name) != value for name, value in published.items())
