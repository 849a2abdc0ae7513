"""Where a package that some games need is lacking, one sentence says what to install, before anything is played."""

from pathlib import Path

import pytest

import wm_jax
from wm_jax import cli
from wm_jax.utils import extras
from wm_jax.utils.errors import UserError

GAMES = ("gymnasium", "ale_py", "Box2D", "pygame", "envpool", "vizdoom", "gymnax")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No game is installed."""
    there = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in GAMES else there(name))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "collect --game enduro",
            "nduro needs gymnasium, ale_py, which are not installed here: python -m pip install",
        ),
        (
            "collect --game chaser",
            "Chaser by EnvPool needs envpool, which is not installed here: python -m pip install",
        ),
        ("collect --game doom", "DoomTakeCover needs gymnasium, vizdoom, which are not installed here"),
        ("collect --game gymnasium:CartPole-v1", "'wm_jax[gymnasium]'"),
        ("evaluate --game carracing", "the official CarRacing-v3 needs gymnasium, Box2D, pygame, which are not"),
        ("pipeline --game carracing", "'wm_jax[carracing]'"),
        ("iterate --game carracing", "'wm_jax[carracing]'"),
    ],
)
def test_the_extra_is_named(words: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words.split(), "--preset", "smoke", "--run", str(tmp_path / "run")]) == 1
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("run/*/manifest.json")), "nothing was played"


@pytest.mark.usefixtures("bare")
def test_carracing_on_the_device_needs_none_of_them() -> None:
    agent = wm_jax.load("carracing")
    assert agent.play([2]).returns[0] > 600
    with pytest.raises(UserError, match="the official CarRacing-v3 needs"):
        agent.play([2], official=True)
    with pytest.raises(UserError, match=r"needs gymnax, which is not installed here: .*'wm_jax\[carracing\]'"):
        _ = wm_jax.envs.car_racing.CarRacing  # pyright: ignore[reportAttributeAccessIssue]
