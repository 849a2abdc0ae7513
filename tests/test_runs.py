"""bin/runs: what is found, and what is said of it."""

import json
import shutil
from pathlib import Path

import pytest

from wm_jax import cli
from wm_jax.run.pretrained import AGENTS
from wm_jax.utils.files import write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with an agent, deep inside; one that is named there and has begun; and a folder that is no run."""
    run = tmp_path / "deep" / "down" / "drive"
    shutil.copytree(AGENTS / "carracing", run)
    (run / "evaluation").mkdir()
    scores = {"official_mean": 1864.0, "official_ci_low": 1853.2, "official_ci_high": None, "official_episodes": 2}
    write_manifest(run / "evaluation" / "summary.json", scores | {"official_ci_high": 1874.9})
    named = run / "named" / "other"
    (named / "vae" / "checkpoints" / "1500").mkdir(parents=True)
    shutil.copyfile(run / "vae" / "stage.json", named / "vae" / "stage.json")
    write_manifest(named / "base.json", {"base": "../.."})
    (tmp_path / "films").mkdir()
    return tmp_path


def test_runs_are_found_wherever_they_lie(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(folder)]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "game", "size", "score", "stages"]
    assert first.split()[:2] == ["deep/down/drive", "carracing"]
    assert "1,864 (1,853 to 1,875)" in first and first.endswith("vae, memory, controller, evaluation")
    assert second.split()[0] == "deep/down/drive/named/other" and second.endswith("vae (at 1,500)")


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(folder), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (
        first["stages"]["controller"] == "done"
        and first["official_mean"] == 1864
        and second["stages"] == {"vae": "at 1,500"}
    )
    size = sum(path.stat().st_size for path in (folder / "deep").rglob("*") if path.is_file())
    assert first["bytes"] + second["bytes"] == size > second["bytes"] > 0


def test_what_goes_while_it_is_listed_hides_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A link to nothing is what a temporary file is that went after its folder was read.
    (folder / "deep" / "down" / "drive" / "vae" / "new.tmp").symlink_to("gone")
    assert cli.main(["runs", str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_damaged_one_hides_no_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deep" / "down" / "drive" / "vae" / "summary.json").write_text("{")
    assert cli.main(["runs", str(folder)]) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert "vae/summary.json is damaged" in first and second.endswith("vae (at 1,500)")


def test_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(tmp_path)]) == 0 and f"no runs in {tmp_path}" in capsys.readouterr().out
    assert cli.main(["runs", str(tmp_path / "gone")]) == 1
    assert "there is no such folder; name one that holds runs" in capsys.readouterr().err
