"""Settings of the whole process: the compilation cache and its folder, and what belongs to the user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wm_jax.utils import process

ROOT = Path(__file__).resolve().parent.parent

COMPILE = """
from wm_jax.utils import process
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


WRONG_WORDS = 'exec "$0" -P -m wm_jax collect --game nowhere --run "$1"'


def shell(script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of this; $0 is Python."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(["sh", "-c", script, sys.executable, *words], env=environment, capture_output=True)


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_trouble(closed: str):
    done = shell(f"{WRONG_WORDS} {closed}", "x")
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.startswith(b"error: --game nowhere: no such game") != ("2>" in closed)
    # The next file that is opened must not take the number of a stream, into which libraries in C write.
    opened = (
        "from wm_jax.utils.process import mend_streams; mend_streams(); print(open('/dev/null').fileno() > 2, file=f)"
    )
    numbers = shell(f"exec \"$0\" -c \"f = open('/dev/fd/9', 'w'); {opened}\" 9>&1 {closed}")
    assert numbers.stdout == b"True\n", numbers


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_output_that_cannot_be_written_adds_no_traceback():
    done = shell(f"{WRONG_WORDS} --json > /dev/full", "x")
    assert done.returncode == 2 and done.stderr.startswith(b"error: --game nowhere") and done.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_ends_the_command_in_silence():
    done = shell('"$0" -P -m wm_jax train_vae --help | head -n 1')
    assert done.stdout.startswith(b"usage: ") and done.stderr == b""


def test_letters_that_a_stream_cannot_hold_are_written_as_numbers():
    done = shell(WRONG_WORDS.replace("nowhere", "\u00e9"), "x", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 2 and done.stderr.startswith(b"error: --game \\xe9: no such game"), done
    said = shell(
        'exec "$0" -P -c "from wm_jax.utils.process import mend_streams; mend_streams(); print(chr(233))"',
        PYTHONIOENCODING="ascii",
    )
    assert (said.returncode, said.stdout) == (0, b"\\xe9\n")


def test_names_that_libraries_would_spell_otherwise_are_refused_at_once(tmp_path: Path):
    place = tmp_path / "\u00e9"
    words = 'exec "$0" -P -m wm_jax collect verify --game chaser --run "$1"'
    done = shell(words, str(place), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 2 and b"needs a UTF-8 locale" in done.stderr and not place.exists(), done
    done = shell(words, str(place), LC_ALL="C.UTF-8")
    assert done.returncode == 1 and b"UTF-8" not in done.stderr


@pytest.mark.parametrize("platforms", ["cuda", "nonsense"])
def test_an_accelerator_that_is_not_there_is_named(platforms: str, tmp_path: Path):
    run = tmp_path / "run"
    done = shell('exec "$0" -P -m wm_jax train_vae --game carracing --run "$1"', str(run), JAX_PLATFORMS=platforms)
    said = done.stderr.decode()
    assert done.returncode == 1 and said.startswith(f"error: JAX_PLATFORMS={platforms}: JAX can't use that"), said
    assert "unset the variable" in said and "Traceback" not in said and not run.exists()
