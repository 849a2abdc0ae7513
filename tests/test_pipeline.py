"""The whole chain on real games, at its smallest; and that each stage reuses what is there."""

import contextlib
import importlib
import itertools
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from test_training import StopAt

from wm_jax import cli
from wm_jax.cli.options import parse
from wm_jax.config.layers import load
from wm_jax.config.schema import Config
from wm_jax.data.episodes import split_of
from wm_jax.data.replay import Lost, ReplayStore
from wm_jax.envs.games import find
from wm_jax.render.video import extract_frames
from wm_jax.rollout.players import Player
from wm_jax.run import ancestors, interrupt
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.stages import collect, evaluate, train_controller, train_vae
from wm_jax.stages.collect import episode_seeds
from wm_jax.tools.pipeline import report
from wm_jax.training import loop
from wm_jax.training.evolution import Evolution, EvolutionState
from wm_jax.utils.errors import UserError

CHASED = ["--game", "chaser", "--preset", "smoke"]
STAGES = ("replays", "vae", "latents", "memory", "controller", "evaluation")


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The summary and what was said."""
    assert cli.main([*words, "--json"]) == 0
    out, said = capsys.readouterr()
    return json.loads(out.strip().split("\n")[-1]), said


@pytest.mark.parametrize("game", ["carracing", "enduro", "chaser"])
def test_pipeline(game: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pipeline", "--game", game, "--preset", "smoke", "--run", str(tmp_path)]
    summary, said = run(words, capsys)
    assert "official_mean" in summary and "official_random_mean" in summary and "training_mean" in summary
    for stage in STAGES:
        assert (tmp_path / stage / "summary.json").exists(), stage
    report = (tmp_path / "report.html").read_text()
    assert "data:video/mp4" in report and report.count("data:image/png") >= 5
    evaluation = json.loads((tmp_path / "evaluation" / "official.json").read_text())
    assert evaluation["mean"] == pytest.approx(np.mean(evaluation["scores"]), abs=1e-3)
    assert evaluation["transfer"] == (game == "carracing")
    # One video frame for every step, the last one included.
    steps = evaluation["lengths"][0]
    assert extract_frames(tmp_path / "evaluation" / "official.mp4", [0, steps - 1]).std() > 10
    with pytest.raises(IndexError):
        extract_frames(tmp_path / "evaluation" / "official.mp4", [steps])

    if game == "chaser":
        again, said = run(words, capsys)
        assert "trained already" in said and "evolved already" in said and "encoded already" in said
        # The same weights play the same published episodes to the same scores.
        assert again["official_mean"] == summary["official_mean"]


def test_a_longer_training_goes_on_from_the_shorter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_vae", "--game", "chaser", "--preset", "smoke"]
    straight, _ = run([*words, "--run", str(tmp_path / "a"), "--vae.steps", "30"], capsys)
    first, _ = run([*words, "--run", str(tmp_path / "b"), "--vae.steps", "20"], capsys)
    extended, said = run([*words, "--run", str(tmp_path / "b"), "--vae.steps", "30"], capsys)
    assert "going on from step 20" in said
    assert first["weights"] != extended["weights"] == straight["weights"]


def test_replays_grow_under_a_trained_vae(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--game", "chaser", "--preset", "smoke", "--run", str(tmp_path)]
    before, _ = run(["train_vae", *words], capsys)
    run(["collect", *words, "--collect.episodes", "10"], capsys)
    after, said = run(["train_vae", *words], capsys)
    assert after == before
    assert "trained already (20 steps) on the first 6 of 10 episodes; run bin/train_vae --fresh to train on all" in said
    assert ReplayStore.open(tmp_path / "replays").count().episodes == 10
    again, said = run(["collect", *words, "--collect.episodes", "10"], capsys)
    assert again["episodes"] == 10 and again["episodes_added"] == 0


def test_damaged_replays_are_refused_named_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--game", "chaser", "--preset", "smoke", "--run", str(tmp_path), "--collect.slots", "2"]
    run(["collect", *words], capsys)
    clean = ReplayStore.open(tmp_path / "replays")
    seeds = sorted(record.seed for record in clean.records)
    victim = max((tmp_path / "replays" / "shards" / "000001").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.write_bytes(content)
    assert cli.main(["collect", "verify", *words]) == 1
    assert "damaged: 000001/" in capsys.readouterr().err
    assert cli.main(["train_vae", *words]) == 1
    said = capsys.readouterr().err
    assert "error: " in said and "000001" in said and "bin/collect verify" in said
    repaired, _ = run(["collect", "repair", *words], capsys)
    assert repaired["shards"] == ["000001"]
    run(["train_vae", *words], capsys)
    assert sorted(record.seed for record in ReplayStore.open(tmp_path / "replays").records) == seeds


def test_a_changed_vae_invalidates_what_was_made_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--game", "chaser", "--preset", "smoke", "--run", str(tmp_path)]
    run(["train_memory", *words], capsys)
    run(["train_vae", *words, "--fresh", "--vae.beta", "2"], capsys)
    assert cli.main(["train_memory", *words]) == 1
    said = capsys.readouterr().err
    assert "latents was made with vae" in said and "bin/encode --fresh" in said
    run(["encode", *words, "--fresh"], capsys)
    assert cli.main(["train_controller", *words]) == 1
    assert "memory was made with vae" in capsys.readouterr().err


@pytest.fixture(scope="module")
def chased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Chaser; tests work on copies of it."""
    path = tmp_path_factory.mktemp("chased") / "run"
    assert cli.main(["pipeline", *CHASED, "--run", str(path)]) == 0
    return path


