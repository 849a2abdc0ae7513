"""Several devices: the same training as on one, and resumed with another number of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from wm_jax.devices import open_mesh
from wm_jax.errors import UserError

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `many_devices.py` found in a process with eight virtual devices."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    command = [sys.executable, str(TESTS / "many_devices.py"), str(tmp_path_factory.mktemp("devices"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().split("\n")[-1])


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
    assert "--devices 8: --vae.batch 100 can't be shared out evenly" in figures["uneven"]


def test_devices_that_are_not_there_are_named() -> None:
    count = len(jax.devices())
    with pytest.raises(UserError, match=rf"--devices {count + 1}: this machine shows JAX {count}"):
        open_mesh(count + 1, 100, "--vae.batch")
