import subprocess
import sys
from typing import Any

import pytest

from wm_jax.config.schema import EnvConfig
from wm_jax.envs import games, names, official
from wm_jax.envs.spaces import Continuous, Discrete
from wm_jax.envs.types import Game
from wm_jax.utils.errors import UsageError

DEFAULT = EnvConfig.model_validate({})


def test_every_name_has_one_family_and_one_spelling():
    assert len(set(names.names())) == len(names.names()) == 1 + 1 + 16 + 104
    for name in names.names():
        assert names.canonical_name(name.replace("_", "").upper()) == name
    assert [names.family_of(name) for name in ("carracing", "doom", "enduro", "chaser")] == [
        *("carracing", "doom", "atari", "procgen")
    ]
    assert names.family_of("gymnasium:CarRacing-v3") == "gymnasium"


def test_the_catalogue_knows_what_the_libraries_have():
    ale_py = pytest.importorskip("ale_py")
    import gymnasium

    from wm_jax.envs.host import qt

    qt.preload()
    import envpool

    gymnasium.register_envs(ale_py)
    playable = set(envpool.list_all_envs())
    for name in names.ATARI:
        camel = "".join(word.capitalize() for word in name.split("_"))
        assert f"{camel}-v5" in playable
        assert f"ALE/{camel.replace('3d', '3D')}-v5" in gymnasium.registry
    for name in names.PROCGEN:
        assert {f"{name.capitalize()}{difficulty}-v0" for difficulty in ("Easy", "Hard")} <= playable


def test_carracing():
    game = games.find("carracing", DEFAULT)
    assert isinstance(game.actions, Continuous)
    assert game.actions.names == ("steer", "gas", "brake")
    assert game.actions.squash == ("tanh", "sigmoid", "positive_tanh")
    assert (game.crop, game.episode_steps, game.fps) == ((0, 84, 0, 96), 1000, 50)


def test_enduro_has_the_minimal_action_set():
    game = games.find("Enduro", DEFAULT)
    minimal = ("NOOP", "FIRE", "RIGHT", "LEFT", "DOWN", "DOWNRIGHT", "DOWNLEFT", "RIGHTFIRE", "LEFTFIRE")
    assert game.actions == Discrete(minimal, tuple(range(9)))
    assert (game.crop, game.episode_steps, game.fps) == ((15, 155, 10, 160), 27_000, 15)
    assert (game.envpool_id, game.gymnasium_id) == ("Enduro-v5", "ALE/Enduro-v5")


def test_frame_skip_sets_limit_and_pace():
    game = games.find("breakout", EnvConfig.model_validate({"frame_skip": 2}))
    assert (game.episode_steps, game.fps, game.crop) == (54_000, 30, None)


def find(name: str, **settings: Any) -> Game:
    return games.find(name, EnvConfig.model_validate(settings))


def test_the_official_game_is_the_published_one_whatever_the_settings():
    twisted = find("enduro", frame_skip=2, sticky=0.0, episode_steps=100, crop=(0, 84, 0, 96), actions=("NOOP", "FIRE"))
    game = official.official(twisted)
    assert (game.episode_steps, game.fps, game.env.frame_skip, game.env.sticky) == (27_000, 15, 4, 0.25)
    assert (game.crop, game.actions) == (twisted.crop, twisted.actions)
    assert official.official(find("carracing", episode_steps=100)).episode_steps == 1000
    assert official.official(find("chaser", difficulty="hard", episode_steps=9)).envpool_id == "ChaserHard-v0"


@pytest.mark.parametrize(
    ("name", "settings", "transfer", "same"),
    [
        ("carracing", {}, True, False),
        ("carracing", {"backend": "gymnasium"}, False, True),
        ("carracing", {"backend": "gymnasium", "episode_steps": 100}, False, False),
        ("enduro", {}, True, False),
        ("enduro", {"backend": "gymnasium"}, False, True),
        ("enduro", {"backend": "gymnasium", "sticky": 0.0}, True, False),
        ("enduro", {"backend": "gymnasium", "frame_skip": 2}, True, False),
        ("chaser", {}, False, False),
        ("chaser", {"levels": 10}, True, False),
        ("chaser", {"difficulty": "hard"}, True, False),
        ("chaser", {"difficulty": "hard", "levels": 500}, False, False),
        ("gymnasium:probe_games:Probe-v0", {}, False, True),
    ],
)
def test_a_transfer_is_called_one(name: str, settings: dict[str, Any], transfer: bool, same: bool):
    game = find(name, **settings)
    assert (official.is_transfer(game), official.is_official(game)) == (transfer, same)