@pytest.mark.parametrize("stage", ["vae", "memory", "controller"])
@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_lost_weights_are_written_again_from_the_checkpoints(
    stage: str, how: str, chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    words = [*CHASED, "--run", str(path)]
    if how == "lost":
        shutil.rmtree(path / stage / "weights")
    else:
        victim = path / stage / "weights" / "weights.safetensors"
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    assert cli.main(["evaluate", *words]) == 1
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("error: ") and f"run bin/train_{stage}, which writes it again" in said
    before = json.loads((path / stage / "summary.json").read_text())["weights"]
    curves = (path / stage / "metrics.jsonl").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_record", None)  # nothing is trained again
        patch.setattr(train_controller.FitnessEvaluator, "play_generation", None)
        summary, said = run([f"train_{stage}", *words], capsys)
    assert "its weights are lost or damaged; writing them again" in said
    assert summary["weights"] == before and (path / stage / "metrics.jsonl").read_bytes() == curves
    evaluated, _ = run(["evaluate", *words], capsys)
    scores = json.loads((chased / "evaluation" / "official.json").read_text())
    assert evaluated["official_mean"] == scores["mean"]


@pytest.mark.parametrize("stage", ["vae", "controller"])
@pytest.mark.parametrize("weights", ["whole", "lost"])
def test_lost_checkpoints_are_named_and_nothing_is_erased(
    stage: str, weights: str, chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    shutil.rmtree(path / stage / "checkpoints")
    more = ["--vae.steps", "30"] if stage == "vae" else ["--controller.generations", "3"]
    words = [f"train_{stage}", *CHASED, "--run", str(path)]
    if weights == "lost":
        shutil.rmtree(path / stage / "weights")
        more = []
    else:
        run(words, capsys)  # finished, and asked for no more, it needs none
    before = {file: file.read_bytes() for file in (path / stage).rglob("*") if file.is_file()}
    assert cli.main([*words, *more]) == 1
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert "behind it, but its checkpoints are lost" in said and f"bin/train_{stage} --fresh" in said
    assert ("weights are lost or damaged" in said) == (weights == "lost")
    assert {file: file.read_bytes() for file in (path / stage).rglob("*") if file.is_file()} == before


def test_fresh_moves_nothing_when_the_command_is_refused(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    words = [*CHASED, "--run", str(path), "--fresh"]
    assert cli.main(["train_controller", *words, "--controller.strategy", "Sep"]) == 2
    assert cli.main(["train_controller", *words, "--controller.strategy", "PGPE", "--controller.population", "3"]) == 1
    assert "even number" in capsys.readouterr().err
    victim = next((path / "replays" / "shards").rglob("0.0.0.0"))
    victim.write_bytes(victim.read_bytes()[:-9])
    for command in ("train_vae", "encode", "train_memory"):
        assert cli.main([command, *words]) == 1
        assert "is damaged" in capsys.readouterr().err
    assert not (path / "discarded").exists()
    assert all((path / stage / "summary.json").exists() for stage in STAGES)


def test_a_finished_stage_of_another_game_is_not_taken_for_this_one(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["train_vae"], ["encode"], ["train_memory"], ["collect", "verify"], ["collect", "repair"]):
        words = ["--game", "maze", *CHASED[2:], "--run", str(chased)]
        assert cli.main([*command, *words]) == 1
        assert "made with game chaser, but now it is maze" in capsys.readouterr().err
    assert cli.main(["train_vae", *CHASED, "--run", str(chased), "--env.levels", "7"]) == 1
    assert "replays was made with --env.levels 200, but now it is 7" in capsys.readouterr().err


def test_nothing_is_played_twice(chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    words = ["evaluate", *CHASED, "--run", str(path)]
    before = Run(path).stage("evaluation").summary()
    assert before is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "open_pool", None)
        # The pipeline asked for both games and a film: asking for less loses nothing of it.
        for less in ([], ["--evaluate.video"], ["--evaluate.on", "training"]):
            again, said = run([*words, *less], capsys)
            assert "game already" in said and {**again, "seconds": None} == {**before, "seconds": None}
    assert not (path / "discarded").exists()

    (path / "evaluation" / "official.mp4").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "play", None)  # the film alone is made again
        run([*words, "--evaluate.video"], capsys)
    assert (path / "evaluation" / "official.mp4").exists()

    # Of more episodes, those that are new are played.
    seeds: list[int] = []
    play = evaluate.play

    def counted(pool: Any, playing: list[int], *more: Any, **named: Any) -> Any:
        seeds.extend(playing)
        return play(pool, playing, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "play", counted)
        more, _ = run([*words, "--evaluate.episodes", "4"], capsys)
    assert seeds == 2 * [evaluate.FIRST_SEED + 2, evaluate.FIRST_SEED + 3]
    straight, _ = run([*words, "--evaluate.episodes", "4", "--fresh"], capsys)
    assert more["official_mean"] == straight["official_mean"] and more["official_episodes"] == 4
    assert more["training_mean"] == before["training_mean"] and "training_mean" not in straight


def test_the_report_shows_this_runs_chain_and_no_more(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    assert all(title in (path / "report.html").read_text() for title in report.TITLES.values())
    words = [*CHASED, "--run", str(path), "--controller.inputs", "z"]
    run(["train_controller", *words, "--fresh"], capsys)
    run(["evaluate", *words], capsys)  # of the agent before, there is a score on the game of training, and a film
    _, config = parse("pipeline", words)
    summary = report.run(config, Run(path), Stop())
    shown = (path / "report.html").read_text()
    assert report.TITLES["memory"] not in shown and report.TITLES["latents"] not in shown
    assert report.TITLES["vae"] in shown and "official episodes" in shown
    assert "official_mean" in summary and "training_mean" not in summary and "data:video/mp4" not in shown


def test_damaged_scores_are_played_again(chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    before = json.loads((path / "evaluation" / "official.json").read_text())
    for name in ("official.json", "official-agent.json"):
        result = path / "evaluation" / name
        result.write_text(
            result.read_text().replace('"date": "2', '"date": "9').replace('"lengths": [', '"lengths": [9')
        )
    again, said = run(["evaluate", *CHASED, "--run", str(path)], capsys)
    assert "official-agent.json is damaged" in said and "official.json is damaged" in said
    assert again["official_mean"] == before["mean"] and again["official_mean_length"] == before["mean_length"]


def test_an_evaluation_that_was_stopped_goes_on(chased: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path, ignore=shutil.ignore_patterns("evaluation"))
    _, config = parse("evaluate", [*CHASED, "--evaluate.episodes", "5", "--evaluate.workers", "1"])
    stop, finished = Stop(), []
    play = evaluate.play

    def stopped(pool: Any, seeds: list[int], *more: Any, **named: Any) -> Any:
        finished.append(seeds)
        stop.requested = len(finished) == 2
        return play(pool, seeds, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "play", stopped)
        patch.setattr(evaluate, "SLOTS_PER_CORE", 2)
        patch.setattr(evaluate, "SAVED_TOGETHER", 2)
        with pytest.raises(Interrupted):
            evaluate.run(config, Run(path), stop)
        assert finished == [[evaluate.FIRST_SEED + i for i in range(4)], [evaluate.FIRST_SEED + 4]]
        finished[:] = [[], []]
        stop.requested = False
        resumed = evaluate.run(config, Run(path), stop)
    assert finished[2] == [evaluate.FIRST_SEED + 4], "what was finished is kept"
    shutil.rmtree(path / "evaluation")
    straight = evaluate.run(config, Run(path), stop)
    assert {**resumed, "seconds": None} == {**straight, "seconds": None}


def test_episodes_of_the_official_game_are_as_long_as_it_lets_them(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path, ignore=shutil.ignore_patterns("evaluation"))
    words = ["evaluate", *CHASED, "--run", str(path), "--evaluate.on", "both", "--evaluate.episodes", "1"]
    # Smoke's own episodes end after 60 steps.
    whole, _ = run([*words, "--evaluate.episode_steps", "none"], capsys)
    found = {on: json.loads((path / "evaluation" / f"{on}.json").read_text()) for on in ("official", "training")}
    assert [found[on]["episode_steps"] for on in found] == [1000, 60]
    assert not whole["official_cut_short"] and not whole["training_cut_short"]
    assert whole["official_ci_low"] is whole["official_std"] is None and whole["official_ci_approximate"]
    short, _ = run([*words, "--evaluate.episode_steps", "10"], capsys)
    assert short["official_cut_short"] and short["training_cut_short"] and short["official_mean_length"] == 10


def test_the_controllers_episodes_are_never_longer_than_the_games() -> None:
    for steps, longest in (("500", 60), ("20", 20), ("none", 60)):
        _, config = parse("train_controller", [*CHASED, "--controller.episode_steps", steps])
        assert train_controller.training_game(config).episode_steps == longest


def test_a_film_can_be_stopped_and_the_score_stays(chased: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path, ignore=shutil.ignore_patterns("evaluation"))
    _, config = parse("evaluate", [*CHASED, "--evaluate.video"])
    stop = Stop()
    film = evaluate.record_game

    def stopped(*arguments: Any) -> None:
        stop.requested = True
        film(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "record_game", stopped)
        with pytest.raises(Interrupted):
            evaluate.run(config, Run(path), stop)
    assert {file.name for file in (path / "evaluation").iterdir() if "mp4" in file.name} == set()
    assert (path / "evaluation" / "official.json").exists()


def test_the_official_game_is_played_once_where_training_was_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--game", "enduro", "--preset", "smoke", "--run", str(tmp_path)]
    words += ["--env.episode_steps", "none", "--controller.episode_steps", "20", "--controller.world", "random"]
    words += ["--evaluate.on", "both", "--evaluate.episode_steps", "20"]
    run(["train_controller", *words], capsys)
    summary, said = run(["evaluate", *words], capsys)
    assert "was trained on the official game itself: it is played once" in said
    assert "official_mean" in summary and "training_mean" not in summary
    assert summary["official_cut_short"] and not summary["official_transfer"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["train_memory", "--vae.latent", "64"],
            "{run}/vae was made with --vae.latent 32, but now it is 64: leave it out",
        ),
        (
            ["train_memory", "--vae.steps", "50"],
            "{run}/vae was made with --vae.steps 20, but now it is 50: leave it out",
        ),
        (
            ["train_vae", "--collect.episodes", "256"],
            "{run}/replays was made with --collect.episodes 6, but now it is 256: leave it out",
        ),
        (
            ["train_vae", "--collect.policy", "uniform"],
            "{run}/replays was made with --collect.policy held, but now it is uniform: leave it out",
        ),
        (
            ["train_controller", "--memory.cell", "gru"],
            "{run}/memory was made with --memory.cell lstm, but now it is gru: leave it out",
        ),
        (
            ["evaluate", "--controller.inputs", "z"],
            "{run}/controller was made with --controller.inputs zh, but now it is z: leave it out",
        ),
        (
            ["evaluate", "--vae.beta", "2", "--fresh"],
            "{run}/vae was made with --vae.beta 1.0, but now it is 2.0: leave it out",
        ),
        (
            ["evaluate", "--evaluate.on", "training", "--env.difficulty", "hard"],
            "with --env.difficulty easy, but now it is hard",
        ),
    ],
)
def test_settings_that_contradict_what_is_there_are_refused(
    words: list[str], sentence: str, chased: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in chased.rglob("*") if path.is_file()}
    assert cli.main([*words, *CHASED, "--run", str(chased)]) == 1
    said = capsys.readouterr().err.strip()
    assert sentence.format(run=chased) in said and "\n" not in said
    assert {path: path.stat().st_mtime_ns for path in chased.rglob("*.json")} == {
        path: time for path, time in before.items() if path.suffix == ".json"
    }


def test_settings_of_what_is_there_are_recorded_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*CHASED, "--run", str(tmp_path)]
    run(["train_vae", *words, "--vae.latent", "8", "--collect.policy", "uniform"], capsys)
    run(["train_vae", *words, "--vae.latent", "8", "--vae.steps", "25"], capsys)
    run(["collect", *words, "--collect.episodes", "8", "--collect.policy", "brownian"], capsys)
    run(["collect", *words], capsys)
    run(["train_controller", *words, "--controller.inputs", "z"], capsys)
    for stage, steps in (("vae", 25), ("controller", 25)):
        manifest = Run(tmp_path).stage(stage).manifest()
        assert manifest is not None
        assert (manifest["config"]["vae"]["latent"], manifest["config"]["vae"]["steps"]) == (8, steps)
    # What is repeated, or agrees with what is there, is welcome.
    agreeing = ["--vae.latent", "8", "--vae.steps", "25", "--collect.episodes", "8", "--collect.policy", "brownian"]
    run(["evaluate", *words, *agreeing], capsys)
    _, config = parse("evaluate", words)
    settled = ancestors.inherit_settings(config, Run(tmp_path), "evaluation")
    assert (settled.controller.inputs, settled.vae.latent, settled.collect.episodes) == ("z", 8, 8)


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_latents_that_are_lost_or_damaged_are_encoded_again(
    how: str, chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    victim = path / "latents" / "000000.npz"
    content = victim.read_bytes()
    victim.unlink() if how == "lost" else victim.write_bytes(content[:-4] + b"1234")
    words = [*CHASED, "--run", str(path)]
    assert cli.main(["train_memory", *words, "--fresh"]) == 1
    assert (
        "000000.npz is missing or does not fit its checksum: run bin/encode, which writes it again"
        in capsys.readouterr().err
    )
    summary, _ = run(["encode", *words], capsys)
    assert summary["encoded_now"] == summary["frames"]
    assert victim.read_bytes() == content


def search_one_generation(config: Config, run: Run) -> None:
    """Evolve until somebody asks to stop, which happens at the end of the next generation."""
    stop, told = Stop(), Evolution.tell

    def told_to_stop(self: Evolution, state: EvolutionState, returns: np.ndarray) -> EvolutionState:
        stop.requested = True
        return told(self, state, returns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evolution, "tell", told_to_stop)
        with pytest.raises(Interrupted):
            train_controller.run(config, run, stop)


def test_a_search_that_was_stopped_at_its_new_end_keeps_an_evaluated_mean(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path, ignore=shutil.ignore_patterns("controller", "evaluation"))
    words = ["train_controller", *CHASED, "--run", str(path), "--controller.evaluate_every", "9"]
    _, config = parse(words[0], [*words[1:], "--controller.generations", "3"])
    search_one_generation(config, Run(path))
    summary, said = run([*words, "--controller.generations", "1"], capsys)
    assert "going on from generation 1" in said
    assert math.isfinite(summary["best_score"]) and summary["best_score"] == pytest.approx(
        summary["evaluation_mean"], abs=0.01
    )


def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train_controller", *CHASED, "--controller.generations", "4"]
    straight = shutil.copytree(chased, tmp_path / "straight", ignore=shutil.ignore_patterns("controller"))
    broken = shutil.copytree(straight, tmp_path / "broken")
    _, config = parse(words[0], words[1:])
    for done in (1, 2):
        search_one_generation(config, Run(broken))
        assert Run(broken).stage("controller").checkpoints.steps()[-1] == done
    resumed, said = run([*words, "--run", str(broken)], capsys)
    undisturbed, _ = run([*words, "--run", str(straight)], capsys)
    assert "going on from generation 2" in said and resumed["weights"] == undisturbed["weights"]


def test_a_stage_that_is_told_to_stop_saves_its_state_and_says_130(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored = shutil.ignore_patterns("vae", "latents", "memory", "controller", "evaluation")
    straight = shutil.copytree(chased, tmp_path / "straight", ignore=ignored)
    broken = shutil.copytree(straight, tmp_path / "broken")
    # Nothing but the signal makes it save before its end.
    words = ["train_vae", *CHASED, "--vae.steps", "300", "--vae.save_every", "1000", "--vae.report_every", "1000"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "wm_jax", *words, "--run", str(broken)], stderr=subprocess.PIPE, text=True
    )
    curves = broken / "vae" / "metrics.jsonl"
    while process.poll() is None and not (curves.exists() and curves.stat().st_size):
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted; the same command goes on" in said and "Traceback" not in said
    (step,) = Run(broken).stage("vae").checkpoints.steps()
    assert 0 < step < 300
    resumed, said = run([*words, "--run", str(broken)], capsys)
    undisturbed, _ = run([*words, "--run", str(straight)], capsys)
    assert f"going on from step {step}" in said and resumed["weights"] == undisturbed["weights"]


def lose(path: Path, *shards: str) -> None:
    """Let these shards of a run's replays be gone, and repair the store."""
    for shard in shards:
        shutil.rmtree(path / "replays" / "shards" / shard)
    assert cli.main(["collect", "repair", *CHASED, "--run", str(path)]) == 0


@pytest.mark.parametrize("stage", ["vae", "memory"])
def test_training_goes_on_over_repaired_replays_as_if_nothing_had_been(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*CHASED, "--collect.slots", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    straight, _ = run([f"train_{stage}", *words, "--run", str(whole)], capsys)
    shutil.copytree(whole, broken, ignore=shutil.ignore_patterns(stage))
    _, config = parse(f"train_{stage}", words)
    with pytest.raises(Interrupted):
        importlib.import_module(f"wm_jax.stages.train_{stage}").run(config, Run(broken), StopAt(1))
    assert Run(broken).stage(stage).checkpoints.steps() == [5]
    lose(broken, "000000", "000001")
    run(["collect", *words, "--run", str(broken)], capsys)
    run(["encode", *words, "--run", str(broken)], capsys) if stage == "memory" else None
    resumed, said = run([f"train_{stage}", *words, "--run", str(broken)], capsys)
    assert "going on from step 5" in said and resumed["weights"] == straight["weights"]


def test_lost_episodes_are_played_again_by_who_played_them(
    chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    words = ["collect", *CHASED, "--run", str(path), "--collect.slots", "2"]
    run([*words, "--collect.episodes", "8", "--collect.policy", "uniform"], capsys)
    run([*words, "--collect.episodes", "12", "--collect.policy", "agent", "--collect.noise", "0.3"], capsys)
    before = ReplayStore.open(path / "replays")
    digest, played = before.digest, [before.episode(i) for i in range(12)]
    lose(path, "000000", "000001", "000003")  # 0 to 5 held, 6 and 7 uniform, 10 and 11 by the agent
    mended, _ = run(words, capsys)
    assert (mended["episodes"], mended["episodes_added"]) == (12, 10)
    after = ReplayStore.open(path / "replays")
    assert after.digest == digest
    for i, episode in enumerate(played):
        np.testing.assert_array_equal(after.episode(i).frames, episode.frames)
        np.testing.assert_array_equal(after.episode(i).actions, episode.actions)
    _, said = run(["train_vae", *CHASED, "--run", str(path)], capsys)
    assert "trained already (20 steps) on the first 6 of 12 episodes" in said

    lose(path, "000002")
    run(["train_controller", *CHASED, "--run", str(path), "--fresh", "--controller.sigma", "0.3"], capsys)
    assert cli.main(words) == 1
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert "has lost 2 episodes from 8 to 9, played by the agent" in said and "--collect.replace_lost" in said
    replaced, _ = run([*words, "--collect.replace_lost"], capsys)
    assert replaced["episodes"] == 12 and ReplayStore.open(path / "replays").digest != digest


def test_episodes_that_an_earlier_version_cut_off_are_not_played_on_in_silence(tmp_path: Path) -> None:
    config = load("chaser", "procgen", "smoke", {"collect": {"episode_steps": 40}})
    game = find("chaser", config.env)
    player = Player({"policy": "held"}, lambda *_: pytest.fail("nobody plays yet"))
    store = cast(
        ReplayStore, SimpleNamespace(path=tmp_path, lost=[Lost(3, player.about, 40), Lost(4, player.about, 39)])
    )
    with pytest.raises(UserError, match=r"lost 1 episodes from 3 to 3 that were cut off after 40 steps.*replace_lost"):
        collect._lost(config, Run(tmp_path), game, player, store)
    for change in ({"replace_lost": True}, {"episode_steps": 38}, {"episode_steps": None}):
        changed = config.model_copy(update={"collect": config.collect.model_copy(update=change)})
        assert collect._lost(changed, Run(tmp_path), game, player, store) == [(player, [3, 4])]


@pytest.mark.parametrize(("steps", "slots"), [(4000, 30), (1000, 69), (10, 512)])
def test_long_episodes_that_are_recorded_side_by_side_fit_the_memory(
    steps: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(collect, "open_pool", lambda game, slots, random_start: opened.append(slots))
    settings = {"slots": 512, "episode_steps": steps, "window": min(steps, 1000)}
    config = load("enduro", "atari", "paper", {"collect": settings})
    store = cast(ReplayStore, None)
    collector = collect.Collector(config, find("enduro", config.env), store, Stop())
    collector._pool(Player({}, lambda *_: pytest.fail("nobody plays yet")), 10_000)
    (opened,) = opened
    assert opened == pytest.approx(slots, abs=0.15 * slots)
    assert opened * 12_288 * 1.5 * steps <= collect.RECORDING_BYTES


def test_who_is_asked_to_stop_begins_no_further_stage(
    chased: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where all that comes first is done already, and nobody else looks."""

    def asked() -> contextlib.AbstractContextManager[Stop]:
        stop = Stop()
        stop.requested = True
        return contextlib.nullcontext(stop)

    monkeypatch.setattr(interrupt, "graceful_stop", asked)
    for command in ("pipeline", "train_vae", "evaluate"):
        assert cli.main([command, *CHASED, "--run", str(chased), "--json"]) == 130
        out, said = capsys.readouterr()
        assert said.startswith("interrupted; the same command goes on from")
        assert json.loads(out) == {"error": said.strip(), "status": 130}


def test_what_v_is_warned_of_needs_no_figure_that_is_not_there() -> None:
    figures = {"train_reconstruction": 10.0, "test_reconstruction": 30.0, "test_moving_explained": 0.01}
    assert len(train_vae.warnings(figures)) == 2
    # Of an earlier version; of a report that was saved; of one that is fresh.
    for moving in ({}, {"test_moving_explained": None}, {"test_moving_explained": math.nan}):
        errors = {"train_reconstruction": 10.0, "test_reconstruction": 20.0}
        assert train_vae.warnings(errors | moving) == []


def test_lost_records_are_not_passed_over(chased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    shutil.copytree(chased, path)
    words = [*CHASED, "--run", str(path)]
    (path / "replays" / "manifest.json").unlink()
    assert cli.main(["collect", *words]) == 1
    assert "its manifest.json is lost: restore it, or" in capsys.readouterr().err
    record = path / "vae" / "stage.json"
    record.rename(path / "kept")
    assert cli.main(["train_vae", *words]) == 1
    assert cli.main(["train_controller", *words]) == 1
    assert "vae has lost its stage.json" in capsys.readouterr().err.split("\n")[-2]
    (path / "kept").rename(record)
    (path / "controller" / "stage.json").unlink()
    assert cli.main(["train_controller", *words]) == 1
    assert "controller has lost its stage.json" in capsys.readouterr().err


@pytest.mark.parametrize("inputs", ["z", "zhc"])
def test_controllers_on_other_inputs(inputs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_controller", "--game", "chaser", "--preset", "smoke", "--run", str(tmp_path)]
    summary, _ = run([*words, "--controller.inputs", inputs, "--controller.world", "random"], capsys)
    features = {"z": 32, "zhc": 32 + 2 * 32}[inputs]
    assert summary["parameters"] == (features + 1) * 9
    assert not (tmp_path / "vae").exists()


def test_seeds_and_splits_of_episodes() -> None:
    # These two seeds meet a collision of 31-bit hashes below 10,000.
    for seed in (0, 64, 82):
        assert len(set(itertools.islice(episode_seeds(seed), 10_000))) == 10_000
    for fraction in (0.05, 0.0625, 0.3, 0.5):
        tests = [split_of(i, fraction) == "test" for i in range(1000)]
        assert tests[0] and sum(tests) == math.ceil(1000 * fraction)


def test_v_of_another_game_or_renderer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--preset", "smoke", "--run", str(tmp_path)]
    run(["train_vae", "--game", "chaser", *words], capsys)
    for other, sentence in (
        (["--game", "maze"], "was made with game chaser, but now it is maze"),
        (
            ["--game", "chaser", "--env.crop", "0", "32", "0", "32"],
            "was made with --env.crop None, but now it is 0 32 0 32",
        ),
    ):
        assert cli.main(["encode", *other, *words]) == 1
        assert sentence in capsys.readouterr().err


def test_a_run_can_be_named_by_a_way_around(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorStore takes no `..` in its paths."""
    (tmp_path / "beside").mkdir()
    words = ["collect", *CHASED, "--run", str(tmp_path / "beside" / ".." / "run")]
    run(words, capsys)
    assert cli.main(["collect", "verify", *CHASED, "--run", str(tmp_path / "run")]) == 0
    assert run(words, capsys)[0]["episodes_added"] == 0


def test_the_first_generations_may_play_short_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_controller", *CHASED, "--run", str(tmp_path), "--controller.world", "random"]
    run([*words, "--controller.short_generations", "1", "--controller.short_steps", "7"], capsys)
    lines = (tmp_path / "controller" / "metrics.jsonl").read_text().splitlines()
    first, second = (json.loads(line)["environment_steps"] for line in lines)
    assert first <= 4 * 7 < second
    assert cli.main([*words, "--controller.short_generations", "2"]) == 1
    assert "was made with --controller.short_generations 1" in capsys.readouterr().err


def test_models_of_other_names_stand_beside_each_other_on_the_same_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--preset", "smoke", "--game", "jax:grid_game:Grid", "--run", str(tmp_path / "run")]
    run(["train_vae", *words], capsys)
    smaller = [*words, "--name", "smaller"]
    run(["train_vae", *smaller, "--vae.latent", "4"], capsys)
    _, said = run(["train_memory", *smaller], capsys)
    assert "collect" not in said and "== encode: train_memory needs it" in said
    named = tmp_path / "run" / "named" / "smaller"
    assert {path.name for path in named.iterdir() if not path.name.startswith(".")} == {
        "base.json", "MODEL_CARD.md", "vae", "latents", "memory"
    }  # fmt: skip
    first, second = (json.loads((folder / "vae" / "stage.json").read_text()) for folder in (tmp_path / "run", named))
    assert first["parents"] == second["parents"] and second["settings"]["vae.latent"] == 4
    # Another folder altogether, that takes V too.
    other = ["--preset", "smoke", "--game", "jax:grid_game:Grid", "--run", str(tmp_path / "other")]
    _, said = run(["train_memory", *other, "--base", str(tmp_path / "run")], capsys)
    assert "train_vae" not in said and (tmp_path / "other" / "latents").is_dir()
    assert not (tmp_path / "run" / "latents").exists() and not (tmp_path / "other" / "vae").exists()
    # What it trained on is compared by its content.
    assert cli.main(["train_vae", *words, "--fresh", "--vae.latent", "6"]) == 0
    assert cli.main(["train_controller", *other]) == 1
    assert "was made with vae" in capsys.readouterr().err
    assert cli.main(["train_vae", *words, "--name", "../x"]) == 2
    assert "--name ../x: give a word of letters" in capsys.readouterr().err
    assert cli.main(["train_vae", *words, "--name", "round-2"]) == 2
    assert "--name round-2: it does not exist, and what other commands make" in capsys.readouterr().err
    assert cli.main(["train_vae", *words, "--name", "x", "--base", str(tmp_path / "other")]) == 2
    assert "--name: with it, the run itself is the base" in capsys.readouterr().err
