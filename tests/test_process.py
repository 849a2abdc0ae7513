"""Settings of the whole process: the compilation cache and its folder, and what belongs to the user."""

import os
import subprocess
import sys
from pathlib import Path

from wm_jax import process

ROOT = Path(__file__).resolve().parent.parent

COMPILE = """
from wm_jax import process
process.prepare()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: jax.lax.scan(lambda c, _: (jax.numpy.tanh(c @ x), None), x, None, length=9)[0].sum())(
    jax.numpy.ones((64, 64))))
"""


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*-cache") if path.is_file()}


def test_programs_are_compiled_once_and_loaded_in_silence(tmp_path: Path):
    kept = ("JAX_", "MPL")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    answers = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", COMPILE], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        answers.append((done.stdout, files(tmp_path / "wm_jax" / "xla" / process.processor())))
    assert answers[0] == answers[1] and answers[0][1]


def test_the_cache_folder_falls_back_when_home_cannot_be_written(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert process.cache_folder() == tmp_path / "home" / ".cache" / "wm_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert process.cache_folder() == tmp_path / "xdg" / "wm_jax"
    file = tmp_path / "file"
    file.touch()
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(file))
    monkeypatch.setattr(process.tempfile, "gettempdir", lambda: str(tmp_path))
    shared = tmp_path / f"wm_jax-{os.getuid()}"
    assert process.cache_folder() == shared
    assert shared.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(process.tempfile, "gettempdir", lambda: str(file))
    assert process.cache_folder() is None


def test_a_folder_that_somebody_else_made_is_not_trusted(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    me = os.getuid()
    monkeypatch.setattr(process.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(process.os, "getuid", lambda: me + 1)
    assert process.cache_folder() is None


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    process.prepare.__wrapped__()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not process.keep_freed_memory()
