"""Worker processes of host environments: what becomes of them, and of what they opened, when something goes wrong."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from wm_jax import cli
from wm_jax.config.schema import EnvConfig
from wm_jax.envs.games import find
from wm_jax.envs.host import gymnasium
from wm_jax.envs.host.pool import EpisodePool
from wm_jax.envs.make import open_pool
from wm_jax.rollout.exploration import RandomPolicy, plan
from wm_jax.rollout.play import play
from wm_jax.rollout.recording import Recorder
from wm_jax.utils.errors import UsageError, UserError

TESTS = Path(__file__).resolve().parent
PATIENCE_S = 30

Diary = Callable[[str], list[list[str]]]


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Diary:
    """What environments have written: the rest of the lines that begin with this word."""
    path = tmp_path / "diary"
    path.touch()
    monkeypatch.setenv("WM_JAX_TEST_DIARY", str(path))

    def read(word: str) -> list[list[str]]:
        lines = [line.split() for line in path.read_text().splitlines()]
        return [rest for first, *rest in lines if first == word]

    return read


@contextlib.contextmanager
def opened(name: str, slots: int, workers: int = 2, **settings) -> Iterator[EpisodePool]:
    game = find(f"gymnasium:faulty_games:{name}-v0", EnvConfig.model_validate(settings))
    with contextlib.closing(open_pool(game, slots, workers=workers)) as pool:
        assert isinstance(pool, EpisodePool)
        yield pool


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fail rather than wait for ever."""

    def handle(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, handle)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.05)
    return held


def seeds(lines: list[list[str]]) -> list[int]:
    """Of the lines of environments that were played."""
    return sorted(int(seed) for _, seed in lines if seed != "-1")


# Closing


def test_environments_are_closed_with_their_pool(diary: Diary):
    with opened("Simulator", 3) as pool:
        pool.reset([4, 5, 6])
        children = [int(pid) for (pid,) in diary("child")][-3:]
        assert all(map(lives, children))
        assert seeds(diary("close")) == []
    assert seeds(diary("close")) == [4, 5, 6]
    assert not any(map(lives, children))


def test_environments_are_closed_when_another_one_fails(diary: Diary):
    with opened("Raises", 4) as pool:
        pool.reset([0, 1, 2, 3])
        pool.step([0] * 4)
        with pytest.raises(UserError):
            pool.step([0] * 4)
        assert seeds(diary("close")) == [0, 1, 2, 3]


def test_environments_are_closed_when_others_cannot_be(diary: Diary):
    with opened("FailsToClose", 3, workers=1) as pool:
        pool.reset([4, 5, 6])
    assert seeds(diary("close")) == [4, 5, 6]


def test_an_environment_that_is_only_described_is_closed(diary: Diary):
    with pytest.raises(UsageError, match="actions are MultiBinary"):
        find("gymnasium:faulty_games:Undescribed-v0", EnvConfig())
    assert len(diary("close")) == 1


def test_workers_are_closed_when_one_cannot_be_started(diary: Diary, monkeypatch: pytest.MonkeyPatch):
    started, start = [], subprocess.Popen

    def popen(*words, **more):
        if started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(start(*words, **more))
        return started[0]

    monkeypatch.setattr(gymnasium.subprocess, "Popen", popen)
    said = r"worker 1 can't be started \(Resource temporarily unavailable\).*env\.threads"
    with pytest.raises(UserError, match=said), opened("Quiet", 2):
        pass
    assert started[0].poll() is not None


PARENT = """
import contextlib, sys, time
from wm_jax.config.schema import EnvConfig
from wm_jax.envs.games import find
from wm_jax.envs.host import gymnasium
from wm_jax.envs.make import open_pool

name, action, gymnasium.GRACE_S = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
pool = open_pool(find(f"gymnasium:faulty_games:{name}-v0", EnvConfig()), 2, workers=2)
pool.reset([4, 5])
pool.send([0], [action])
print("ready", flush=True)
time.sleep(1000)
"""


