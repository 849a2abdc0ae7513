"""Being asked to stop: what a signal does and leaves alone, in the main thread and in others."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wm_jax import cli
from wm_jax.run import interrupt
from wm_jax.run.interrupt import Interrupted, graceful_stop

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Handlers as a program finds them that is started in the foreground, whatever this one inherited."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def eventually(condition: Any) -> bool:
    until = time.monotonic() + 10
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.005)
    return found


def test_the_first_asks_and_the_second_acts_as_usual(capsys: pytest.CaptureFixture[str]) -> None:
    with graceful_stop() as stop:
        stop.check()
        os.kill(os.getpid(), signal.SIGINT)
        assert eventually(lambda: stop.requested) and stop.agreed()
        with pytest.raises(Interrupted):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
    assert capsys.readouterr().err == "stopping at the next safe point (once more to stop at once)\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert "signals" not in [thread.name for thread in threading.enumerate()]


def test_a_handler_says_nothing_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run in the middle of what the same thread says, for whose lock it would wait for ever."""
    said, lock = [], threading.Lock()

    def say(line: str, **_: bool) -> None:
        assert lock.acquire(timeout=5), "nobody lets go of the lock"
        said.append(threading.current_thread().name)
        lock.release()

    monkeypatch.setattr(interrupt, "log", say)
    with graceful_stop() as stop:
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
            assert eventually(lambda: stop.requested) and said == []
        assert eventually(lambda: said == ["signals"])


def test_after_one_signal_the_other_acts_too() -> None:
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert eventually(lambda: stop.requested)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)


def test_nobody_waits_for_words_that_cannot_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(interrupt, "log", lambda line, **_: done.wait(30))
    monkeypatch.setattr(interrupt, "SPEAK_S", 0.1)
    began = time.monotonic()
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert eventually(lambda: stop.requested)
    assert time.monotonic() - began < 10
    done.set()


def test_what_is_ignored_stays_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    """As in a job that a script started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert eventually(lambda: stop.requested)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert capsys.readouterr().err.count("stopping") == 1


def in_thread(work: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(60)
    assert found, "the thread raised"
    return found[0]


def test_in_another_thread_signals_are_the_callers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)

    def stopped() -> bool:
        with graceful_stop() as stop:
            assert signal.getsignal(signal.SIGINT) is before
            return stop.requested

    assert in_thread(stopped) is False
    words = ["--game", "chaser", "--run", str(tmp_path / "x")]
    # It gets as far as opening the store, which is not there; and a command with a main of its own as far as its words.
    assert in_thread(lambda: cli.main(["collect", "verify", *words])) == 1
    assert "bin/collect" in capsys.readouterr().err
    assert in_thread(lambda: cli.main(["doctor", "--nonsense"])) == 2
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --nonsense")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_job_in_the_background_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    words = ["collect", "--game", "chaser", "--preset", "smoke", "--collect.episodes", "2", "--run", str(tmp_path)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "wm_jax", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and "stopping" not in said
