"""Every auto-encoder goes the whole way to a score: V, its code, M on it, C on both, and official episodes."""

import json
from pathlib import Path

import pytest

from wm_jax.cli import main
from wm_jax.config import vaes as settings

GAMES = ("chaser", "carracing")
"""One whose frames are stored, and one that draws them on the device."""
SHORT = ("--evaluate.episodes", "1", "--evaluate.video", "false", "--controller.generations", "1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each game a run with replays, which all share."""
    folder = tmp_path_factory.mktemp("chain")
    for game in GAMES:
        assert main(["collect", "--game", game, "--preset", "smoke", "--run", str(folder / game)]) == 0
    return folder


@pytest.mark.parametrize("variant", tuple(settings.VARIANTS))
@pytest.mark.parametrize("game", GAMES)
def test_it_reaches_a_score(runs: Path, game: str, variant: str, capsys: pytest.CaptureFixture[str]):
    run = runs / game
    words = ["evaluate", "--game", game, "--preset", "smoke", "--run", str(run), "--name", variant]
    status = main([*words, "--vae.variant", variant, *SHORT, "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert json.loads(said.out.splitlines()[-1])["official_episodes"] == 1
    made = json.loads((run / "named" / variant / "vae" / "stage.json").read_text())
    assert made["settings"]["vae.variant"] == variant
