"""The names of all games, and the families that they belong to."""

import re
from functools import cache

from wm_jax.config.text import nearest
from wm_jax.utils.errors import UsageError

_PROCGEN = """
bigfish bossfight caveflyer chaser climber coinrun dodgeball fruitbot
heist jumper leaper maze miner ninja plunder starpilot
"""

# The games of ALE 0.12 that have a one-player Gymnasium entry and an EnvPool one.
_ATARI = """
adventure air_raid alien amidar assault asterix asteroids atlantis atlantis2 backgammon bank_heist basic_math
battle_zone beam_rider berzerk blackjack bowling boxing breakout carnival casino centipede chopper_command
crazy_climber crossbow darkchambers defender demon_attack donkey_kong double_dunk earthworld elevator_action
enduro entombed et fishing_derby flag_capture freeway frogger frostbite galaxian gopher gravitar hangman
haunted_house hero human_cannonball ice_hockey jamesbond journey_escape kaboom kangaroo keystone_kapers king_kong
klax koolaid krull kung_fu_master laser_gates lost_luggage mario_bros miniature_golf montezuma_revenge mr_do
ms_pacman name_this_game othello pacman phoenix pitfall pitfall2 pong pooyan private_eye qbert riverraid
road_runner robotank seaquest sir_lancelot skiing solaris space_invaders space_war star_gunner superman surround
tennis tetris tic_tac_toe_3d time_pilot trondead turmoil tutankham up_n_down venture video_checkers video_chess
video_cube video_pinball wizard_of_wor word_zapper yars_revenge zaxxon
"""

PROCGEN = tuple(_PROCGEN.split())
ATARI = tuple(_ATARI.split())

DOOM = ("doomtakecover",)
_ALIASES = {"doom": "doomtakecover", "takecover": "doomtakecover"}

_BY_NAME = ("gymnasium:", "jax:", "own:")
"""What games begin with that are no part of the catalogue."""
_OWN = re.compile(r"own:[\w.-]+")
"""Recordings' names are those of folders, another one for each."""


@cache
def names() -> tuple[str, ...]:
    """Every game of the catalogue; `gymnasium:ID` and `jax:MODULE:CLASS` stand for any other."""
    return ("carracing", *DOOM, *PROCGEN, *ATARI)


def canonical_name(name: str) -> str:
    """The catalogue's spelling: `SpaceInvaders`, `spaceinvaders` and `space_invaders` are one game.

    Raises:
      UsageError: no such game; says which are near.
    """
    if name.startswith("own:") and not _OWN.fullmatch(name):
        raise UsageError(f"game {name}: own:NAME takes letters, digits, '.', '_' and '-', such as own:maze")
    if any(name.startswith(kind) and len(name) > len(kind) for kind in _BY_NAME):
        return name
    known = {_plain(each): each for each in names()} | _ALIASES
    if _plain(name) in known:
        return known[_plain(name)]
    near = nearest(name.lower(), names()) or (
        "; choose carracing, doomtakecover, a Procgen or an Atari game, gymnasium:ID, jax:MODULE:CLASS, or own:NAME "
        "for what bin/import brings"
    )
    raise UsageError(f"game {name}: no such game{near}")


def family_of(name: str) -> str:
    """`carracing`, `doom`, `atari`, `procgen`, `gymnasium`, `jax` or `own`; raises UsageError for an unknown game."""
    name = canonical_name(name)
    if name.startswith(_BY_NAME):
        return name.partition(":")[0]
    if name in PROCGEN:
        return "procgen"
    if name in DOOM:
        return "doom"
    return "atari" if name in ATARI else "carracing"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
