"""The command line: what it accepts, and the one sentence it says about everything else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wm_jax import cli
from wm_jax.cli.commands import COMMANDS
from wm_jax.cli.options import parse
from wm_jax.cli.sentences import as_typed
from wm_jax.config.vaes import VanillaConfig
from wm_jax.run.folder import Run

WRONG = [
    ([], 0, None),
    (["trian_vae", "--game", "enduro"], 2, "trian_vae: no such command; did you mean train_vae"),
    (["train_vae"], 2, "--game: say which game"),
    (["train_vae", "--game", "endro"], 2, "--game endro: no such game; did you mean enduro"),
    (["train_vae", "--game", "gymnasium:"], 2, "--game gymnasium:"),
    (["train_vae", "--game", "enduro", "--preset", "fast"], 2, "--preset fast: no such preset"),
    (["train_vae", "--game", "enduro", "--vae.latnt", "3"], 2, "--vae.latnt: no such option; did you mean --vae.lat"),
    (["train_vae", "--game", "enduro", "--vae.latent", "-3"], 2, "--vae.latent -3: input should be greater than 0"),
    (["train_vae", "--game", "enduro", "--vae.latent"], 2, "--vae.latent: expected one argument"),
    (["train_vae", "--game", "enduro", "--vae.batch", "many"], 2, "--vae.batch many: input should be a valid integer"),
    (["train_vae", "--game", "enduro", "--vae.beta", "nan"], 2, "--vae.beta nan: input should be a finite number"),
    (["train_vae", "--game", "enduro", "--seed", "-1"], 2, "--seed -1: "),
    (["train_vae", "--game", "enduro", "--seed", "one"], 2, "--seed one: input should be a valid integer"),
    (["train_vae", "--game", "enduro", "--vae.noise_patches", "perhaps"], 2, "--vae.noise_patches perhaps: "),
    (["train_vae", "--game", "enduro", "again"], 2, "again: no such option"),
    (["collect", "vrify", "--game", "enduro"], 2, "collect vrify: no such action; did you mean verify"),
    (["collect", "--game", "enduro", "--preset", "smoke", "--collect.episodes", "1"], 2, "--collect.episodes 1: "),
    (["collect", "--game", "enduro", "--env.actions", "jump", "--run", "{tmp}/x"], 2, "--env.actions"),
    (["collect", "--game", "enduro", "--env.crop", "5", "5", "0", "9", "--run", "{tmp}/x"], 2, "--env.crop"),
    (["collect", "--game", "enduro", "--env.crop", "5", "9", "--run", "{tmp}/x"], 2, "--env.crop 5 9: too few values"),
    (["collect", "--game", "chaser", "--env.sticky", "0.5", "--run", "{tmp}/x"], 2, "only atari games have that"),
    (["collect", "--game", "carracing", "--env.levels", "5"], 2, "--env.levels 5: only procgen games have that"),
    (["collect", "--game", "chaser", "--collect.episodes", "1000000000000"], 2, "less than or equal to 1000000"),
    (["train_vae", "--game", "chaser", "--vae.latent", "1000000000"], 2, "--vae.latent 1000000000: "),
    (["evaluate", "--game", "chaser", "--evaluate.workers", "100000"], 2, "--evaluate.workers 100000: "),
    (["collect", "--game", "chaser", "--run", "{tmp}/file/sub"], 1, "--run {tmp}/file/sub: can't be created"),
    (["collect", "verify", "--game", "enduro", "--run", "{tmp}/x"], 1, "bin/collect"),
    (["collect", "--game", "enduro", "--run", "{tmp}/file"], 1, "--run {tmp}/file: this is a file"),
    (["train_controller", "--game", "enduro", "--controller.strategy", "CMAES"], 2, "did you mean CMA_ES"),
    (["collect", "--game", "enduro", "--run", ""], 2, "--run: no folder is named"),
    (["collect", "--game", "enduro", "--run", "{tmp}/" + 300 * "x"], 2, "...: File name too long; give another folder"),
    (["collect", "--game", "enduro", "--run=~nobody-of-this-name/x"], 2, "nobody-of-this-name/x: nobody knows that"),
    (["collect", "verify", "--game", "enduro", "--fresh", "--run", "{tmp}/x"], 2, "--fresh: collect verify makes"),
    (["collect", "--game", "gymnasium:CarRacing-v"], 2, "did you mean gymnasium:CarRacing-v3?"),
    (["collect", "--game", "gymnasium:CarRacing-v3", "--env.kwargs", "x"], 2, "--env.kwargs x: give NAME=VALUE"),
    (["collect", "--game", "gymnasium:CarRacing-v3", "--env.kwargs", "x=[1", "y=2"], 2, "--env.kwargs x=[1: give NAME"),
    (["collect", "--game", "gymnasium:CarRacing-v3", "--env.kwargs", "x=1", "x=2"], 2, "x=2: x is given twice"),
    (["collect", "--game", "gymnasium:CarRacing-v3", "--env.pixels", "all"], 2, "--env.pixels all: input should be"),
    (["collect", "--game", "enduro", "--collect.policy", "agent", "--run", "{tmp}/x"], 1, "run bin/train_controller"),
    (["collect", "--game", "chaser", "--env.backend", "device"], 2, "--env.backend device: only carracing and jax"),
    (["collect", "--game", "carracing", "--env.crop", "0", "84", "0", "96"], 2, "--env.crop 0 84 0 96: the device"),
    (["collect", "--game", "chaser", "--collect.random_start", "--run", "{tmp}/x"], 2, "can't begin anywhere"),
    (["train_vae", "--game", "chaser", "--vae.frames", "generated", "--run", "{tmp}/x"], 2, "have them; give --vae"),
    (["pipeline", "--game", "chaser", "--vae.frames", "generated", "--run", "{tmp}/x"], 2, "have them; give --vae"),
    (["train_vae", "--game", "carracing", "--env.backend", "envpool", "--run", "{tmp}/x"], 2, "--vae.frames replays"),
    (["train_controller", "--game", "chaser", "--controller.random_start", "--run", "{tmp}/x"], 2, "can't begin"),
    (["evaluate", "--game", "chaser", "--pretrained", "--run", "{tmp}/x"], 2, "--pretrained: no agent for chaser"),
    (["collect", "--game", "carracing", "--pretrained", "--run", "{tmp}/x"], 2, "--pretrained: no such option"),
    (["pipeline", "--game", "chaser", "--collect.policy", "agent", "--fresh"], 2, "--fresh: it would move aside"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "status", "sentence"), WRONG, ids=lambda value: str(value)[:60])
def test_mistakes_get_one_sentence(
    words: list[str],
    status: int,
    sentence: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    assert cli.main([word.replace("{tmp}", str(tmp_path)) for word in words]) == status
    if sentence is not None:
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ") and "\n" not in said, said
        assert sentence.replace("{tmp}", str(tmp_path)) in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"], "a refused command made a folder"


def test_home_is_found_also_where_the_shell_leaves_its_sign_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["collect", "verify", "--game", "enduro", "--run=~/x"]) == 1
    assert str(tmp_path / "x") in capsys.readouterr().err and not (tmp_path / "~").exists()


def test_games_without_images_are_not_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["collect", "--game", "gymnasium:CartPool-v1"]) == 2
    said = capsys.readouterr().err
    assert "gymnasium:CartPool-v1: Gymnasium knows no such id" in said and "CartPole" not in said
    # Without a version, Gymnasium takes the latest.
    assert cli.main(["collect", "--game", "gymnasium:CartPole"]) == 2
    assert "gymnasium:CartPole: observations are Box" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert cli.main(["collect", "--game", "enduro", "--run", str(tmp_path)]) == 1
    assert "not writable" in capsys.readouterr().err


def test_an_unexpected_error_has_no_traceback_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(cli, "_main", fail)
    assert cli.main(["collect"]) == 1
    assert capsys.readouterr().err == (
        "error: the disk is full (/somewhere): free some space, then give the same command\n"
    )
    assert cli.main(["collect", "--debug", "--json"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("Traceback") and said.err.endswith(
        "\nerror: the disk is full (/somewhere): free some space, then give the same command\n"
    )
    assert json.loads(said.out) == {
        "error": "the disk is full (/somewhere): free some space, then give the same command",
        "status": 1,
    }


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.standalone is None])
def test_help_shows_the_values_in_force(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--game", "enduro", "--preset", "smoke", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for section in COMMANDS[command].sections or ("vae",):
        assert f"--{section}." in shown
    if command == "collect":
        assert "one of held, brownian, uniform, agent [held]" in shown and "bin/collect verify reads" in shown
    if command in ("evaluate", "pipeline"):
        on, video = ("both", True) if command == "pipeline" else ("official", False)
        assert f"official, training, both [{on}]" in shown and f"reconstruction beside it [{video}]" in shown
    if command in ("train_vae", "pipeline"):
        assert "updates (the paper's ten epochs over 10,000 episodes) [20]" in shown


@pytest.mark.parametrize("name", ["replays", "discarded"])
def test_a_file_where_a_folder_should_be(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["collect", "--game", "chaser", "--preset", "smoke", "--run", str(tmp_path), "--collect.episodes", "2"]
    if name == "discarded":
        assert cli.main(words) == 0
    capsys.readouterr()
    (tmp_path / name).write_text("in the way")
    assert cli.main([*words, "--fresh"]) == 1
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said == f"error: {tmp_path / name}: a file is in the way there; move it, or give another --run"


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.5, 1.0, 2.0])
def test_ctrl_c_at_any_moment_leaves_no_traceback(seconds: float, tmp_path: Path) -> None:
    # As `python -m wm_jax` does, but that it says when its first line has run: before, Python itself is starting.
    code = (
        "from wm_jax.utils.process import die_on_ctrl_c; die_on_ctrl_c(); print(flush=True); "
        "import runpy; runpy.run_module('wm_jax', run_name='__main__', alter_sys=True)"
    )
    words = ["-P", "-c", code, "collect", "--game", "carracing", "--run", str(tmp_path)]
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process inherits that Ctrl-C is ignored
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    signal.signal(signal.SIGINT, ours)
    assert process.stdout is not None and process.stdout.readline() == "\n"
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130) and "Traceback" not in said


def test_help_imports_no_jax() -> None:
    code = (
        "import sys; from wm_jax import cli\n"
        "try: cli.main(['train_vae', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'envpool', 'orbax', 'tensorstore', 'matplotlib'} & set(sys.modules), 'imported too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_words_become_settings() -> None:
    _, config = parse(
        "train_vae",
        [
            "--game",
            "Enduro",
            "--preset",
            "smoke",
            "--vae.free-nats=0.25",
            "--vae.noise_patches",
            "--seed",
            "7",
            "--env.crop",
            "0",
            "84",
            "0",
            "96",
            "--env.actions",
            "NOOP,FIRE",
            "--controller.episode_steps",
            "none",
        ],
    )
    assert config.game == "enduro" and config.seed == 7
    assert isinstance(config.vae, VanillaConfig)
    assert config.vae.free_nats == 0.25 and config.vae.noise_patches
    assert config.env.crop == (0, 84, 0, 96) and config.env.actions == ("NOOP", "FIRE")
    assert config.controller.episode_steps is None


def test_artifacts_of_another_game_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--preset", "smoke", "--run", str(tmp_path), "--collect.episodes", "2", "--collect.episode_steps", "5"]
    assert cli.main(["collect", "--game", "chaser", "--json", *run]) == 0
    summary = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert (
        summary["episodes"] == 2 and summary["train_frames"] == summary["test_frames"] == 17
    )  # one window, and the end
    assert cli.main(["collect", "--game", "maze", *run]) == 1
    assert "made with game chaser, but now it is maze" in capsys.readouterr().err.replace('"', "")
    assert Run(tmp_path).stage("replays").summary() == summary


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("vae.beta 2: too large, with memory.cell gru", "--vae.beta 2: too large, with --memory.cell gru"),
        ("game endro: no such game", "--game endro: no such game"),
        ("a game is over: run collect first", "a game is over: run bin/collect first"),
        ("runs/vae.beta/vae is lost: run train_vae anew", "runs/vae.beta/vae is lost: run bin/train_vae --fresh"),
        ("runs/a was made with another game: use another run", "runs/a was made with another game: use another --run"),
        ("--vae.beta 2 is typed already, my_vae.beta is none", "--vae.beta 2 is typed already, my_vae.beta is none"),
        ("run train_vae anew", "run bin/train_vae --fresh"),
        ("/data/run collect/x is no folder", "/data/run collect/x is no folder"),
        ("run runs/enduro-quick: not writable", "--run runs/enduro-quick: not writable"),
        ("nothing is there; run encode.", "nothing is there; run bin/encode."),
        ("enduro.yaml: vae.beta high: give a number", "enduro.yaml: vae.beta high: give a number"),
    ],
)
def test_what_the_library_names_is_shown_as_it_is_typed(said: str, typed: str) -> None:
    assert as_typed(said) == typed


def test_help_shows_the_settings_of_the_chosen_auto_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit, match="0"):
            cli.main(["train_vae", "--game", "enduro", *words, "--help"])
        return capsys.readouterr().out

    ours, own = shown(), shown("--vae.variant", "own_models:TinyVq")
    assert "--vae.beta" in ours and "--vae.options" not in ours
    assert "--vae.options" in own and "--vae.beta" not in own and "--vae.latent" in own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vae.variant", "m:C", "--vae.beta", "2"], "--vae.beta 2: what --vae.variant names has no such setting"),
        (["--memory.options", "reach=2"], "--memory.options reach=2: what --memory.cell names has no such setting"),
    ],
)
def test_settings_of_another_variant_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train_vae", "--game", "enduro", *words]) == 2
    assert said in capsys.readouterr().err


def test_files_may_hold_settings_of_a_variant_that_is_not_chosen() -> None:
    """Enduro's own have a beta; an auto-encoder that has none is given the others."""
    _, config = parse("train_vae", ["--game", "enduro", "--vae.variant", "own_models:TinyVq"])
    assert (
        not hasattr(config.vae, "beta") and config.vae.latent == parse("train_vae", ["--game", "enduro"])[1].vae.latent
    )
