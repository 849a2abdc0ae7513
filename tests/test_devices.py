"""Several devices and several processes: the same results as on one, and resumed with another number of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import pytest

from wm_jax.config.schema import HostsConfig
from wm_jax.distributed.mesh import open_mesh
from wm_jax.distributed.processes import check
from wm_jax.run.folder import Run
from wm_jax.run.metrics import read_metrics
from wm_jax.utils import files
from wm_jax.utils.errors import UsageError, UserError

TESTS = Path(__file__).resolve().parent
PATIENCE_S = 300
"""Far more than anything here takes."""


def start(devices: int, *words: str, **variables: str) -> subprocess.Popen[str]:
    """Python with these words and environment variables, in a process that sees so many virtual devices."""
    ours = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    environment = os.environ | variables | ours
    return subprocess.Popen(
        [sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status, and what it wrote to standard output and to standard error."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, out, err


def figures_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The last line of its output."""
    status, out, err = end(process)
    assert status == 0, err[-3000:]
    return json.loads(out.strip().split("\n")[-1])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start_two(*words: str) -> list[subprocess.Popen[str]]:
    """A command in two processes that work together."""
    together = ("--hosts.coordinator", f"localhost:{free_port()}", "--hosts.count", "2", "--hosts.index")
    return [start(1, "-P", "-m", "wm_jax", *words, *together, str(index)) for index in range(2)]


def start_two_with_slurm(*words: str) -> list[subprocess.Popen[str]]:
    """The same in what looks like two tasks of a Slurm job, where JAX finds out the rest."""
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    job["JAX_COORDINATOR_PORT"] = str(free_port())
    command = ("-P", "-m", "wm_jax", *words, "--hosts.coordinator", "auto")
    return [start(1, *command, SLURM_PROCID=str(task), SLURM_LOCALID=str(task), **job) for task in range(2)]


def evolve(run: Path, generations: int) -> tuple[str, ...]:
    """The words of a search that needs no V or M."""
    game = ("--game", "chaser", "--preset", "smoke", "--run", str(run), "--vae.width", "0.125")
    return "train_controller", *game, "--controller.world", "random", "--controller.generations", str(generations)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `many_devices.py` found in a process with eight virtual devices."""
    return figures_of(start(8, str(TESTS / "many_devices.py"), str(tmp_path_factory.mktemp("devices"))))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `two_hosts.py` found in each of two processes."""
    folder, port = tmp_path_factory.mktemp("hosts"), free_port()
    both = [start(2, str(TESTS / "two_hosts.py"), str(folder), str(port), str(index)) for index in range(2)]
    return [figures_of(process) for process in both]


@pytest.mark.parametrize("model", ["vae", "memory"])
def test_eight_devices_train_what_one_trains(figures: dict[str, Any], model: str) -> None:
    """Up to rounding: sums over the batch are made in another order."""
    assert figures[model]["moved"] > 1e-4
    assert figures[model]["eight"] < 1e-3


@pytest.mark.parametrize("model", ["vae", "memory"])
def test_training_is_resumed_with_another_number_of_devices(figures: dict[str, Any], model: str) -> None:
    assert figures[model]["resumed"] < 1e-3


def test_the_command_takes_devices(figures: dict[str, Any]) -> None:
    assert figures["command"] == 0


def test_batches_that_can_not_be_shared_evenly(figures: dict[str, Any]) -> None:
    assert figures["automatic"] == 5
    assert "devices 8: vae.batch 100 can't be shared out evenly" in figures["uneven"]


def test_devices_that_are_not_there_are_named() -> None:
    count = len(jax.devices())
    with pytest.raises(UserError, match=rf"devices {count + 1}: this machine shows JAX {count}"):
        open_mesh(count + 1, 100, "vae.batch")


def test_encoding_on_eight_devices(figures: dict[str, Any]) -> None:
    """Up to rounding: each device encodes batches of another size."""
    assert figures["encode"]["status"] == 0
    assert figures["encode"]["spread"] > 0.1
    assert figures["encode"]["eight"] < 1e-4


