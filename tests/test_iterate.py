"""Rounds of the whole chain: who plays for which, what each begins with, how they go on; and weights to begin with."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_jax import cli, stages
from wm_jax.config.schema import Config
from wm_jax.data.replay import ReplayStore
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop

WORDS = ["--game", "jax:side_game:Sides", "--env.backend", "device", "--preset", "smoke"]
TINY = (
    "--collect.episodes 8 --vae.width 0.125 --vae.latent 4 --vae.steps 6 --vae.batch 8 --memory.hidden 4 "
    "--memory.sequence 8 --memory.batch 4 --memory.steps 6 --controller.population 4 --controller.episodes 2 "
    "--controller.generations 2 --controller.evaluate_episodes 4 --evaluate.episodes 4 --evaluate.looked_at 0"
).split()


def iterate(folder: Path, *more: str) -> list[str]:
    return ["iterate", *WORDS, "--run", str(folder), *TINY, *more]


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.strip().split("\n")[-1])


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three rounds."""
    folder = tmp_path_factory.mktemp("rounds") / "run"
    assert cli.main(iterate(folder, "--rounds", "3", "--growth", "0.5")) == 0
    return folder


def weights(run: Run, stage: str) -> str:
    return (run.stage(stage).summary() or {})["weights"]


def round_of(folder: Path, number: int) -> Run:
    return Run.open(folder) if number == 1 else Run.open(folder / "named" / f"round-{number}")


def test_the_agent_of_each_round_plays_for_the_next(rounds: Path) -> None:
    store = ReplayStore.open(rounds / "replays")
    players: dict[str, int] = {}
    for shard in store.shards:
        who = shard.player.get("weights", shard.player["policy"])
        players[who] = players.get(who, 0) + len({record.number for record in shard.records})
    of_rounds = [weights(round_of(rounds, number), "controller") for number in (1, 2)]
    assert players == {"held": 8, of_rounds[0]: 4, of_rounds[1]: 4}


def test_each_round_begins_where_the_one_before_ended(rounds: Path) -> None:
    for number in (2, 3):
        own, before = round_of(rounds, number), round_of(rounds, number - 1)
        for stage in ("vae", "memory", "controller"):
            assert (own.stage(stage).manifest() or {})["parents"]["start_from"] == weights(before, stage)
            assert weights(own, stage) != weights(before, stage)


def test_later_rounds_see_the_replays_of_all(rounds: Path) -> None:
    seen = [(round_of(rounds, n).stage("vae").manifest() or {})["settings"]["episodes"] for n in (1, 2, 3)]
    assert seen == [8, 12, 16]