@contextlib.contextmanager
def parent(*words: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened a pool and stepped one of its two slots."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PARENT, *map(str, words)],
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_environments_are_closed_when_the_parent_dies(number: signal.Signals, diary: Diary):
    with parent("Simulator", 0, 60) as process:
        children = [int(pid) for (pid,) in diary("child")][-2:]
        process.send_signal(number)
        assert eventually(lambda: seeds(diary("close")) == [4, 5])
        assert eventually(lambda: not any(map(lives, children)))


def test_environments_are_closed_when_a_command_is_stopped(diary: Diary, tmp_path: Path):
    words = ["collect", "--game", "gymnasium:faulty_games:Quiet-v0", "--preset", "smoke", "--env.threads", "2"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "wm_jax", *words, "--run", str(tmp_path / "run"), "--collect.episodes", "9999"],
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        stderr=subprocess.PIPE,
    )
    assert eventually(lambda: len(diary("open")) > 0)
    process.terminate()
    assert process.communicate()[1].splitlines()[-1].startswith(b"interrupted; the same command goes on")
    assert process.returncode == 130
    assert len(seeds(diary("close"))) == len(diary("open"))
    assert not any(lives(int(pid)) for pid, _ in diary("open"))


@pytest.mark.parametrize(("name", "stuck"), [("Simulator", 1), ("HangsInClose", 0)])
def test_nothing_outlives_the_parent_whatever_it_does(name: str, stuck: int, diary: Diary):
    """One is stuck in C and holds Python's lock; the other closes its environment, or tries to."""
    with parent(name, stuck, 0.5) as process:
        assert eventually(lambda: len(diary("stuck")) == stuck)
        processes = [int(pid) for pid, _ in diary("open")] + [int(pid) for (pid,) in diary("child")][-2:]
        assert all(map(lives, processes)) and len(processes) == (4 if stuck else 2)
        process.kill()
        process.wait()
        assert eventually(lambda: not any(map(lives, processes)))
        assert 5 in seeds(diary("close"))


def test_signals_to_all_processes_are_the_parents(diary: Diary):
    """As resource managers send them. Whoever asked for the pool closes it when it is time."""
    with opened("Simulator", 2) as pool:
        pool.reset([4, 5])
        workers = [int(pid) for pid, _ in diary("open")]
        guards = [worker.process.pid for worker in engine(pool)._workers]
        for number in (signal.SIGTERM, signal.SIGINT):
            for process in (*workers, *guards):
                os.kill(process, number)
            np.testing.assert_array_equal(pool.step([0, 0]).truncated, False)
    assert seeds(diary("close")) == [4, 5]


def test_a_worker_that_cannot_be_closed_is_killed_with_what_it_started(diary: Diary, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gymnasium, "GRACE_S", 0.5)
    with opened("Simulator", 2) as pool:
        pool.reset([4, 5])
        pool.send([0, 1], [1, 0])
        assert eventually(lambda: len(diary("stuck")) == 1)
        processes = [int(pid) for pid, _ in diary("open")] + [int(pid) for (pid,) in diary("child")][-2:]
    assert not any(map(lives, processes))
    assert seeds(diary("close")) == [5]


def engine(pool: EpisodePool) -> gymnasium.GymnasiumEngine:
    assert isinstance(pool._engine, gymnasium.GymnasiumEngine)
    return pool._engine


# The limit of time


def test_a_step_that_takes_too_long_is_named(diary: Diary):
    with at_most(PATIENCE_S), opened("HangsInC", 4, timeout=1.5) as pool:
        pool.reset([0, 2, 4, 7])
        pool.step([0] * 4)
        with pytest.raises(
            UserError,
            match=r"^gymnasium:faulty_games:HangsInC-v0: the environment of seed 7 .* 1\.5 s in step; .*env.timeout",
        ) as caught:
            pool.step([0] * 4)
    assert "faulty_games.py" in caught.value.details and "in step" in caught.value.details
    assert seeds(diary("close")) == [0, 4]
    assert not any(lives(int(pid)) for pid, _ in diary("open"))


def test_a_reset_that_takes_too_long_is_named(diary: Diary):
    with at_most(PATIENCE_S), opened("HangsInReset", 2, timeout=1.5) as pool:
        pool.reset([4, 5])
        pool.restart([1], [6])
        with pytest.raises(UserError, match=r"seed 6 has not answered for 1\.5 s in reset"):
            pool.recv()
    said = r"seed 9 has not answered for 1\.5 s in opening or reset"
    with at_most(PATIENCE_S), opened("HangsInReset", 2, timeout=1.5) as pool, pytest.raises(UserError, match=said):
        pool.reset([8, 9])


