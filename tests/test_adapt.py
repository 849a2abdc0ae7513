"""Every kind of Gymnasium observation and action, and environments that don't keep to what they declare."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import odd_games
import pytest
from odd_games import GREY, RGB

from wm_jax import cli
from wm_jax.cli.options import parse
from wm_jax.config.schema import EnvConfig
from wm_jax.data.replay import ReplayStore
from wm_jax.envs import games
from wm_jax.envs.host.adapt import Environment, open_environment
from wm_jax.envs.host.conversions import Undeclared
from wm_jax.envs.host.resize import shrink
from wm_jax.envs.make import open_pool
from wm_jax.envs.spaces import Continuous, Discrete
from wm_jax.envs.types import Game
from wm_jax.run.folder import Run
from wm_jax.utils.errors import UserError

GREYS = np.stack([GREY] * 3, -1)


def opened(name: str, **settings: Any) -> Environment:
    return open_environment(f"odd_games:{name}-v0", kwargs={}, **settings)


def find(name: str, **settings: Any) -> Game:
    return games.find(f"gymnasium:odd_games:{name}-v0", EnvConfig.model_validate({"backend": "gymnasium", **settings}))


def played(game: Game, actions: list[Any]) -> tuple[np.ndarray, list[float]]:
    """The first frame of an episode in a worker, and the rewards of its steps."""
    pool = open_pool(game, 1, workers=1)
    try:
        first = pool.reset([3])[0]
        return first, [float(pool.step(np.asarray([action])).reward[0]) for action in actions]
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("name", "settings", "screen", "said"),
    [
        ("Plain", {}, RGB, []),
        ("Grey", {}, GREYS, ["grey"]),
        ("GreyLast", {}, GREYS, ["grey"]),
        ("GreyFirst", {}, GREYS, ["channels first", "grey"]),
        ("Rgba", {}, RGB, ["alpha is left out"]),
        ("First", {}, RGB, ["channels first"]),
        ("Floats", {}, RGB, ["float32 in [0, 1] are scaled"]),
        ("Centred", {}, RGB, ["channels first", "float64 in [-1, 1] are scaled"]),
        ("Levels", {}, RGB, ["float32 are rounded"]),
        ("Integers", {}, RGB, ["int64 are rounded"]),
        ("Entry", {}, RGB, ["the entry image"]),
        ("Nested", {}, RGB, ["the entry a.b.1"]),
        ("Cameras", {"observation": "right"}, RGB, ["the entry right"]),
        ("Cameras", {"observation": "left"}, 0 * RGB, ["the entry left"]),
        ("State", {"pixels": "render"}, RGB, ["what render draws, 20 x 30"]),
    ],
)
def test_every_usual_kind_of_picture_is_seen(name: str, settings: dict, screen: np.ndarray, said: list[str]):
    env = opened(name, **settings)
    first, _ = env.reset(seed=0)
    for found in (first, env.step(1)[0]):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, screen)
    assert env.screen == (20, 30)
    assert len(env.conversions) == len(said) and all(map(str.__contains__, env.conversions, said)), env.conversions


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("Stacked", {}, ["not images", "env.pixels render"]),
        ("Unbounded", {}, ["not images", "float with bounds"]),
        ("Vast", {}, ["not images", "float with bounds"]),
        ("State", {}, ["not images", "env.pixels render"]),
        ("Long", {}, ["not images"]),
        ("Words", {}, ["no entry that is an image (state: Box", "env.pixels render"]),
        ("Cameras", {}, ["several images", "choose left or right with env.observation"]),
        ("Cameras", {"observation": "middle"}, ["env.observation middle: no such entry", "left or right"]),
        ("Cameras", {"observation": "state"}, ["env.observation state: this entry is Box", "left or right"]),
        ("Plain", {"observation": "image"}, ["env.observation image", "not a Dict; leave it out"]),
        ("Plain", {"observation": "image", "pixels": "render"}, ["env.observation image", "drop one"]),
        ("Plain", {"kwargs": {"render_mode": "human"}}, ["env.kwargs render_mode", "env.pixels render"]),
        ("Plain", {"kwargs": {"max_episode_steps": 3}}, ["env.kwargs max_episode_steps", "env.episode_steps"]),
        ("Plain", {"kwargs": {"colour": "red"}}, ['env.kwargs colour="red"', "unexpected keyword argument 'colour'"]),
        ("WrongDrawing", {"pixels": "render"}, ["declared the render mode rgb_array, but render returned list"]),
        ("ManyBits", {}, ["128 combinations", "up to 64"]),
        ("Spoken", {}, ["actions are Text", "MultiBinary and Box can be played"]),
    ],
)
def test_what_can_not_be_played_is_said_with_the_remedy(name: str, settings: dict, words: list[str]):
    with pytest.raises(UserError) as raised:
        find(name, **settings)
    said = str(raised.value)
    assert said.startswith(f"game gymnasium:odd_games:{name}-v0: ") and "\n" not in said
    assert all(word in said for word in words), said


BROKEN = [
    ("WrongType", "declared pictures of uint8 [96, 96, 3], but reset returned float32 [96, 96, 3]"),
    ("WrongShape", "declared pictures of uint8 [96, 96, 3], but reset returned uint8 [96, 96, 4]"),
    ("WrongLater", "declared pictures of uint8 [96, 96, 3], but step returned uint8 [96, 96]"),
    ("WrongRange", "declared pictures within [0, 1], but reset returned one that lies outside, with values from 0"),
    ("WrongLevels", "declared pictures within [0, 7], but reset returned one that lies outside, with values from 8"),
    ("NaN", "declared pictures within [0, 1], but reset returned one that lies outside"),
    ("WrongEntry", "declared an entry image of observations, but reset returned none"),
]


@pytest.mark.parametrize(("name", "sentence"), BROKEN)
def test_pictures_are_held_against_what_was_declared(name: str, sentence: str):
    env = opened(name)
    with pytest.raises(Undeclared) as raised:
        env.reset(seed=0)
        env.step(0)
    assert sentence in str(raised.value)


def test_a_worker_says_what_was_declared_and_what_came():
    with pytest.raises(UserError) as raised:
        played(find("WrongType"), [0])
    said = str(raised.value)
    assert "gymnasium:odd_games:WrongType-v0" in said and BROKEN[0][1] in said and "\n" not in said


def test_an_old_api_is_named(monkeypatch: pytest.MonkeyPatch):
    env = opened("Timeless")
    monkeypatch.setattr(odd_games.Odd, "reset", lambda self, seed, options: RGB)
    with pytest.raises(Undeclared, match=r"reset returns \(observation, info\), but this one returned ndarray"):
        env.reset(seed=0)
    monkeypatch.undo()
    env.reset(seed=0)
    monkeypatch.setattr(odd_games.Odd, "step", lambda self, action: (RGB, 0.0, False, {}))
    with pytest.raises(Undeclared, match=r"step returns .*, but this one returned a tuple of 4"):
        env.step(0)


@pytest.mark.parametrize(
    ("name", "space", "rewards"),
    [
        ("Centered3", Discrete(("-1", "0", "1"), (-1, 0, 1)), [-1, 0, 1]),
        ("Choices", Discrete(("-1:5", "-1:6", "0:5", "0:6", "1:5", "1:6"), tuple(range(6))), [4, 5, 5, 6, 6, 7]),
        ("Bits", Discrete(("000", "001", "010", "011", "100", "101", "110", "111"), tuple(range(8))), [0, 1, 1, 2]),
    ],
)
def test_choices_are_the_environments_own(name: str, space: Discrete, rewards: list[float]):
    game = find(name)
    assert game.actions == space
    assert len(game.conversions) == (name != "Centered3")
    assert played(game, list(range(len(rewards))))[1] == rewards


def test_actions_bear_the_environments_own_numbers_on_the_command_line():
    words = ["collect", "--game", "gymnasium:odd_games:Centered3-v0"]
    for given in (["--env.actions=-1,0"], ["--env.actions", "-1", "0"], ["--env.actions=-1", "--seed", "3"]):
        _, config = parse("collect", [*words[1:], *given])
        chosen = games.find(config.game, config.env).actions
        assert chosen == (Discrete(("-1",), (-1,)) if "--seed" in given else Discrete(("-1", "0"), (-1, 0)))
    with pytest.raises(UserError, match=r"env.actions 2: no such action; choose all, or -1, 0, 1"):
        find("Centered3", actions=("2",))
    assert find("Centered3", actions=[-1, 1]).actions == Discrete(("-1", "1"), (-1, 1))  # as YAML reads them
    assert find("Choices", actions=("1:6",)).actions == Discrete(("1:6",), (5,))


@pytest.mark.parametrize(
    ("name", "low", "high", "moves"),
    [
        ("Whole", (-3, 0), (3, 9), {(-2.6, 0.4): -3, (2.4, 9.0): 11, (-0.4, 0.6): 1}),
        ("Bytes", (0, 0), (255, 255), {(255.0, 254.6): 510, (0.2, 0.7): 1}),
        ("Doubles", (-0.1, -0.1), (0.1, 0.1), {(0.1, 0.1): 0.2, (-0.1, 0.05): -0.05}),
        ("Endless", (-1, -1), (1, 1), {(-1.0, 0.5): -0.5}),
        ("Half", (0, -5, 5), (1, -4, 6), {(1.0, -5.0, 6.0): 2}),
        ("Grid", (-2,) * 6, (2,) * 6, {(1.0, 2.0, -0.5, 0.0, 0.25, 0.25): 3}),
    ],
)
def test_boxes_get_numbers_of_their_type_and_shape(name: str, low: tuple, high: tuple, moves: dict):
    game = find(name)
    assert isinstance(game.actions, Continuous)
    np.testing.assert_allclose(game.actions.low, low)
    np.testing.assert_allclose(game.actions.high, high)
    _, rewards = played(game, [np.array(move, np.float32) for move in moves])
    np.testing.assert_allclose(rewards, list(moves.values()), rtol=1e-6)
    said = {
        "Whole": "rounded to int32",
        "Bytes": "rounded to uint8",
        "Endless": "action_1 has no bounds [-inf, inf], and is played within [-1, 1]",
        "Half": "action_1 has no bounds [-inf, -4], and is played within [-5, -4]",
        "Grid": "shape [2, 3] are played as a vector of 6",
    }
    assert said.get(name, "") in " ".join(game.conversions)
    assert bool(game.conversions) == (name in said)
    assert name != "Grid" or game.actions.names[-1] == "action_1_2"


def test_an_episode_is_never_longer_than_the_environments_own_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["collect", "--game", "gymnasium:odd_games:Limited-v0", "--preset", "smoke", "--run", str(tmp_path)]
    assert cli.main([*words, "--collect.episodes", "2"]) == 0
    lengths = [record.steps for record in ReplayStore.open(tmp_path / "replays").records]
    assert lengths == [7, 7]
    said = capsys.readouterr().err
    assert said.count("env.episode_steps 60 is beyond the game's own limit: episodes end after 7 steps") == 1


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("carracing", 1000),
        ("chaser", 1000),
        ("enduro", 27_000),
        ("gymnasium:odd_games:Limited-v0", 7),
        ("gymnasium:BreakoutNoFrameskip-v4", 108_000),
        ("gymnasium:ALE/Breakout-v5", 27_000),
    ],
)
def test_no_setting_draws_episodes_out(name: str, limit: int):
    def game(**settings: Any) -> Game:
        return games.find(name, EnvConfig.model_validate(settings))

    assert game().episode_steps == game(episode_steps=limit).episode_steps == limit
    assert game().remarks == game(episode_steps=limit).remarks == ()
    longer = game(episode_steps=limit + 1)
    assert longer.episode_steps == limit
    assert longer.remarks[0].startswith(f"{name}: env.episode_steps {limit + 1:,} is beyond the game's own limit")
    assert game(episode_steps=5).episode_steps == 5


def test_conversions_are_said_once_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["collect", "--game", "gymnasium:odd_games:Entry-v0", "--preset", "smoke", "--run", str(tmp_path)]
    words += ["--collect.episode_steps", "3"]
    assert cli.main([*words, "--collect.episodes", "2"]) == 0
    assert cli.main([*words, "--collect.episodes", "3"]) == 0
    sentence = "of each observation, the entry image is seen"
    assert capsys.readouterr().err.count(sentence) == 1
    manifest = Run(tmp_path).stage("replays").manifest()
    assert manifest is not None and manifest["config"]["conversions"] == [sentence]
    frames = ReplayStore.open(tmp_path / "replays").frames()
    np.testing.assert_array_equal(frames[0], shrink(RGB[None], None)[0])


def test_arguments_reach_the_environment_and_are_part_of_the_game(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["collect", "--game", "gymnasium:CarRacing-v3", "--preset", "smoke", "--run", str(tmp_path)]
    words += ["--collect.episodes", "2", "--collect.episode_steps", "2"]
    assert cli.main([*words, "--env.kwargs", "continuous=false", "domain_randomize=true"]) == 0
    store = ReplayStore.open(tmp_path / "replays")
    assert store.about["env"]["kwargs"] == {"continuous": False, "domain_randomize": True}
    capsys.readouterr()
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "was made with --env.kwargs continuous=false domain_randomize=true, but now it is none" in said
    game = games.find("gymnasium:CarRacing-v3", EnvConfig(backend="gymnasium", kwargs={"continuous": False}))
    assert game.actions == Discrete(("0", "1", "2", "3", "4"), (0, 1, 2, 3, 4))


def test_runs_from_before_these_settings_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--game", "gymnasium:odd_games:Plain-v0", "--preset", "smoke", "--run", str(tmp_path)]
    words += ["--collect.episodes", "2", "--collect.episode_steps", "12"]
    assert cli.main(["train_vae", *words]) == 0
    new = ("kwargs", "observation", "pixels")
    for name in ("replays", "vae"):
        stage = Run(tmp_path).stage(name)
        manifest = stage.manifest()
        assert manifest is not None
        for key in new:
            manifest["settings"].pop(f"env.{key}", None)
            del manifest["config"]["env"][key]
        stage.write_record("stage.json", manifest)
    assert cli.main(["train_vae", *words]) == 0
    assert cli.main(["encode", *words]) == 0
    capsys.readouterr()
    assert cli.main(["encode", *words, "--env.pixels", "render"]) == 1
    assert "was made with --env.pixels observation, but now it is render: give that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "pixels", "words"),
    [
        ("init", "observation", "it can't be opened (FileNotFoundError: no assets here"),
        ("reset", "render", "it can't be opened (ValueError: no level"),
        ("reset", "observation", "ValueError: no level"),
    ],
)
def test_what_an_environment_raises_is_one_sentence(
    where: str, pixels: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("ODD_GAMES_BREAK", where)
    line = ["collect", "--game", "gymnasium:odd_games:Broken-v0", "--preset", "smoke", "--run", str(tmp_path / "x")]
    assert cli.main([*line, "--env.pixels", pixels]) == 1
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("error: ") and words in said and "gymnasium:odd_games:Broken-v0" in said
    assert "unexpected" not in said and "report it" not in said
    if "opened" in words:
        assert cli.main([*line, "--env.pixels", pixels, "--debug"]) == 1
        traced = capsys.readouterr().err
        assert "Traceback" in traced and f"in __{where}__" in traced.replace("in reset", "in __reset__")
        assert traced.strip().split("\n")[-1] == said.removesuffix(" (--debug shows its traceback)") != said


MODULE = """
import gymnasium, numpy as np
class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, seed=None, options=None):
        return np.full((64, 64, 3), 9, np.uint8), {}
    def step(self, action):
        return np.full((64, 64, 3), 9, np.uint8), 0.0, True, False, {}
