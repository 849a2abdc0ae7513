"""wm_jax as a library: what importing it does not do, and what its names do, as a user calls them."""

import ast
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import wm_jax
from wm_jax.run.pretrained import AGENTS
from wm_jax.utils.errors import UserError

ROOT = Path(__file__).parent.parent

QUIET = """
import os, signal, sys, threading, time
before = dict(os.environ), {each: signal.getsignal(each) for each in signal.valid_signals()}, threading.active_count()
began = time.perf_counter()
import wm_jax
seconds = time.perf_counter() - began
after = dict(os.environ), {each: signal.getsignal(each) for each in signal.valid_signals()}, threading.active_count()
assert before == after, "the process is as it was"
heavy = {"jax", "flax", "numpy", "gymnasium", "envpool", "pydantic"} & set(sys.modules)
assert not heavy, heavy
assert set(wm_jax.__all__) <= set(dir(wm_jax))
wm_jax.load
assert "jax" in sys.modules and (before[0], before[1]) == (dict(os.environ), after[1])
print(seconds)
"""


def python(code: str, folder: Path) -> str:
    """What a program prints that is run in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-P", "-B", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_does_nothing(tmp_path: Path) -> None:
    """No JAX, variables, signals, threads or files; under a fifth of a second, which the best of three shows."""
    assert min(float(python(QUIET, tmp_path)) for _ in range(3)) < 0.2
    assert list(tmp_path.iterdir()) == []


def test_each_name_is_there_and_says_what_it_is() -> None:
    for name in wm_jax.__all__:
        assert (getattr(wm_jax, name).__doc__ or "").strip(), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = wm_jax.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(wm_jax.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: (each.module or "").removeprefix("wm_jax.")
        for each in guarded.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    assert seen == wm_jax._HOME and sorted(seen) == sorted(wm_jax.__all__)
    assert (Path(wm_jax.__file__).parent / "py.typed").is_file()


@pytest.fixture(scope="module")
def driver() -> wm_jax.TrainedAgent:
    return wm_jax.load("carracing")


def test_the_shipped_agent_sees_predicts_and_drives(driver: wm_jax.TrainedAgent) -> None:
    assert list(driver.about) == ["vae", "memory", "controller"] and driver.game.name == "carracing"
    played = driver.play([3, 4])
    assert (played.returns > 600).all() and (played.returns == driver.play([3, 4]).returns).all()


def test_v_and_m_take_arrays_with_any_axes_in_front(driver: wm_jax.TrainedAgent) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 5, 64, 64, 3), np.uint8)
    z = driver.encode(frames)
    assert z.shape == (2, 5, 32) and z.dtype == np.float32
    np.testing.assert_allclose(driver.encode(frames[1, 2]), z[1, 2], atol=1e-4)
    drawn = driver.decode(z)
    assert drawn.shape == frames.shape and drawn.dtype == np.uint8
    actions = np.zeros((5, 3), np.float32)
    whole = driver.predict(z[0], actions)
    first = driver.predict(z[0, :2], actions[:2])
    rest = driver.predict(z[0, 2:], actions[2:], first.carry)
    np.testing.assert_allclose(np.concatenate([first.z, rest.z]), whole.z, atol=1e-5)
    assert whole.z.shape == (5, 32) and whole.reward is None and whole.end is None


class Road:
    """An environment of one's own, with Gymnasium's methods: the reward of a step is the gas."""

    open = 0

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        type(self).open += 1
        self.screen, self.left = np.full((96, 96, 3), seed, np.uint8), 5 + seed
        return self.screen, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return self.screen, float(action[1]), self.left == 0, False, {}

    def close(self) -> None:
        type(self).open -= 1


def test_an_agent_plays_in_an_environment_of_ones_own(driver: wm_jax.TrainedAgent) -> None:
    returns = wm_jax.play(Road, driver, [0, 9])
    assert Road.open == 0 and (returns > 0).all() and returns[1] > returns[0]
    carry, frame, sums = driver.begin(), wm_jax.to_frames(np.zeros((96, 96, 3), np.uint8), driver.game.crop), 0.0
    for _ in range(5):
        actions, carry = driver.act(frame, carry)
        sums += float(actions[0, 1])
    assert sums == pytest.approx(returns[0], rel=1e-4)
    assert wm_jax.play(Road, driver, [0], crop=None) != returns[:1], "the bar of instruments is seen, too"


def test_what_does_not_fit_an_agent_is_refused(driver: wm_jax.TrainedAgent) -> None:
    frames, z = np.zeros((2, 64, 64, 3), np.uint8), np.zeros((3, 32), np.float32)
    with pytest.raises(ValueError, match="but the state is that of 1 episodes"):
        driver.act(frames, driver.begin(1))
    with pytest.raises(ValueError, match="to_frames makes them"):
        driver.act(np.zeros((1, 96, 96, 3), np.uint8), driver.begin(1))
    with pytest.raises(ValueError, match="actions"):
        driver.predict(z, np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"z: \(3, 31\), expected \[T, 32\]"):
        driver.predict(z[:, 1:], np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="slots: 0"):
        driver.play([1], slots=0)


def test_it_works_in_another_thread(driver: wm_jax.TrainedAgent) -> None:
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(wm_jax.load("carracing").play([5]).returns))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], driver.play([5]).returns)


def test_v_and_m_are_trained_on_arrays(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (30, 40, 40, 3), np.uint8) for _ in range(4)]
    actions = [random.integers(0, 2, 30) for _ in range(4)]
    small = {"steps": 10, "width": 0.125, "latent": 4}
    kept = wm_jax.train(frames, actions, folder=tmp_path / "mine", preset="smoke", vae=small)
    assert kept.memory is not None and kept.about["vae"]["steps"] == 10
    began = time.monotonic()
    again = wm_jax.train(frames, actions, folder=tmp_path / "mine", preset="smoke", vae=small)
    assert again.about == kept.about and time.monotonic() - began < 10
    np.testing.assert_array_equal(
        again.encode(kept.decode(np.zeros((1, 4)))), kept.encode(again.decode(np.zeros((1, 4))))
    )
    assert kept.predict(kept.encode(kept.decode(np.zeros((3, 4)))), np.array([0, 1, 0])).z.shape == (3, 4)
    with pytest.raises(UserError, match="own:arrays: there is no trained controller in this run, only vae, memory"):
        kept.begin()
    with pytest.raises(UserError, match=r"vae.steps 20: the V in .*mine was trained for 10, and M learned from it"):
        wm_jax.train(frames, actions, folder=tmp_path / "mine", preset="smoke", vae=small | {"steps": 20})
    with pytest.raises(UserError, match="mine holds other recordings than these; give another folder"):
        wm_jax.train(frames, [1 - each for each in actions], folder=tmp_path / "mine", preset="smoke", vae=small)


def test_arrays_of_jax_are_one_recording_and_single_pictures_are_none(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
    small = {"steps": 2, "width": 0.125, "latent": 4}
    wm_jax.train(jnp.asarray(frames), preset="smoke", vae=small, folder=tmp_path / "run")
    assert wm_jax.ReplayStore.open(tmp_path / "run" / "replays").count().frames == 41
    with pytest.raises(UserError, match=r"recording 0: a single picture \[64, 64, 3\]; stack them"):
        wm_jax.train(list(frames), preset="smoke", vae=small)


def test_settings_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    frames = np.zeros((40, 64, 64, 3), np.uint8)
    with pytest.raises(UserError, match="nowhere"):
        wm_jax.train(frames, np.zeros(40, int), folder=tmp_path / "run", memory={"cell": "nowhere:Cell"})
    assert not (tmp_path / "run").exists()


def test_v_alone_needs_no_actions_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).random((600, 16, 16, 3))
    seen = wm_jax.train(frames, preset="smoke", vae={"steps": 5, "variant": "rae", "latent": 6})
    assert seen.memory is None and seen.encode(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 6)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="there is no trained memory in this run, only vae"):
        seen.predict(np.zeros((1, 6), np.float32), np.zeros(1, np.int32))


def test_the_official_game_is_official_whatever_it_was_trained_on(
    driver: wm_jax.TrainedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = wm_jax.load(AGENTS / "carracing")
    object.__setattr__(short, "game", short.game.up_to(20))
    opened: list[Any] = []

    def open_pool(game: Any, *_: Any, **more: Any) -> Any:
        opened.append((game.episode_steps, more))
        raise UserError("not today")

    monkeypatch.setattr("wm_jax.library.agents.open_pool", open_pool)
    for is_official in (False, True):
        with pytest.raises(UserError, match="not today"):
            short.play([1], official=is_official)
    assert opened == [(20, {"official": False}), (1000, {"official": True})]


def test_a_film(driver: wm_jax.TrainedAgent, tmp_path: Path) -> None:
    short = wm_jax.load(AGENTS / "carracing")
    object.__setattr__(short, "game", short.game.up_to(20))
    assert short.film(tmp_path / "drive.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda it: wm_jax.load("enduro"), UserError, "enduro: no such run's folder, nor a game whose agent comes"),
        (lambda it: wm_jax.load(ROOT / "docs"), UserError, "no trained V lies there"),
        (lambda it: it.encode(np.zeros((64, 64, 3))), ValueError, "frames: float64 .64, 64, 3., expected uint8"),
        (lambda it: it.decode(np.zeros((2, 31))), ValueError, r"z: \(2, 31\), expected \[..., 32\]"),
        (lambda it: it.play([]), ValueError, "seeds: give one for each episode"),
        (lambda it: wm_jax.to_frames(np.zeros((9, 9, 3))), ValueError, "screens: float64, expected uint8; numbers in"),
        (
            lambda it: wm_jax.train([FRAMES], [np.zeros(9, int)] * 2),
            ValueError,
            "actions: 2 recordings, but 1 of frames",
        ),
        (lambda it: wm_jax.train(FRAMES, vae={"colour": 1}), UserError, "vae.colour"),
        (
            lambda it: wm_jax.train(FRAMES, vae=VQ),
            TypeError,
            "vae: 'vq', expected settings by name, such as {'steps'",
        ),
        (lambda it: wm_jax.train(NONE), TypeError, "frames: None, expected an array, or a list of recordings"),
        (lambda it: wm_jax.load(NONE), TypeError, "source: None, expected a path"),
        (lambda it: it.play([1.5]), ValueError, "seeds: 1.5, expected whole numbers from 0 to 2,147,483,647"),
        (lambda it: it.play([2**31]), ValueError, "seeds: 2147483648, expected whole numbers"),
        (lambda it: it.play(7), ValueError, "seeds: 7, expected one for each episode, in a list"),
        (lambda it: it.play([[1], [2]]), ValueError, r"seeds: \[1\], expected whole numbers"),
        (lambda it: it.film("drive.avi"), ValueError, "path: drive.avi, expected a file that ends in .mp4"),
        (lambda it: it.film(ROOT), ValueError, "expected a file that ends in .mp4"),
        (lambda it: it.film(7), TypeError, "path: 7, expected a path"),
        (lambda it: it.film("drive.mp4", seed=-1), ValueError, "seeds: -1, expected whole numbers"),
        (lambda it: wm_jax.play(lambda: None, it, [1]), TypeError, "make: it made NoneType, which has no reset"),
        (lambda it: wm_jax.train(FRAMES, np.zeros(3)), UserError, "recording 0: 3 actions for 9 frames"),
    ],
)
def test_what_does_not_fit_is_named(
    driver: wm_jax.TrainedAgent, call: Any, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        call(driver)


FRAMES = np.zeros((9, 64, 64, 3), np.uint8)
VQ: Any = "vq"
NONE: Any = None
