"""The game of each family with its settings resolved: actions, screen, crop, length, and who can play it.

Each function takes a game's name as `names.canonical_name` spells it, and the settings, and raises UsageError where
these don't fit; `games.find` calls the one of the game's family.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from wm_jax.config.schema import EnvConfig
from wm_jax.config.text import shown
from wm_jax.envs.spaces import ActionSpace, Continuous, Discrete, Thresholds
from wm_jax.envs.types import Crop, Game
from wm_jax.utils.errors import UsageError
from wm_jax.utils.extras import require
from wm_jax.utils.sizes import SIDE

NO_ACTIONS = ("none",)
"""The names of the actions of recordings without any."""

CAR_ACTIONS = Continuous(
    names=("steer", "gas", "brake"),
    low=(-1.0, 0.0, 0.0),
    high=(1.0, 1.0, 1.0),
    squash=("tanh", "sigmoid", "positive_tanh"),
)
_CAR_ON_DEVICE = "wm_jax.envs.car_racing.game:CarRacingGame"

# Rows 15..154 without the score panel, columns 10.. without the black border.
_ATARI_CROPS: dict[str, Crop] = {"enduro": (15, 155, 10, 160)}

# Rows 0..83: the bar with the instruments is cut off (Ha & Schmidhuber 2018).
_CAR_CROP: Crop = (0, 84, 0, 96)

DOOM_SCREEN, DOOM_STEPS, DOOM_FPS = (120, 160), 2100, 35.0
DOOM_MOVES = (2, 0, 1)
# Of 480 rows the first 400: the lowest are the floor before the player's feet (Ha & Schmidhuber 2018).
_DOOM_CROP: Crop = (0, 100, 0, 160)

# Procgen's 15 key combinations in its own order; the last six are the keys D, A, W, S, Q and E.
_PROCGEN_ACTIONS = (
    *("left-down", "left", "left-up", "down", "noop", "up", "right-down", "right", "right-up"),
    *("fire", "key-a", "key-w", "key-s", "key-q", "key-e"),
)
_PROCGEN_MOVES = 9
# How many of the six keys do something of their own (found by playing the same level with and without each key):
# they shoot or throw; Starpilot also shoots backwards, Ninja throws in four directions. The others repeat `fire`.
_PROCGEN_KEYS: dict[str, int] = {
    **dict.fromkeys(("bossfight", "caveflyer", "dodgeball", "fruitbot", "plunder"), 1),
    "starpilot": 2,
    "ninja": 4,
}

_ATARI_FRAMES = 108_000
"""Emulator frames of the longest Atari episode: half an hour (Machado et al. 2018)."""

_CAR_STEPS = _PROCGEN_STEPS = 1000
_NO_LIMIT_STEPS = 1000
"""The longest episode of an environment that has no limit of its own."""


def carracing(name: str, env: EnvConfig) -> Game:
    """CarRacing, on the device, by EnvPool or by Gymnasium."""
    _refuse_action_names(name, env)
    if env.backend == "device" and env.crop is not None:
        raise UsageError(
            f"env.crop {' '.join(map(str, env.crop))}: the device draws rows 0..83 of CarRacing, as ever; "
            "leave it out, or give env.backend envpool"
        )
    return Game(
        name=name,
        family="carracing",
        title="CarRacing-v3",
        actions=CAR_ACTIONS,
        screen=(96, 96),
        crop=env.crop or _CAR_CROP,
        **_length(name, env, _CAR_STEPS),
        fps=50.0,
        env=env,
        envpool_id="CarRacing-v3",
        gymnasium_id="CarRacing-v3",
        device_entry=_CAR_ON_DEVICE,
        random_starts=env.backend == "device",
        solved=900,
    )


def doom(name: str, env: EnvConfig) -> Game:
    """DoomTakeCover, by ViZDoom."""
    if env.backend != "gymnasium":
        raise UsageError(f"env.backend {env.backend}: {name} runs on gymnasium only; leave the backend out")
    _refuse_action_names(name, env, "has three actions by two thresholds")
    return Game(
        name=name,
        family="doom",
        title="DoomTakeCover",
        actions=Thresholds(("left", "stay", "right"), DOOM_MOVES),
        screen=DOOM_SCREEN,
        crop=env.crop or _DOOM_CROP,
        **_length(name, env, DOOM_STEPS),
        fps=DOOM_FPS,
        env=env,
        gymnasium_id="wm_jax.envs.host.doom:DoomTakeCover-v0",
        unit="steps survived",
        solved=750,
        step_reward=1.0,
    )


def atari(name: str, env: EnvConfig) -> Game:
    """A game of the ALE, by Gymnasium or EnvPool."""
    words = [word.capitalize() for word in name.split("_")]
    minimal, screen = _ask_emulator(name)
    return Game(
        name=name,
        family="atari",
        title=" ".join(words),
        actions=_choose(Discrete(minimal, tuple(range(len(minimal)))), env, default=minimal),
        screen=screen,
        crop=env.crop or _ATARI_CROPS.get(name),
        **_length(name, env, _ATARI_FRAMES // env.frame_skip),
        fps=60 / env.frame_skip,
        env=env,
        envpool_id="".join(words) + "-v5",
        gymnasium_id="ALE/" + "".join(words).replace("3d", "3D") + "-v5",
        random_starts=env.backend == "gymnasium",
        unit="cars passed" if name == "enduro" else "score",
    )


@cache
def _ask_emulator(rom: str) -> tuple[tuple[str, ...], tuple[int, int]]:
    """ALE's names of a game's minimal action set, in the order in which a game counts them, and its screen's size."""
    require("atari", f"game {rom}")
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.loadROM(str(roms.get_rom_path(rom)))
    height, width = emulator.getScreenDims()
    return tuple(action.name for action in emulator.getMinimalActionSet()), (height, width)