def test_time_in_which_nobody_waits_does_not_count(diary: Diary):
    """While the caller is busy, answers lie there, or a worker can't get rid of them."""
    with opened("Quiet", 2, workers=1, timeout=1.0) as pool:
        pool.reset([4, 5])
        for _ in range(2):
            pool.send([0, 1], [0, 0])
            time.sleep(1.3)
            assert len(pool.recv().ids) + len(pool.recv().ids) == 2
        time.sleep(1.3)
        pool.step([0, 0])


def test_without_a_limit_it_may_take_any_time(diary: Diary, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gymnasium, "GRACE_S", 0.1)
    monkeypatch.setattr(gymnasium, "LOOK_S", 0.01)
    with opened("HangsInReset", 1, timeout=0) as pool, pytest.raises(TimeoutError), at_most(2):
        pool.reset([9])
    assert "timeout" not in EnvConfig().fixed()


# Workers that die


def test_a_worker_that_dies_is_replaced_and_its_episodes_are_cut_short(
    diary: Diary, capsys: pytest.CaptureFixture[str]
):
    with opened("Crashes", 4) as pool:
        pool.reset([0, 1, 2, 3])
        for _ in range(2):
            before = pool.step([0] * 4)
        assert capsys.readouterr().err == ""
        after = pool.step([0] * 4)
        np.testing.assert_array_equal(after.truncated, [False, True, False, True])
        np.testing.assert_array_equal(after.lost, after.truncated)
        np.testing.assert_array_equal(after.reward, [3, 0, 3, 0])
        np.testing.assert_array_equal(after.frames[1::2], before.frames[1::2])
        assert not after.terminated.any()
        (line,) = capsys.readouterr().err.splitlines()
        for part in ("Crashes-v0: ", "worker 1 died", "-11 (SIGSEGV): simulator: assertion failed", "1 of at most 5"):
            assert part in line
        # The slots go on, with other episodes.
        pool.restart([1, 3], [7, 8])
        begun = {}
        while len(begun) < 2:
            answer = pool.recv()
            assert not answer.truncated.any()
            begun |= dict(zip(answer.ids.tolist(), answer.frames[:, 0, 0, 1].tolist(), strict=True))
        assert begun == {1: 7, 3: 8}
        last = pool.step([0] * 4)
        np.testing.assert_array_equal(last.reward, [4, 1, 4, 1])
        assert not last.truncated.any()
    assert {0, 2, 7, 8} <= set(seeds(diary("close")))


def test_episodes_that_nobody_was_stepping_are_cut_short_too(diary: Diary):
    with opened("Crashes", 2, workers=1) as pool:
        pool.reset([1, 4])
        for step in range(3):
            pool.send([0], [0])
            answer = pool.recv()
            assert answer.truncated == answer.lost == (step == 2)
        pool.send([1], [0])
        lost = pool.recv()
        assert lost.ids == [1] and lost.truncated and lost.lost and lost.reward == 0
        np.testing.assert_array_equal(lost.frames[0, 0, 0], (0, 4, 0))
        np.testing.assert_array_equal(pool.reset([4, 1])[:, 0, 0, 1], (4, 1))


def test_what_is_lost_is_played_again_and_nobody_can_tell(diary: Diary):
    """Neither from the returns nor from the recordings: of the episode that died, and of the one beside it."""
    asked = [0, 1, 2, 3, 4, 5]
    with opened("CrashesOnce", 4) as pool:
        policy = RandomPolicy("uniform", pool.game.actions, asked, 9)
        shown: list[int] = []
        recorder = Recorder(policy, len(asked), 3, 9, ended=lambda frames, steps: shown.append(steps))
        played = play(pool, asked, recorder, watch=recorder.watch)
    assert len(diary("crash")) == 1
    np.testing.assert_array_equal(played.returns, 15)
    np.testing.assert_array_equal(played.lengths, 5)
    assert shown == [5] * 6
    for seed, recording in zip(asked, recorder.recordings, strict=True):
        (episode,) = recording.episodes(seed)
        assert episode.frames[:, 0, 0].tolist() == [[step, seed, 0] for step in range(6)]
        assert not episode.truncated.any() and episode.terminated.tolist() == 4 * [False] + [True]
        np.testing.assert_array_equal(episode.actions, plan("uniform", pool.game.actions, seed, 9, 8.0)[:5])


