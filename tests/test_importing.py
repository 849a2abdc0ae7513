"""Recordings from elsewhere become replays that all later stages take; each kind of broken one gets one sentence."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from wm_jax import cli
from wm_jax.data.importing import STRETCH, Recording, checked, episodes, recordings, spans, stretch_of
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.families import imported_actions
from wm_jax.render.video import write_video
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.utils.errors import UserError

GAME = ["--game", "own:maze", "--preset", "smoke"]
SPACE = imported_actions({"actions": 3})


def screens(count: int, side: int = 64) -> np.ndarray:
    """Frame i is of the grey i all over."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, side, side, 3)).copy()


def greys(frames: np.ndarray) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def run_import(folder: Path, source: Path, *more: str) -> int:
    return cli.main(["import", *GAME, "--run", str(folder), "--from", str(source), *more])


# What lies where


def test_as_many_frames_as_actions_are_cut_at_the_ends() -> None:
    """Frame i, action i, reward i; the frame after an end is the next episode's."""
    ends = np.zeros(7, bool)
    ends[[2, 6]] = True
    actions = np.arange(7) % 3
    given = {"frames": screens(7), "actions": actions, "rewards": np.arange(7.0), "ends": ends}
    first, second = episodes(checked("it", given), SPACE, 5)
    assert greys(first.frames) == [0, 1, 2, 2] and greys(second.frames) == [3, 4, 5, 6, 6]
    assert first.actions.tolist() == [0, 1, 2] and second.actions.tolist() == [0, 1, 2, 0]
    assert first.rewards.tolist() == [0, 1, 2] and second.rewards.tolist() == [3, 4, 5, 6]
    assert first.terminated.tolist() == [False, False, True] and second.terminated.tolist() == [False] * 3 + [True]
    assert (first.seed, second.seed) == (5, 6) and not first.truncated.any()


def test_one_frame_more_than_actions_is_the_last_one_s() -> None:
    (only,) = episodes(checked("it", {"frames": screens(4), "actions": [2, 0, 1], "ends": [0, 0, 1]}), SPACE, 0)
    assert greys(only.frames) == [0, 1, 2, 3] and only.actions.tolist() == [2, 0, 1]
    assert only.terminated.tolist() == [False, False, True]