def procgen(name: str, env: EnvConfig) -> Game:
    """A Procgen game, by EnvPool."""
    if env.backend != "envpool":
        raise UsageError(f"env.backend {env.backend}: {name} runs on envpool only; leave the backend out")
    if env.first_level + max(1, env.levels) > env.test_first_level:
        raise UsageError(
            f"env.test_first_level {env.test_first_level}: the test levels must start behind the training levels "
            f"{env.first_level}..{env.first_level + max(1, env.levels) - 1}"
        )
    everything = Discrete(_PROCGEN_ACTIONS, tuple(range(len(_PROCGEN_ACTIONS))))
    return Game(
        name=name,
        family="procgen",
        title=name.capitalize(),
        actions=_choose(everything, env, default=_PROCGEN_ACTIONS[: _PROCGEN_MOVES + _PROCGEN_KEYS.get(name, 0)]),
        screen=(SIDE, SIDE),
        crop=env.crop,
        **_length(name, env, _PROCGEN_STEPS),
        fps=15.0,
        env=env,
        envpool_id=f"{name.capitalize()}{env.difficulty.capitalize()}-v0",
    )


def gymnasium(name: str, env: EnvConfig) -> Game:
    """Any environment of Gymnasium with pictures: it is opened once, to ask for what only it knows."""
    # Imported late: the adapter imports Gymnasium, which most games don't need.
    require("gymnasium", name)
    from wm_jax.envs.host.describe import describe

    identifier = name.removeprefix("gymnasium:")
    facts = describe(identifier, env.kwargs, env.observation, env.pixels)
    if isinstance(facts.actions, Discrete):
        actions = _choose(facts.actions, env, default=facts.actions.names)
    else:
        _refuse_action_names(name, env)
        actions = facts.actions
    return Game(
        name=name,
        family="gymnasium",
        title=identifier,
        actions=actions,
        screen=facts.screen,
        crop=env.crop,
        **_length(name, env, facts.limit),
        fps=facts.fps,
        env=env,
        gymnasium_id=identifier,
        conversions=facts.conversions,
    )