def test_episodes_can_be_cut_short_but_not_drawn_out():
    game = find("chaser", episode_steps=50)
    assert [game.up_to(steps).episode_steps for steps in (20, 100, None)] == [20, 50, 50]


def test_procgen_keeps_the_moves_and_the_keys_that_matter():
    sizes = {name: games.find(name, DEFAULT).actions.size for name in ("chaser", "dodgeball", "starpilot", "ninja")}
    assert sizes == {"chaser": 9, "dodgeball": 10, "starpilot": 11, "ninja": 13}
    dodgeball = games.find("dodgeball", DEFAULT)
    assert isinstance(dodgeball.actions, Discrete)
    assert (dodgeball.actions.names[4], dodgeball.actions.names[9]) == ("noop", "fire")


def test_chosen_actions_keep_the_games_numbers():
    asked = ("left", "right", "up", "down", "noop", "fire")
    chosen = games.find("dodgeball", EnvConfig.model_validate({"actions": asked})).actions
    assert chosen == Discrete(asked, (1, 7, 5, 3, 4, 9))
    assert games.find("chaser", EnvConfig.model_validate({"actions": ("all",)})).actions.size == 15


def test_a_gymnasium_id():
    game = games.find("gymnasium:probe_games:Probe-v0", DEFAULT)
    assert game.actions == Discrete(("1", "2", "3"), (1, 2, 3))
    assert (game.screen, game.episode_steps, game.fps) == ((64, 64), 200, 7)
    assert game.conversions == game.remarks == ()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("endro", {}, ["game endro: no such game; did you mean enduro"]),
        ("own:a/b", {}, ["game own:a/b: own:NAME takes letters, digits"]),
        ("own:a b", {}, ["game own:a b: own:NAME takes letters"]),
        ("own:../x", {}, ["game own:../x: own:NAME takes letters"]),
        ("zzzzzz", {}, ["game zzzzzz", "gymnasium:ID"]),
        ("gymnasium:", {}, ["game gymnasium:"]),
        ("gymnasium:CarRacin-v3", {}, ["did you mean gymnasium:CarRacing-v3?"]),
        ("gymnasium:CartPole-v1", {}, ["game gymnasium:CartPole-v1", "not images", "env.pixels render"]),
        ("gymnasium:AL/Breakout-v5", {}, ["no such id; did you mean gymnasium:ALE/Breakout-v5"]),
        ("gymnasium:probe_games:Prob-v0", {}, ["did you mean gymnasium:probe_games:Probe-v0?"]),
        ("carracing", {"kwargs": {"continuous": False}}, ["env.kwargs continuous=false: only gymnasium and jax"]),
        ("chaser", {"pixels": "render"}, ["env.pixels render: only gymnasium games"]),
        ("enduro", {"observation": "image"}, ["env.observation image: only gymnasium games"]),
        ("gymnasium:nowhere:X-v0", {}, ["nowhere"]),
        ("carracing", {"actions": ("left",)}, ["env.actions left", "continuous"]),
        ("carracing", {"crop": (0, 97, 0, 96)}, ["env.crop 0 97 0 96", "96"]),
        ("enduro", {"actions": ("GAS",)}, ["env.actions GAS", "NOOP, FIRE, RIGHT"]),
        ("chaser", {"actions": ("up", "up")}, ["env.actions up up"]),
        ("chaser", {"backend": "gymnasium"}, ["env.backend gymnasium", "envpool only"]),
        ("chaser", {"levels": 200, "test_first_level": 100}, ["env.test_first_level 100", "0..199"]),
    ],
)
def test_mistakes_are_named(name, settings, words):
    with pytest.raises(UsageError) as raised:
        games.find(name, EnvConfig.model_validate(settings))
    assert raised.value.exit_code == 2
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_the_catalogue_imports_no_game_and_no_jax():
    code = (
        "import sys; from wm_jax.envs import games, names; names.names(); names.family_of('enduro');"
        "print(sorted({'jax', 'envpool', 'gymnasium', 'ale_py', 'cv2'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