def test_what_has_no_end_is_cut_into_stretches_that_share_a_frame() -> None:
    count = 2 * STRETCH + 11
    frames = np.zeros((count, 64, 64, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(count) % 251
    parts = list(episodes(checked("it", {"frames": frames}), imported_actions({}), 0))
    assert [len(part.rewards) for part in parts] == [STRETCH, STRETCH, 10]
    np.testing.assert_array_equal(parts[0].frames[-1], parts[1].frames[0])
    assert not any(part.terminated.any() or part.truncated.any() for part in parts)


@pytest.mark.parametrize(
    "frames",
    [
        screens(3, 128),
        screens(3, 128).astype(np.float64) / 255,
        np.moveaxis(screens(3, 128), -1, 1),
        screens(3, 128)[..., 0],
        screens(3, 128)[..., :1],
        np.concatenate([screens(3, 128), np.full((3, 128, 128, 1), 255, np.uint8)], axis=-1),
    ],
)
def test_usual_layouts_are_the_same_frames(frames: np.ndarray) -> None:
    np.testing.assert_array_equal(checked("it", {"frames": frames}).frames, screens(3))


# Files


def test_pictures_videos_and_arrays(tmp_path: Path) -> None:
    source = tmp_path / "all"
    for place in ("b", "a"):
        (source / place).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(screens(12, 50)[10 * (place == "b") + i % 2]).save(source / place / f"{i:03d}.png")
    write_video(source / "c.mp4", screens(200, 64)[::40], 10)
    np.savez(source / "d.npz", obs=screens(4), action=np.zeros((4, 2), np.float32), other=np.zeros(3))
    found = list(recordings(source))
    assert [each.name for each in found] == ["a", "b", "c.mp4", "d.npz"]
    assert [greys(each.frames) for each in found[:2]] == [[0, 1, 0], [10, 11, 10]]
    np.testing.assert_allclose(greys(found[2].frames), [0, 40, 80, 120, 160], atol=4)
    assert found[3].actions is not None and found[3].actions.shape == (4, 2)


def test_an_imported_run_goes_through_v_and_m(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, run = tmp_path / "play", tmp_path / "run"
    source.mkdir()
    random = np.random.default_rng(0)
    for i in range(6):
        actions = random.integers(0, 3, 20)
        np.savez(source / f"{i}.npz", frames=random.integers(0, 255, (20, 80, 70, 3), np.uint8), actions=actions,
                 rewards=np.ones(20), ends=np.arange(20) % 10 == 9)  # fmt: skip
    assert run_import(run, source, "--json") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["episodes"] == 12 and summary["recordings"] == 6 and summary["mean_return"] == 10
    store = ReplayStore.open(run / "replays")
    assert store.action == ((), np.int32) and store.count("test").episodes > 0
    assert cli.main(["train_memory", *GAME, "--run", str(run), "--memory.reward_head", "true"]) == 0
    assert cli.main(["train_controller", *GAME, "--run", str(run)]) == 1
    assert "own:maze consists of recordings and can't be played" in capsys.readouterr().err
    assert run_import(run, source) == 1
    assert "holds replays already: give another --run, or --fresh to move them aside" in capsys.readouterr().err
    assert run_import(run, source, "--fresh") == 0


def test_no_random_play_is_put_beside_recordings_of_a_game_of_the_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, run = tmp_path / "drives", ["--game", "carracing", "--preset", "smoke", "--run", str(tmp_path / "run")]
    source.mkdir()
    for i in range(4):
        np.savez(source / f"{i}.npz", frames=screens(9), actions=np.zeros((9, 3), np.float32))
    assert cli.main(["import", *run, "--from", str(source)]) == 0
    before = (tmp_path / "run" / "replays" / "summary.json").read_bytes()
    assert cli.main(["collect", *run, "--collect.episodes", "50"]) == 0
    assert "replays: 4 episodes were imported (40 frames)" in capsys.readouterr().err
    assert (tmp_path / "run" / "replays" / "summary.json").read_bytes() == before
    (tmp_path / "run" / "replays" / "summary.json").unlink()  # as if it had been stopped
    assert cli.main(["train_vae", *run, "--vae.frames", "replays"]) == 1
    assert "holds a part of what bin/import was to bring: give that command again first" in capsys.readouterr().err


def test_a_stopped_import_is_begun_again_with_whatever_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wm_jax.library.recordings.RECORDINGS_TOGETHER", 1)
    checks = iter([None, Interrupted()])

    def check(_: Stop) -> None:
        if (error := next(checks, None)) is not None:
            raise error

    monkeypatch.setattr(Stop, "check", check)
    source, run = tmp_path / "play", tmp_path / "run"
    source.mkdir()
    for i in range(2):
        np.savez(source / f"{i}.npz", frames=screens(9), actions=np.arange(9) % 2)
    assert run_import(run, source) == 130
    assert list((run / "replays").rglob("steps.npz")) and not (run / "replays" / "summary.json").exists()
    capsys.readouterr()
    assert cli.main(["train_vae", *GAME, "--run", str(run)]) == 1
    assert "holds a part of what bin/import was to bring: give that command again first" in capsys.readouterr().err
    np.savez(source / "2.npz", frames=screens(9), actions=np.arange(9) % 3)
    assert run_import(run, source, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["recordings"] == 3
    assert "moved the unfinished replays to" in said.err and len(list((run / "discarded").iterdir())) == 1


def test_frames_alone_are_for_v_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, run = tmp_path / "shots", tmp_path / "run"
    source.mkdir()
    for i in range(STRETCH + 20):
        Image.fromarray(screens(STRETCH + 20, 16)[i]).save(source / f"{i:04d}.png")
    assert run_import(run, source) == 0
    assert cli.main(["train_vae", *GAME, "--run", str(run)]) == 0
    assert cli.main(["train_memory", *GAME, "--run", str(run)]) == 2
    assert "own:maze: it was imported without actions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("frames", "stretch"), [([20_000], 500), ([2000], 199), ([300], 100), ([101], 50), ([3], 1), ([40, 40], 100)]
)
def test_few_short_recordings_are_cut_shorter(frames: list[int], stretch: int) -> None:
    """So that some of a single short clip is left for testing."""
    found = [Recording("it", np.zeros((count, 1, 1, 3), np.uint8), None, None, None) for count in frames]
    assert stretch_of(found) == stretch
    assert sum(len(spans(each, stretch)) for each in found) > 1


def test_recordings_of_a_game_of_the_catalogue_are_its_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--game", "carracing", "--preset", "smoke", "--run", str(tmp_path / "run")]
    for i in range(3):
        np.savez(tmp_path / f"{i}.npz", frames=screens(8), actions=np.zeros((8, 3), np.float32))
    np.savez(tmp_path / "other.npz", frames=screens(8), actions=np.zeros((8, 2), np.float32))
    assert cli.main(["import", *words, "--from", str(tmp_path / "other.npz")]) == 1
    assert "carracing has 3 numbers (steer, gas, brake); give these" in capsys.readouterr().err
    (tmp_path / "other.npz").unlink()
    assert cli.main(["import", *words, "--from", str(tmp_path)]) == 0
    assert cli.main(["train_vae", *words, "--vae.frames", "replays"]) == 0
    next(path for path in (tmp_path / "run" / "replays" / "shards").rglob("*") if path.is_file()).write_bytes(b"x")
    assert cli.main(["collect", "repair", *words]) == 0
    assert "of imported recordings, which nobody can play again: import all anew" in capsys.readouterr().err
    assert cli.main(["collect", *words]) == 1
    assert "which were imported, so that nobody can play them again: import all anew" in capsys.readouterr().err


def test_without_recordings_the_game_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train_vae", *GAME, "--run", str(tmp_path / "none")]) == 1
    assert "has no recordings of own:maze: bring them by bin/import --from first" in capsys.readouterr().err


# Broken ones

FRAMES = screens(5)
BROKEN: list[tuple[dict[str, Any], str]] = [
    (
        {"frames": np.zeros((5, 64, 64, 2), np.uint8)},
        "frames of 2 channels; give 3 (colours), 1 (grey) or 4 (with alpha)",
    ),
    ({"frames": np.zeros((64, 64), np.uint8)}, "frames [64, 64]; give [frames, height, width, 3]"),
    ({"frames": np.zeros((0, 64, 64, 3), np.uint8)}, "frames [0, 64, 64, 3]; give"),
    ({"frames": FRAMES.astype(np.int64)}, "frames of type int64; give uint8, or floats in [0, 1]"),
    ({"frames": FRAMES.astype(np.float32)}, "frames from 0 to 4; give uint8, or finite floats in [0, 1]"),
    ({"frames": np.full((5, 8, 8, 3), np.nan)}, "give uint8, or finite floats in [0, 1]"),
    ({"frames": FRAMES, "actions": [0, 1]}, "2 actions for 5 frames; there must be one for each frame, or one fewer"),
    ({"frames": FRAMES, "actions": [0, -1, 0, 0]}, "actions from -1 to 0; choices are 0 to 999"),
    ({"frames": FRAMES, "actions": [0, 10**6, 0, 0]}, "actions from 0 to 1000000; choices are 0 to 999"),
    ({"frames": FRAMES, "actions": np.full((5, 2), np.inf)}, "actions that are not finite"),
    ({"frames": FRAMES, "actions": ["a"] * 5}, "give integers [T], or floats [T, A]"),
    (
        {"frames": FRAMES, "actions": np.zeros((5, 2, 2))},
        "actions float64 [5, 2, 2]; give integers [T], or floats [T, A]",
    ),
    (
        {"frames": FRAMES, "rewards": np.zeros(5)},
        "it has rewards, but no actions; give these, too, or leave rewards out",
    ),
    ({"frames": FRAMES, "actions": [0] * 5, "rewards": np.zeros(4)}, "4 rewards for 5 frames and 5 actions"),
    ({"frames": FRAMES, "actions": [0] * 5, "rewards": [0, 0, np.nan, 0, 0]}, "rewards that are not finite"),
    ({"frames": FRAMES, "actions": [0] * 5, "rewards": np.zeros((5, 2))}, "give one number for each step, [T]"),
    ({"frames": FRAMES, "actions": [0] * 5, "ends": [0, 2, 0, 0, 0]}, "ends other than 0 and 1 (false and true)"),
    (
        {"frames": FRAMES, "actions": [0] * 4, "ends": [0, 1, 0, 1]},
        "episodes end amid it, but there is no frame for each",
    ),
]


@pytest.mark.parametrize(("arrays", "sentence"), BROKEN, ids=[sentence for _, sentence in BROKEN])
def test_broken_arrays_get_one_sentence(arrays: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        checked("the file", arrays)
    assert str(caught.value).startswith("the file: ") and sentence in str(caught.value)


def files_that_are_broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """Each with what is said of it."""
    (folder / "empty").mkdir()
    (folder / "one").mkdir()
    Image.fromarray(FRAMES[0]).save(folder / "one" / "a.png")
    (folder / "mixed").mkdir()
    shutil.copyfile(folder / "one" / "a.png", folder / "mixed" / "b.png")
    np.savez(folder / "mixed" / "a.npz", frames=FRAMES)
    (folder / "torn").mkdir()
    (folder / "torn" / "a.png").write_bytes(b"\x89PNG no more")
    (folder / "a.npz").write_bytes(b"PK")
    (folder / "a.mp4").write_bytes(b"no video")
    (folder / "a.txt").write_text("")
    np.savez(folder / "nameless.npz", pixels=FRAMES)
    np.savez(folder / "twice.npz", obs=FRAMES, frames=FRAMES)
    with av.open(str(folder / "sound.mkv"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        for packet in stream.encode(sound):
            file.mux(packet)
    return {
        "gone": (folder / "gone", "there is no such file or folder"),
        "empty": (folder / "empty", "it holds no .png, .jpg"),
        "one picture": (folder / "one", "a single frame; give two or more, one after the other"),
        "a picture": (folder / "one" / "a.png", "a single picture; give the folder that it lies in"),
        "torn picture": (folder / "torn", "a.png: it can't be read"),
        "torn arrays": (folder / "a.npz", "a.npz: it can't be read"),
        "torn video": (folder / "a.mp4", "a.mp4: it can't be read"),
        "text": (folder / "a.txt", "no kind of file that is known; give .mp4"),
        "nameless": (folder / "nameless.npz", "it has no frames, only pixels; name them frames"),
        "twice": (folder / "twice.npz", "frames and obs may both be its frames; leave one out"),
        "mixed": (folder / "mixed", "b.png and a.npz side by side"),
        "sound": (folder / "sound.mkv", "there are no pictures in it"),
    }


def test_what_was_cut_off_is_an_episode_that_did_not_end() -> None:
    arrays = {"frames": screens(9), "actions": np.arange(9) % 2, "ends": np.arange(9) == 2, "cuts": np.arange(9) == 5}
    parts = list(episodes(checked("it", arrays), imported_actions({"actions": 2}), 0, 100))
    assert [len(part.rewards) for part in parts] == [3, 3, 3]
    assert [part.terminated.any() for part in parts] == [True, False, False]
    assert [part.truncated.tolist() for part in parts] == [[False] * 3, [False, False, True], [False] * 3]
    np.testing.assert_array_equal(parts[1].frames[-1], parts[1].frames[-2])  # not the next episode's first


def test_pictures_of_16_bits_keep_their_greys(tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(np.full((64, 64), 25_600 * (i + 1), np.uint16)).save(tmp_path / f"{i}.png")
    (found,) = recordings(tmp_path)
    assert greys(found.frames) == [100, 200]


def test_what_is_not_understood_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", frames=screens(4), acitons=np.zeros(4))
    list(recordings(tmp_path))
    assert "a.npz: acitons: left out" in capsys.readouterr().err


def test_broken_files_get_one_sentence_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, sentence in files_that_are_broken(tmp_path).values():
        assert run_import(tmp_path / "run", path) == 1
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == said.count("replays: ") + 1, said
        assert not (tmp_path / "run" / "replays" / "summary.json").exists()


def test_recordings_must_be_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", frames=FRAMES, actions=[0] * 5)
    np.savez(tmp_path / "b.npz", frames=FRAMES)
    assert run_import(tmp_path / "run", tmp_path) == 1
    assert "actions: some recordings have none, or others than the rest; import these apart" in capsys.readouterr().err


def test_it_needs_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", *GAME, "--run", str(tmp_path)]) == 2
    assert "--from: say which folder or file to import" in capsys.readouterr().err


# And out again


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run with six imported episodes of three kinds of end."""
    random, source = np.random.default_rng(0), tmp_path / "source"
    source.mkdir()
    for i in range(6):
        ends = np.arange(9) == (8 if i % 2 else -1)
        np.savez(source / f"{i}.npz", frames=random.integers(0, 255, (10, 64, 64, 3), np.uint8), ends=ends,
                 actions=random.integers(0, 3, 9), rewards=random.normal(size=9))  # fmt: skip
    assert run_import(tmp_path / "run", source) == 0
    return tmp_path / "run"


def test_what_is_exported_is_what_was_imported(recorded: Path, tmp_path: Path) -> None:
    words = ["export_replays", *GAME, "--run", str(recorded), "--to", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert run_import(tmp_path / "again", tmp_path / "out") == 0
    one, other = (ReplayStore.open(path / "replays") for path in (recorded, tmp_path / "again"))
    for i in range(6):
        for mine, theirs in zip(one.episode(i).steps(), other.episode(i).steps(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(one.episode(i).frames, other.episode(i).frames)
    assert not (tmp_path / "out.part").exists()


def test_an_export_overwrites_nothing(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export_replays", *GAME, "--run", str(recorded)]
    for more, sentence in (
        ([], "--to: say which folder to write"),
        (["--to", str(tmp_path)], "it is there already; name"),
    ):
        assert cli.main([*words, *more]) == 2
        assert sentence in capsys.readouterr().err


def test_a_dataset_of_minari(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export_replays", *GAME, "--run", str(recorded), "--to", str(tmp_path / "out"), "--format", "minari"]
    h5py = pytest.importorskip("h5py")
    assert cli.main(words) == 0
    about = json.loads((tmp_path / "out" / "data" / "metadata.json").read_text())
    assert (about["total_episodes"], about["total_steps"], about["jpeg_encoding"]) == (6, 54, False)
    assert json.loads(about["action_space"]) == {"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}
    store = ReplayStore.open(recorded / "replays")
    with h5py.File(tmp_path / "out" / "data" / "main_data.hdf5") as file:
        for i in range(6):
            group, episode = file[f"episode_{i}"], store.episode(i)
            np.testing.assert_array_equal(group["observations"], episode.frames)
            np.testing.assert_array_equal(group["rewards"], episode.rewards)
            assert group["terminations"][-1] == i % 2 != group["truncations"][-1]
            assert group["truncations"][:].sum() + group["terminations"][:].sum() == 1


def test_without_h5py_it_says_so(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    words = ["export_replays", *GAME, "--run", str(recorded), "--to", str(tmp_path / "out"), "--format", "minari"]
    assert cli.main(words) == 1
    assert "python -m pip install 'wm_jax[hdf5]'" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "a.h5").write_bytes(b"")
    assert run_import(tmp_path / "new", tmp_path / "a.h5") == 1
    assert "reading HDF5 needs h5py" in capsys.readouterr().err