gymnasium.register("Mine-v0", Mine)
"""


def from_folder(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What `bin/collect` does with these words in a folder."""
    root = Path(__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-P", "-m", "wm_jax", "collect", "--preset", "smoke", "--collect.episodes", "2", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )


def test_modules_of_the_current_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import gymnasium\nraise RuntimeError('half\\nwritten')")
    # Nothing else of the folder takes a library's place.
    (tmp_path / "cv2.py").write_text("raise RuntimeError('the wrong module')")
    done = from_folder(tmp_path, "--game", "gymnasium:my_module:Mine-v0", "--run", "x")
    assert done.returncode == 0, done.stderr
    near = from_folder(tmp_path, "--game", "gymnasium:my_module:Mone-v0", "--run", "y")
    assert near.returncode == 2 and "did you mean gymnasium:my_module:Mine-v0?" in near.stderr
    broken = from_folder(tmp_path, "--game", "gymnasium:my_broken:X-v0", "--run", "y", "--debug")
    assert broken.returncode == 1 and "raise RuntimeError" in broken.stderr
    assert (
        broken.stderr.strip()
        .split("\n")[-1]
        .startswith("error: --game gymnasium:my_broken:X-v0: it can't be opened (RuntimeError: half written)")
    )
    assert not (tmp_path / "y").exists()


def test_a_module_that_is_nowhere_is_named_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        games.find("gymnasium:my_nowhere:X-v0", EnvConfig())
    said = str(raised.value)
    assert "no module my_nowhere" in said and str(tmp_path) in said and "PYTHONPATH" in said


def test_old_names_of_atari_games_need_no_module() -> None:
    code = (
        "from wm_jax.envs import games; from wm_jax.config.schema import EnvConfig;"
        "game = games.find('gymnasium:BreakoutNoFrameskip-v4', EnvConfig()); print(game.screen, game.actions.names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "(210, 160) ('0', '1', '2', '3')", done.stderr