def jax(name: str, env: EnvConfig) -> Game:
    """A game of the user's own on the device, whose class says what it is."""
    # Imported late: such a game imports JAX.
    from wm_jax.envs.load import load_device_game

    if env.backend != "device":
        raise UsageError(f"env.backend {env.backend}: {name} runs on the device only; leave the backend out")
    if env.crop is not None:
        raise UsageError(f"env.crop {shown(env.crop)}: {name} shows frames as they are seen; leave it out")
    entry = name.removeprefix("jax:")
    game = load_device_game(entry, env.kwargs, f"game {name}")
    actions = game.actions
    if isinstance(actions, Discrete):
        actions = _choose(actions, env, default=actions.names)
    else:
        _refuse_action_names(name, env)
    return Game(
        name=name,
        family="jax",
        title=game.name,
        actions=actions,
        screen=(SIDE, SIDE),
        crop=None,
        **_length(name, env, game.episode_steps),
        fps=game.fps,
        env=env,
        device_entry=entry,
        random_starts=game.random_starts,
        unit=game.unit,
        solved=game.solved,
    )


def own(name: str, env: EnvConfig) -> Game:
    """Recordings of one's own: nobody can play them."""
    if env.backend != EnvConfig.model_fields["backend"].default:
        raise UsageError(f"env.backend {env.backend}: {name} consists of recordings, which nothing plays; leave it out")
    _refuse_action_names(name, env, "has the actions that were imported")
    if env.crop is not None:
        raise UsageError(f"env.crop {shown(env.crop)}: recordings are seen whole; cut them before they are imported")
    return Game(
        name=name,
        family="own",
        title=name.removeprefix("own:"),
        actions=imported_actions(env.kwargs),
        screen=(SIDE, SIDE),
        crop=None,
        **_length(name, env, None),
        fps=15.0,
        env=env,
        recorded=True,
    )


def imported_actions(arguments: Mapping[str, Any]) -> ActionSpace:
    """The actions of recordings: a choice of so many, numbers within bounds, or a single one where there are none.

    Args:
      arguments: `env.kwargs`: actions=N, or low=[...] high=[...], or nothing.

    Raises:
      UsageError: these are others.
    """
    match dict(arguments):
        case {"low": [*low], "high": [*high]} if len(low) == len(high) > 0:
            names = tuple(map(str, range(len(low))))
            return Continuous(names, tuple(map(float, low)), tuple(map(float, high)), ("tanh",) * len(low))
        case {"actions": int(count)} if count > 0:
            return Discrete(tuple(map(str, range(count))), tuple(range(count)))
        case {**others} if not others:
            return Discrete(NO_ACTIONS, (0,))
    raise UsageError(f"env.kwargs {shown(arguments)}: give actions=N, or low and high of each, or leave it out")


def _length(name: str, env: EnvConfig, limit: int | None) -> dict[str, Any]:
    """`episode_steps`, and what is to be remarked of it.

    Args:
      limit: the game's own, beyond which it may not be able to go (None: it has none).
    """
    asked = env.episode_steps
    if limit is None or (asked is not None and asked <= limit):
        return {"episode_steps": asked or _NO_LIMIT_STEPS}
    if asked is None:
        return {"episode_steps": limit}
    remark = f"{name}: env.episode_steps {asked:,} is beyond the game's own limit: episodes end after {limit:,} steps"
    return {"episode_steps": limit, "remarks": (remark,)}


def _choose(everything: Discrete, env: EnvConfig, default: tuple[str, ...]) -> Discrete:
    """The actions to keep, in the order asked for."""
    chosen = default if env.actions is None else everything.names if env.actions == ("all",) else env.actions
    positions = dict(zip(everything.names, everything.indices, strict=True))
    for action in chosen:
        if action not in positions:
            raise UsageError(f"env.actions {action}: no such action; choose all, or {', '.join(everything.names)}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise UsageError(f"env.actions {' '.join(chosen)}: name at least one action, and each only once")
    return replace(everything, names=tuple(chosen), indices=tuple(positions[action] for action in chosen))


def _refuse_action_names(name: str, env: EnvConfig, why: str = "has continuous actions") -> None:
    if env.actions is not None:
        raise UsageError(f"env.actions {' '.join(env.actions)}: {name} {why}; leave it out")
