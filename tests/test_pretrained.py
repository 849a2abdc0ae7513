"""The agent that comes with the package: it is put into a run's folder, kept whole there, and scored."""

import json
import re
import shutil
from pathlib import Path

import pytest

from wm_jax import cli
from wm_jax.run import pretrained
from wm_jax.run.folder import Run
from wm_jax.run.stage_graph import MODELS
from wm_jax.utils.errors import UsageError, UserError

GAMES = pretrained.games()
WORDS = ["evaluate", "--game", "carracing", "--pretrained", "--preset", "smoke", "--json"]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(stage: Path) -> Path:
    return max((path for path in stage.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("game", GAMES)
def test_what_is_shipped_is_whole_small_and_names_no_machine(game: str) -> None:
    run = Run(pretrained.AGENTS / game)
    digests = {}
    for name in MODELS:
        stage = run.stage(name)
        summary, manifest, about = stage.summary(), stage.manifest(), stage.weights.about()
        assert summary is not None and manifest is not None and about is not None
        assert summary["weights"] == about["digest"] and manifest["config"]["game"] == game
        assert {"jax", "wm_jax", "gymnasium"} <= set(manifest["made_with"]), "provenance"
        digests[name] = about["digest"]
        if name == "controller":
            assert about["parents"] == {part: digests[part] for part in ("vae", "memory")}
    files = contents(run.path).values()
    assert 1e6 < sum(map(len, files)) < 10e6
    assert not any(re.search(rb"/(home|root|tmp|Users|mnt|work)/", content) for content in files)


def test_it_plays_and_a_second_time_nothing_is_put_there_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "--run", str(tmp_path)]
    assert cli.main(words) == 0
    out, said = capsys.readouterr()
    assert "put the agent that comes with the package into" in said
    first = json.loads(out.strip().split("\n")[-1])
    assert first["official_episodes"] == 2
    assert cli.main(words) == 0
    out, said = capsys.readouterr()
    assert "put the agent" not in said
    assert json.loads(out.strip().split("\n")[-1])["official_mean"] == first["official_mean"]


@pytest.mark.parametrize("part", MODELS)
def test_a_damaged_copy_is_mended(part: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    pretrained.install("carracing", run)
    victim = largest(run.path / part / "weights")
    whole = victim.read_bytes()
    damage(victim)
    pretrained.install("carracing", run)
    assert victim.read_bytes() == whole


@pytest.mark.parametrize("left", [(), ("stage.json",), ("stage.json", "weights")])
def test_an_installation_that_stopped_is_done_again(left: tuple[str, ...], tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    pretrained.install("carracing", run)
    whole = contents(run.path)
    memory = run.path / "memory"
    for name in {"stage.json", "weights", "summary.json"} - {*left}:
        shutil.rmtree(memory / name) if (memory / name).is_dir() else (memory / name).unlink()
    if not left:
        record = (run.path / "vae" / "stage.json").read_bytes()
        (run.path / "vae" / "stage.json").write_bytes(record[:20])
        (run.path / "vae" / "summary.json").unlink()
    pretrained.install("carracing", run)
    assert contents(run.path) == whole


def test_another_agent_is_never_replaced(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    pretrained.install("carracing", run)
    run.stage("memory").write_summary({"weights": "others"})
    before = contents(run.path)
    with pytest.raises(UserError, match="memory is another agent's"):
        pretrained.install("carracing", run)
    begun = Run(tmp_path / "begun")
    begun.stage("vae").path.mkdir(parents=True)
    begun.stage("vae").write_record("stage.json", {"settings": {}})
    with pytest.raises(UserError, match="vae is another agent's"):
        pretrained.install("carracing", begun)
    assert contents(run.path) == before


def test_a_game_without_an_agent_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["evaluate", "--game", "enduro", "--pretrained", "--run", str(tmp_path / "run")])
    assert status == UsageError.exit_code
    assert "--pretrained: no agent for enduro comes with the package, only for carracing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pack_takes_what_a_finished_run_holds_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    pretrained.install("carracing", run)
    (run.path / "vae" / "checkpoints").mkdir()
    shipped = pretrained.AGENTS
    monkeypatch.setattr(pretrained, "AGENTS", tmp_path / "agents")
    assert pretrained.games() == ()
    assert pretrained.main([str(run.path)]) == 0
    assert pretrained.games() == ("carracing",)
    card = Path(
        "carracing", "MODEL_CARD.md"
    )  # the shipped one also names a score, of games that this run has not played
    packed, ours = contents(pretrained.AGENTS), contents(shipped)
    assert packed.pop(card).split(b"\n\n")[:3] == ours.pop(card).split(b"\n\n")[:3]
    assert packed == ours
    shutil.rmtree(run.path / "controller")
    assert pretrained.main([str(run.path)]) == 1
    assert "has no controller" in capsys.readouterr().err
    assert pretrained.games() == ("carracing",)
