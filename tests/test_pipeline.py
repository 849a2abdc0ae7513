"""The whole chain on real games, at its smallest; and that each stage reuses what is there."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_jax import cli
from wm_jax.data.replay import ReplayStore
from wm_jax.render.video import extract_frames
from wm_jax.stages.collect import episode_seeds, split_of

STAGES = ("replays", "vae", "latents", "memory", "controller", "evaluation")


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The summary and what was said."""
    assert cli.main([*words, "--json"]) == 0
    out, said = capsys.readouterr()
    return json.loads(out.strip().split("\n")[-1]), said


@pytest.mark.parametrize("game", ["carracing", "enduro", "chaser", "dodgeball"])
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
    assert after == before and "trained already" in said
    assert ReplayStore.open(tmp_path / "replays").count().episodes == 10


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
        seeds = episode_seeds(seed, 10_000)
        assert len(set(seeds)) == 10_000 and seeds[:50] == episode_seeds(seed, 50)
    for fraction in (0.05, 0.0625, 0.3, 0.5):
        tests = [split_of(i, fraction) == "test" for i in range(1000)]
        assert tests[0] and sum(tests) == math.ceil(1000 * fraction)


def test_v_of_another_game_or_renderer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--preset", "smoke", "--run", str(tmp_path)]
    run(["train_vae", "--game", "chaser", *words], capsys)
    for other, sentence in (
        (["--game", "maze"], "was trained with --game chaser, not maze"),
        (
            ["--game", "chaser", "--env.crop", "0", "32", "0", "32"],
            "was trained with --env.crop None, not [0, 32, 0, 32]",
        ),
    ):
        assert cli.main(["encode", *other, *words]) == 1
        assert sentence in capsys.readouterr().err