def test_the_table_has_a_row_for_each_and_nothing_is_done_twice(
    rounds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {path: path.stat().st_mtime_ns for path in rounds.rglob("[!e]*/summary.json")}
    for number in ("3", "1"):
        assert cli.main(iterate(rounds, "--rounds", number, "--growth", "0.5", "--json")) == 0
    assert made == {path: path.stat().st_mtime_ns for path in rounds.rglob("[!e]*/summary.json")}
    found = said(capsys)["rounds"]
    assert list(found) == ["1", "2", "3"] and None not in found["3"].values()
    frames = [row["frames"] for row in found.values()]
    assert frames[1] - frames[0] == frames[2] - frames[1] == frames[0] / 2 > 0
    lines = (rounds / "rounds.md").read_text().splitlines()
    assert len(lines) == 5 and lines[4].startswith("| 3 |") and len({line.count("|") for line in lines}) == 1


def test_v_can_stay_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = iterate(run, "--growth", "0.5", "--keep_vae", "--collect.noise", "0.1")
    for number in ("2", "3"):
        assert cli.main([*words, "--rounds", number]) == 0
    assert {path.name for path in (run / "named" / "round-3").iterdir() if path.is_dir()} == {
        "memory",
        "controller",
        "evaluation",
    }
    memories = [round_of(run, n).stage("memory").manifest() or {} for n in (1, 2, 3)]
    assert [each["settings"]["episodes"] for each in memories] == [8, 12, 16]
    assert len({each["parents"]["vae"] for each in memories}) == 1
    for number in (2, 3):
        own, before = round_of(run, number), round_of(run, number - 1)
        for stage in ("memory", "controller"):
            assert (own.stage(stage).manifest() or {})["parents"]["start_from"] == weights(before, stage)
        assert weights(own, "memory") != weights(before, "memory")
    assert "train_vae" not in capsys.readouterr().err.split("== round 3")[1]
    table = json.loads((run / "rounds.json").read_text())
    rows = table.get("rows", table)
    assert [rows[number]["vae.test_reconstruction"] is None for number in "123"] == [False, True, True]
    assert cli.main([word for word in [*words, "--rounds", "3"] if word != "--keep_vae"]) == 1
    assert "was begun with the V of the first round; add --keep_vae" in capsys.readouterr().err
    assert cli.main([*words, "--rounds", "2", "--controller.inputs", "z"]) == 2
    assert "--keep_vae: without M there is nothing else to learn" in capsys.readouterr().err


def test_rounds_with_a_v_of_their_own_have_one_for_good(
    rounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(rounds, run)
    made = {path: path.stat().st_mtime_ns for path in run.rglob("*.json")}
    for number in ("2", "4"):
        assert cli.main(iterate(run, "--rounds", number, "--growth", "0.5", "--keep_vae")) == 1
        assert "round-2 has a V of its own; leave it out" in capsys.readouterr().err
    assert made == {path: path.stat().st_mtime_ns for path in run.rglob("*.json")}


def test_a_run_that_is_there_is_the_first_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert cli.main(["pipeline", *WORDS, "--run", str(run), *TINY, "--evaluate.on", "official"]) == 0
    first = weights(Run.open(run), "controller")
    assert cli.main(iterate(run, "--rounds", "1")) == 0
    assert weights(Run.open(run), "controller") == first and (run / "rounds.md").is_file()


def test_rounds_that_are_done_hold_with_their_own_settings(rounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, setting in ((["--memory.hidden", "5"], "memory.hidden 4"), (["--seed", "1"], "seed 0")):
        assert cli.main(iterate(rounds, *words)) == 1
        assert f"{setting}, but now it is" in capsys.readouterr().err
    assert cli.main(iterate(rounds, "--in", "dream")) == 1
    assert "was made with" in capsys.readouterr().err


def test_whoever_asks_for_frames_gets_frames(rounds: Path, tmp_path: Path) -> None:
    """However many episodes that takes."""
    run = tmp_path / "run"
    words = [*TINY, "--collect.frames", "300", "--collect.slots", "4"]
    assert cli.main(["iterate", *WORDS, "--run", str(run), *words, "--rounds", "2", "--growth", "0.5"]) == 0
    first, second = (
        ReplayStore.open(
            run / "replays", episodes=(round_of(run, n).stage("vae").manifest() or {})["settings"]["episodes"]
        )
        for n in (1, 2)
    )
    assert first.count().frames >= 300
    added = second.count().frames - first.count().frames
    assert first.count().frames / 2 <= added < first.count().frames / 2 + 4 * 25


@pytest.mark.parametrize("growth", ["0.25", "2"])
def test_an_agent_plays_whatever_there_is_already(rounds: Path, tmp_path: Path, growth: str) -> None:
    """A store with more than the settings ask for, or another growth than before."""
    run = tmp_path / "run"
    shutil.copytree(rounds, run)
    assert cli.main(iterate(run, "--rounds", "4", "--growth", growth)) == 0
    seen = [(round_of(run, n).stage("vae").manifest() or {})["settings"]["episodes"] for n in (3, 4)]
    assert seen[1] - seen[0] == 8 * float(growth)


def test_a_round_that_was_moved_goes_on(rounds: Path, tmp_path: Path) -> None:
    """Without the folder that it began with."""
    run = tmp_path / "moved"
    shutil.copytree(rounds, run)
    words = ["train_controller", *WORDS, "--run", str(run), "--name", "round-2", *TINY[2:], "--vae.frames", "replays"]
    assert cli.main([*words, "--controller.generations", "4"]) == 0


def test_stopped_anywhere_it_ends_as_if_it_had_not_been(
    rounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped before every stage of all rounds; each time, the same command goes on."""
    done: set[tuple[Path, str]] = set()
    make = stages.make

    def stopped(artifact: str, config: Config, run: Run, stop: Stop, heading: str | None = None) -> dict[str, Any]:
        if (run.path, artifact) not in done:
            done.add((run.path, artifact))
            raise Interrupted
        return make(artifact, config, run, stop, heading)

    monkeypatch.setattr(stages, "make", stopped)
    words = iterate(tmp_path / "run", "--rounds", "2", "--growth", "0.5")
    statuses = []
    while not statuses or statuses[-1] == 130:
        statuses.append(cli.main(words))
    assert statuses == [130] * 11 + [0]
    for number in (1, 2):
        for stage in ("vae", "memory", "controller"):
            there = (round_of(tmp_path / "run", number), round_of(rounds, number))
            assert weights(there[0], stage) == weights(there[1], stage)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rounds", "0"], "--rounds 0: give 1 or more"),
        (["--growth", "0"], "--growth 0: give a number above 0, such as 1"),
        (["--growth", "nan"], "--growth nan: give a number above 0, such as 1"),
        (["--fresh"], "--fresh: rounds are built on each other; give another --run to start anew"),
        (["--collect.policy", "agent"], "--collect.policy agent: the first round has none yet"),
        (["--name", "mine"], "--name: the agents play into the run's own replays; leave it out, or give another --run"),
        (["--controller.world", "random"], "--controller.world random: what does not learn has no rounds"),
    ],
)
def test_rounds_that_make_no_sense(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(iterate(tmp_path / "none", *words)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# Weights to begin with


def test_no_steps_leave_the_weights_as_they_came(rounds: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing V is the one that it began with."""
    words = [
        "train_vae",
        *WORDS,
        "--run",
        str(tmp_path),
        "--base",
        str(rounds),
        *TINY[2:],
        "--vae.learning_rate",
        "1e-30",
    ]
    assert cli.main([*words, "--vae.start_from", str(rounds)]) == 0
    assert weights(Run.open(tmp_path), "vae") == weights(Run.open(rounds), "vae")


def test_where_it_began_is_kept_while_nothing_is_saved(rounds: Path, tmp_path: Path) -> None:
    """Stopped before its first checkpoint, and again when the folder was not named again."""
    words = ["train_vae", *WORDS, "--run", str(tmp_path), "--base", str(rounds), *TINY[2:]]
    digest = weights(Run.open(rounds), "vae")
    stage = Run.open(tmp_path, rounds, makes={"vae"}).stage("vae")
    for more in (["--vae.start_from", str(rounds)], [], []):
        assert cli.main([*words, *more, "--vae.learning_rate", "1e-30"]) == 0
        assert weights(Run.open(tmp_path), "vae") == digest
        for path in stage.path.iterdir():
            if path.name != "stage.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_search_begins_at_the_best_and_keeps_it_if_nothing_is_better(rounds: Path, tmp_path: Path) -> None:
    words = ["train_controller", *WORDS, "--run", str(tmp_path), "--base", str(rounds), *TINY[2:]]
    assert cli.main([*words, "--controller.start_from", str(rounds), "--controller.sigma", "1e-12"]) == 0
    there = (Run.open(path).stage("controller") for path in (tmp_path, rounds))
    sizes = dict.fromkeys(
        ("best", "latest"), np.zeros((Run.open(rounds).stage("controller").summary() or {})["parameters"], np.float32)
    )
    found, began = (stage.weights.restore(sizes) for stage in there)
    assert found is not None and began is not None and np.abs(began[1]["best"]).max() > 0.01
    np.testing.assert_allclose(found[1]["best"], began[1]["best"], atol=1e-9)


@pytest.mark.parametrize(
    ("start", "more", "sentence"),
    [
        ("nowhere", [], "--vae.start_from nowhere: there is no such folder; give a run's"),
        ("empty", [], "no vae is finished there; run bin/train_vae on it first"),
        ("run", [], "--vae.start_from run: no vae is finished there"),
        ("rounds", ["--vae.width", "0.25"], "its vae is of other sizes; give the settings that it was made with"),
    ],
)
def test_weights_that_cannot_be_had(
    start: str,
    more: list[str],
    sentence: str,
    rounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "rounds").symlink_to(rounds)
    monkeypatch.chdir(tmp_path)
    words = ["train_vae", *WORDS, "--run", str(tmp_path / "run"), "--base", str(rounds), *TINY[2:], *more]
    assert cli.main([*words, "--vae.start_from", start]) == 1
    assert sentence in capsys.readouterr().err


def test_other_weights_to_begin_with_make_another_v(rounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train_vae",
        *WORDS,
        "--run",
        str(rounds),
        *TINY[2:],
        "--vae.start_from",
        str(rounds / "named" / "round-2"),
    ]
    assert cli.main(words) == 1
    assert "was made with start_from None, but now it is" in capsys.readouterr().err
    assert cli.main([*words[:-1], str(rounds)]) == 1
    assert "this is the run itself; give another one, or leave it out" in capsys.readouterr().err
