"""A run's folder: what made what, what does not fit, and what a damaged checkpoint does."""

import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from wm_jax.distributed.progress import clock
from wm_jax.run.checkpoints import Checkpoints, DamagedCheckpoints, digest_of
from wm_jax.run.folder import Run
from wm_jax.run.metrics import Metrics, read_metrics
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import plain, to_json


def test_going_on_with_other_settings_names_both(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock():
        stage.claim({"beta": 1.0, "size": (1, 2)}, {"replays": "abc"}, {})
        (stage.path / "checkpoints").mkdir()
        stage.claim({"beta": 1.0, "size": (1, 2)}, {"replays": "abc"}, {})
        with pytest.raises(UserError, match=r"made with beta 1.0, but now it is 4.0.*run train_vae anew"):
            stage.claim({"beta": 4.0, "size": (1, 2)}, {"replays": "abc"}, {})
        with pytest.raises(
            UserError, match=r"made with replays abc, but now it is xyz: restore it, or use another run"
        ):
            stage.claim({"beta": 1.0, "size": (1, 2)}, {"replays": "xyz"}, {})


def test_fresh_moves_aside_what_it_makes_anew_and_loses_nothing(tmp_path: Path) -> None:
    for stage in (Run(tmp_path).stage("vae"), Run(tmp_path).stage("memory")):
        with stage.lock():
            stage.claim({"beta": 1.0}, {}, {})
            (stage.path / "precious").write_text(f"weights of {stage.name}")
            stage.write_summary({"steps": 3})
    run, other = (Run.open(tmp_path, anew=["controller", "vae", "memory"]) for _ in range(2))
    assert run.anew == ["vae", "memory"], "of the controller, nothing is there"
    # What is to start anew counts as not there, whatever made it, and stays where it is until it is claimed.
    vae, memory = run.stage("vae"), run.stage("memory")
    assert vae.manifest() is None and memory.summary() is None
    vae.check({"beta": 4.0}, {})
    assert (tmp_path / "vae" / "precious").exists()
    with Run(tmp_path).stage("memory").lock(), vae.lock(), pytest.raises(UserError, match="memory is being written"):
        vae.claim({"beta": 4.0}, {}, {})
    assert (tmp_path / "vae" / "precious").exists()
    with vae.lock():
        vae.claim({"beta": 4.0}, {}, {})
    discarded = sorted((tmp_path / "discarded").iterdir())
    assert [path.name.split("-")[0] for path in discarded] == ["memory", "vae"]
    assert [(path / "precious").read_text() for path in discarded] == ["weights of memory", "weights of vae"]
    manifest = Run(tmp_path).stage("vae").manifest()
    assert manifest is not None and manifest["settings"] == {"beta": 4.0} and memory.manifest() is None
    # A read depends on what lies there, and not on who has claimed it: the same for a record that was made before.
    assert other.stage("vae").manifest() == manifest and other.anew == run.anew == []
    with other.stage("vae").lock():
        other.stage("vae").claim({"beta": 4.0}, {}, {})
    assert len(list((tmp_path / "discarded").iterdir())) == 2


def test_a_stage_that_made_nothing_may_be_begun_with_other_settings(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock():
        stage.claim({"latent": 10**9}, {}, {})
        (stage.path / "metrics.jsonl").write_text("")
        stage.claim({"latent": 32}, {}, {})
        manifest = stage.manifest()
        assert manifest is not None and manifest["settings"] == {"latent": 32}
        (stage.path / "checkpoints").mkdir()
        with pytest.raises(UserError, match="made with latent 32, but now it is 8"):
            stage.claim({"latent": 8}, {}, {})


def test_fresh_twice_in_one_second_keeps_both(tmp_path: Path) -> None:
    for _ in range(3):
        stage = Run.open(tmp_path, anew=["vae"]).stage("vae")
        with stage.lock():
            stage.claim({}, {}, {})
    assert len(list((tmp_path / "discarded").iterdir())) == 2


@pytest.mark.parametrize("content", ["[]", "{}", '{"settings": 3}', '{"steps": 5, "checksum": "0"}', "{", "null"])
@pytest.mark.parametrize("name", ["stage.json", "summary.json"])
def test_a_damaged_record_is_found(name: str, content: str, tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock():
        stage.claim({"beta": 1.0}, {}, {})
        stage.write_summary({"steps": 5})
    assert stage.summary() == {"steps": 5}
    (stage.path / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} is damaged.*run train_vae anew"):
        stage.manifest() if name == "stage.json" else stage.summary()


def test_a_lost_record_is_found(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock():
        stage.claim({"beta": 1.0}, {}, {})
        (stage.path / "metrics.jsonl").write_text("")
        (stage.path / "stage.json").unlink()
        with pytest.raises(UserError, match=r"has lost its stage.json.*run train_vae anew"):
            stage.claim({"beta": 1.0}, {}, {})


def test_figures_that_are_not_numbers_are_null(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock():
        stage.write_summary({"loss": float("nan"), "best": float("-inf"), "steps": 5})
    assert stage.summary() == {"loss": None, "best": None, "steps": 5}


def test_a_stage_has_one_worker(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("vae")
    with stage.lock(), pytest.raises(UserError, match=f"being written by process {os.getpid()}"), stage.lock():
        pass
    with stage.lock():
        pass


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    tree = {"w": np.random.default_rng(0).random(5000).astype(np.float32)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, tree, {"note": "first"})
    checkpoints.save(2, {"w": tree["w"] + 1}, {"note": "second"})
    files = [
        path for path in (tmp_path / "checkpoints" / "2").rglob("*") if path.is_file() and path.stat().st_size > 9000
    ]
    assert files, "the array's bytes are somewhere"
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    found = Checkpoints(tmp_path / "checkpoints").restore(tree)
    assert found is not None
    step, restored, about = found
    assert (step, about["note"]) == (1, "first")
    np.testing.assert_array_equal(restored["w"], tree["w"])


def test_training_goes_on_over_a_damaged_or_repeated_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"w": np.arange(5000, dtype=np.float32)})
    checkpoints.save(2, {"w": np.arange(5000, dtype=np.float32) + 1})
    # Stopped between a save and what comes after it: the same step is saved again.
    checkpoints.save(2, {"w": np.arange(5000, dtype=np.float32) + 2})
    found = Checkpoints(tmp_path / "checkpoints").restore({"w": np.zeros(5000, np.float32)})
    assert found is not None and found[0] == 2 and found[1]["w"][0] == 2
    for path in (tmp_path / "checkpoints" / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    again = Checkpoints(tmp_path / "checkpoints")
    found = again.restore({"w": np.zeros(5000, np.float32)}, mend=True)
    assert found is not None and found[0] == 1
    again.save(2, {"w": np.arange(5000, dtype=np.float32) + 3})
    found = Checkpoints(tmp_path / "checkpoints").restore({"w": np.zeros(5000, np.float32)})
    assert found is not None and found[1]["w"][0] == 3


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float16", "bool", "uint8"])
def test_arrays_of_any_type_come_back(kind: str, tmp_path: Path) -> None:
    tree = {"w": jnp.arange(12).reshape(3, 4).astype(kind), "scalar": jnp.ones((), kind)}
    digest = Checkpoints(tmp_path).save(1, tree)
    found = Checkpoints(tmp_path).restore(tree)
    assert found is not None and found[2]["digest"] == digest
    for name, array in tree.items():
        assert found[1][name].dtype == array.dtype
        np.testing.assert_array_equal(found[1][name].astype(np.float32), np.asarray(array).astype(np.float32))
    assert digest != digest_of({**tree, "scalar": np.zeros((), tree["w"].dtype)})


def test_digests_are_what_they_were() -> None:
    """Those of weights on disk."""
    tree = {"b": np.float32(2), "w": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    assert digest_of(tree) == "978cf06579bb09cb8da7d1cd480a5686"


def test_random_keys_come_back(tmp_path: Path) -> None:
    tree = {"key": jax.random.key(3), "several": jax.random.split(jax.random.key(4, impl="rbg"), 2)}
    Checkpoints(tmp_path).save(1, tree)
    found = Checkpoints(tmp_path).restore(jax.tree.map(jnp.zeros_like, tree))
    assert found is not None
    for name, key in tree.items():
        assert found[1][name].dtype == key.dtype
        np.testing.assert_array_equal(jax.random.key_data(found[1][name]), jax.random.key_data(key))


def test_a_save_leaves_no_thread_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a manager of Orbax's, which may have some."""
    closed: list[bool] = []

    class Watched(ocp.CheckpointManager):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.place = len(closed)
            closed.append(False)
            super().__init__(*args, **options)

        def close(self) -> None:
            super().close()
            closed[self.place] = True

    monkeypatch.setattr(ocp, "CheckpointManager", Watched)
    before = set(threading.enumerate())
    kept = [Checkpoints(tmp_path / name) for name in ("checkpoints", "weights")]
    for checkpoints in kept:
        checkpoints.save(1, {"w": np.zeros(7, np.float32)})
    assert closed and all(closed)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # of a loop that has been closed, and ends by itself
        assert not thread.is_alive(), thread


def test_arrays_of_other_sizes_are_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"w": np.zeros(7, np.float32)})
    with pytest.raises(UserError, match="other sizes"):
        checkpoints.restore({"w": np.zeros(5, np.float32)})


def test_arrays_of_other_names_are_refused_and_stay_where_they_are(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"w": np.zeros(7, np.float32)})
    for _ in range(2):
        with pytest.raises(UserError, match="other sizes or names"):
            Checkpoints(tmp_path / "checkpoints").restore({"v": np.zeros(7, np.float32)}, mend=True)
    assert checkpoints.steps() == [1] and not (tmp_path / "checkpoints-replaced").exists()


def test_readers_leave_everything_where_it_is(tmp_path: Path) -> None:
    """A save of another process may be under way; and only who holds the lock may move what is damaged."""
    folder, tree = tmp_path / "weights", {"w": np.zeros(7, np.float32)}
    Checkpoints(folder).save(1, tree)
    Checkpoints(folder).save(2, tree)
    for path in (folder / "2" / "tree").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    foreign = folder / "3.orbax-checkpoint-tmp"
    (foreign / "tree").mkdir(parents=True)
    reader = Checkpoints(folder)
    found = reader.restore(tree)
    assert found is not None and found[0] == 1
    assert reader.steps() == [1, 2] and reader.about() is not None and not reader.holds("another digest", tree)
    assert foreign.exists() and (folder / "2").exists()
    assert Checkpoints(folder).restore(tree, mend=True) is not None
    assert reader.steps() == [1] and len(list((tmp_path / "weights-replaced").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"digest": 3}'])
def test_a_damaged_record_of_a_checkpoint_is_found(content: bytes, tmp_path: Path) -> None:
    tree = {"w": np.zeros(7, np.float32)}
    Checkpoints(tmp_path / "weights").save(1, tree)
    for path in (tmp_path / "weights" / "1" / "about").rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    with pytest.raises(DamagedCheckpoints):
        Checkpoints(tmp_path / "weights").about()
    for _ in range(2):  # every time, not only at first
        with pytest.raises(DamagedCheckpoints, match="is intact"):
            Checkpoints(tmp_path / "weights").restore(tree, mend=True)


def test_seconds_of_all_processes_count(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("latents")
    with stage.lock():
        stage.write_record("seconds.json", {"seconds": 100.0})
        with pytest.raises(KeyboardInterrupt), stage.timed() as watch:
            assert watch.seconds() >= 100.0
            raise KeyboardInterrupt
        with stage.timed() as watch:
            assert 100.0 <= watch.seconds() < 110.0
        (stage.path / "seconds.json").write_text("torn")
        with stage.timed() as watch:
            assert watch.seconds() < 10.0


def test_no_intact_checkpoint_is_an_error(tmp_path: Path) -> None:
    tree = {"w": np.zeros(10, np.float32)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(tree) is None
    checkpoints.save(1, tree)
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* is intact"):
        Checkpoints(tmp_path / "checkpoints").restore(tree)


def test_torn_metrics_are_read_up_to_the_tear(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write(1, loss=0.5)
        metrics.write(2, loss=0.25)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    with Metrics(tmp_path, resume_at=1) as metrics:
        metrics.write(2, loss=0.125)
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 0.5), (2, 0.125)]


def test_streams_are_named_and_independent() -> None:
    assert streams.integer(0, "collect", 1) == streams.integer(0, "collect", 1)
    numbers = {streams.integer(seed, name, i) for seed in range(5) for name in ("a", "b") for i in range(50)}
    assert len(numbers) == 500
    assert streams.integer(0, "a", 11) != streams.integer(0, "a1", 1)
    np.testing.assert_array_equal(streams.generator(3, "x").random(4), streams.generator(3, "x").random(4))


def test_clock() -> None:
    assert [clock(s) for s in (3.2, 185, 7620)] == ["3s", "3m05s", "2h07m"]


def strict(text: str) -> Any:
    """Parse as every other parser does: NaN and Infinity are no JSON."""

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null_in_every_file(tmp_path: Path) -> None:
    bad = {"nan": math.nan, "inf": -math.inf, "numpy": np.float32(0.5), "array": np.arange(2), "path": Path("a")}
    as_read = {"nan": None, "inf": None, "numpy": 0.5, "array": [0, 1], "path": "a"}
    assert plain(bad) == strict(to_json(bad)) == as_read
    with Metrics(tmp_path) as metrics:
        metrics.write(1, loss=math.nan, best=math.inf, mean=float(np.float32(0.5)))
    path = tmp_path / "metrics.jsonl"
    (row,) = (strict(line) for line in path.read_text().splitlines())
    assert row == {"step": 1, "time": row["time"], "loss": None, "best": None, "mean": 0.5}
    # An earlier version wrote the first of these lines; a crash tore the others.
    path.write_text('{"step": 1, "loss": NaN, "best": -Infinity}\n12\n{"time": 1}\n{"step": 2')
    assert read_metrics(path) == [{"step": 1, "loss": None, "best": None}]
    with Metrics(tmp_path, resume_at=1):
        assert strict(path.read_text()) == {"step": 1, "loss": None, "best": None}
    stage = Run(tmp_path / "run").stage("vae")
    with stage.lock():
        stage.write_summary(bad)
        stage.checkpoints.save(1, {"w": np.zeros(2, np.float32)}, bad)
    assert stage.summary() == as_read
    found = (stage.checkpoints.about() or {}) | {"digest": "", "layout": ""}
    assert found == as_read | {"digest": "", "layout": ""}
    for written in tmp_path.rglob("*"):
        if written.is_file() and b"nan" in (content := written.read_bytes()):
            strict(content.decode())


def finish(run: Run, *names: str) -> None:
    """Make these artifacts, as far as their records go."""
    for name in names:
        with run.stage(name).lock():
            run.stage(name).write_summary({"steps": 1})


def test_what_a_run_does_not_make_is_taken_from_its_base(tmp_path: Path) -> None:
    """But nothing that was made from other things than its own."""
    base = Run(tmp_path / "base")
    finish(base, "replays", "vae", "latents", "memory")
    run = Run.open(tmp_path / "run", tmp_path / "base", makes=["vae"])
    places = {name: run.stage(name).run.path.name for name in ("replays", "vae", "latents", "memory", "controller")}
    assert places == {"replays": "base", "vae": "run", "latents": "run", "memory": "run", "controller": "run"}
    finish(run, "vae")
    again = Run.open(tmp_path / "run")
    assert again.stage("replays").summary() == {"steps": 1} and again.stage("latents").summary() is None
    assert again.stage("vae").path == tmp_path / "run" / "vae"
    later = Run.open(tmp_path / "later", tmp_path / "run")
    assert later.stage("replays").path.resolve() == tmp_path / "base" / "replays"
    assert later.stage("vae").path.resolve() == tmp_path / "run" / "vae"
    # Both may be moved, as long as they stay together.
    (tmp_path / "elsewhere").mkdir()
    for name in ("base", "run"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert Run.open(tmp_path / "elsewhere" / "run").stage("replays").summary() == {"steps": 1}


def test_bases_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"base .*nowhere: there is no such run"):
        Run.open(tmp_path / "run", tmp_path / "nowhere")
    finish(Run(tmp_path / "one"), "replays")
    finish(Run.open(tmp_path / "two", tmp_path / "one", makes=["vae"]), "vae")
    with pytest.raises(UserError, match=r"two was begun with .*one; leave it out"):
        finish(Run(tmp_path / "three"), "replays")
        Run.open(tmp_path / "two", tmp_path / "three")
    with pytest.raises(UserError, match=r"is built on .*one itself"):
        Run.open(tmp_path / "one", tmp_path / "two")
    with pytest.raises(UserError, match=r"is built on .*one itself"):
        Run.open(tmp_path / "one", tmp_path / "one")
    (tmp_path / "two" / "base.json").write_text("{}")
    with pytest.raises(UserError, match=r"base.json.*checksum"):
        Run.open(tmp_path / "two")