def test_acting_on_eight_devices(figures: dict[str, Any]) -> None:
    """Up to rounding. On CPU nothing is split by itself; what would be on accelerators, is here by force."""
    assert figures["act"]["spread"] > 1e-3
    assert figures["act"]["eight"] < 1e-5
    assert figures["rows"] == [[2] * 8, [9] * 8]


def test_processes_find_each_other(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert (found["devices"], found["own"]) == (4, 2)
        assert found["shares"] == [[0, 3], [3, 7]]
        assert found["odd"] == [None, 1]


def test_processes_drive_the_same_generated_frames(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert len(found["fresh"]) == 2 and len(set(found["fresh"])) == 1


def test_an_error_that_is_caught_leaves_processes_in_step(pair: list[dict[str, Any]]) -> None:
    for figures in pair:
        *answers, unsent, after = figures["errors"]
        assert answers == ["of process 0", "of process 1", "well"]
        assert unsent in ("AttributeError", "PicklingError") and after == [0, 1]


@pytest.mark.parametrize("how", ["vae, both", "memory, both", "memory, joined", "memory, left"])
def test_two_processes_train_what_one_trains(pair: list[dict[str, Any]], how: str) -> None:
    """Up to rounding; both of them all the time, or from half-way on, or until half-way."""
    assert pair[0]["training"][how] < 1e-3
    assert pair[0]["training"] == pair[1]["training"]


def test_two_processes_search_what_one_searches(pair: list[dict[str, Any]]) -> None:
    """Bit for bit: the whole search after every generation, and the weights at the end."""
    first, second = (found["search"] for found in pair)
    assert first["status"] == second["status"] == 0
    assert len(set(first["alone"])) == len(first["alone"]) == 3
    assert first["both"] == second["both"] == first["alone"]


def test_two_processes_encode_what_one_encodes(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        assert found["chain"] == found["encode"]["status"] == 0
        assert found["encode"]["both"] < 1e-4


def test_whichever_process_is_asked_to_stop_all_stop(tmp_path: Path) -> None:
    processes, stage = start_two(*evolve(tmp_path, 10**6)), Run(tmp_path).stage("controller")
    until = time.monotonic() + PATIENCE_S
    while not read_metrics(stage.path / "metrics.jsonl") and time.monotonic() < until:
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    for status, _, err in map(end, processes):
        assert status == 130, err[-3000:]
        assert "interrupted; the same command goes on" in err
    assert stage.checkpoints.steps()[-1] == read_metrics(stage.path / "metrics.jsonl")[-1]["step"]


def test_what_stops_one_process_is_said_by_all(tmp_path: Path) -> None:
    descriptor = files.lock(tmp_path / ".controller.lock", "it")
    first, second = map(end, start_two_with_slurm(*evolve(tmp_path, 1)))
    os.close(descriptor)
    assert first[0] == second[0] == 1
    said, heard = (err.strip().split("\n")[-1] for _, _, err in (first, second))
    assert said.endswith("or use another --run")
    assert heard == f"{said} (process 0 of 2)"


@pytest.mark.parametrize(
    "given, complaint",
    [
        ({"count": 2}, "hosts.count 2: say where process 0 is"),
        ({"coordinator": "auto", "index": 0}, "hosts.index 0: hosts.coordinator auto finds this out"),
        ({"coordinator": "node0", "count": 2, "index": 0}, "hosts.coordinator node0: give HOST:PORT"),
        ({"coordinator": "node0:1"}, "hosts.coordinator node0:1: also give hosts.count and"),
        ({"coordinator": "node0:1", "count": 2, "index": 2}, "hosts.index 2: with hosts.count 2 it is one of 0 to"),
    ],
)
def test_places_that_are_none(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        check(HostsConfig(**given))
    assert str(error.value).startswith(complaint)