def test_workers_that_always_die_are_given_up(diary: Diary, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gymnasium, "RESTARTS", 1)
    with (
        opened("Crashes", 2) as pool,
        pytest.raises(UserError, match=r"died 2 times, the last with exit code -11 \(SIGSEGV\): simulator: a") as e,
    ):
        pool.reset([4, 100])
    assert "memory" not in str(e.value) and "mend the environment" in str(e.value) and "first line" in e.value.details


def test_memory_is_blamed_where_the_kernel_may_have_taken_it(diary: Diary, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gymnasium, "RESTARTS", 0)
    said = r"exit code -9 \(SIGKILL\); memory may be short: .*env\.threads"
    with opened("Eaten", 1) as pool, pytest.raises(UserError, match=said):
        pool.reset([4])


# What environments raise


def test_what_an_environment_raises_is_one_sentence_and_its_traceback_is_kept(diary: Diary):
    with opened("Raises", 2) as pool:
        pool.reset([0, 1])
        pool.step([0, 0])
        with pytest.raises(UserError) as caught:
            pool.step([0, 0])
    assert str(caught.value) == (
        "gymnasium:faulty_games:Raises-v0: the environment of seed 1 raised ConnectionResetError: the simulator is "
        "gone in step; mend it"
    )
    assert 'faulty_games.py", line' in caught.value.details and "Traceback" in caught.value.details


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("RaisesInReset", "raised SystemExit: no track in reset"),
        ("CannotOpen", "raised FileNotFoundError: no simulator here in opening"),
    ],
)
def test_where_it_raises_is_said(name: str, said: str, diary: Diary):
    with opened(name, 1) as pool, pytest.raises(UserError, match=said):
        pool.reset([3])


def test_the_command_line_shows_the_traceback_if_asked_to(
    diary: Diary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["collect", "--game", "gymnasium:faulty_games:RaisesInReset-v0", "--preset", "smoke"]
    for more, lines in (([], 1), (["--debug"], 5)):
        assert cli.main([*words, "--run", str(tmp_path / "run"), "--env.threads", "1", *more]) == 1
        shown = [line for line in capsys.readouterr().err.splitlines() if "collect gymnasium" not in line]
        assert shown[-1].startswith("error: gymnasium:faulty_games:RaisesInReset-v0: the environment of seed")
        assert len(shown) >= lines and ("raise SystemExit" in "\n".join(shown)) == bool(more)


# Orders and answers in one pipe


@pytest.mark.parametrize("tiny", [False, True], ids=["usual", "tiny"])
def test_more_orders_than_the_pipe_holds(tiny: bool, diary: Diary, monkeypatch: pytest.MonkeyPatch):
    """A worker that can't get rid of its answers does not read, and we wrote to it."""
    if tiny:
        pair = socket.socketpair

        def small() -> tuple[socket.socket, socket.socket]:
            both = pair()
            for one in both:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            return both

        monkeypatch.setattr(gymnasium.socket, "socketpair", small)
    count = 48
    with at_most(2 * PATIENCE_S), opened("Wide", count, workers=1) as pool:
        pool.reset(range(count))
        actions = np.zeros((count, 4096), np.float32)
        actions[:, -1] = np.arange(count) / 100
        for slot in range(count):
            pool.send([slot], actions[slot : slot + 1])
        pool.reset(range(count))  # what was ordered before is forgotten
        step = pool.step(actions)
    np.testing.assert_array_equal(step.frames[:, 1, 0, 0], np.arange(count))
    np.testing.assert_array_equal(step.reward, 1)


# Rewards


@pytest.mark.parametrize(("seed", "shown"), [(0, "nan"), (1, "-inf"), (2, "inf")])
def test_rewards_that_are_no_numbers_are_refused_at_their_step(seed: int, shown: str, diary: Diary):
    with opened("Rewards", 2) as pool:
        pool.reset([seed, 1])
        pool.send([0], [0])
        pool.recv()
        pool.send([0], [0])
        pool.recv()
        pool.send([0], [0])
        with pytest.raises(
            UserError, match=rf"Rewards-v0: the reward of step 3 of the episode of seed {seed} is {shown},"
        ):
            pool.recv()
