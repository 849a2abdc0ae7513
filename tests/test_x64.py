"""JAX_ENABLE_X64=1, as other programs need it in the same shell, changes nothing: all numbers keep their own types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def both() -> list[dict[str, dict[str, list]]]:
    """What `x64.py` computes without 64 bits, and with them."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", str(TESTS / "x64.py")],
            env=os.environ | {"JAX_ENABLE_X64": flag, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for flag in ("0", "1")
    ]
    said = [process.communicate() for process in processes]
    for process, (_, complaint) in zip(processes, said, strict=True):
        assert process.returncode == 0, complaint
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.parametrize("part", ["V in C", "V", "M in C", "M", "M of GRU", "car", "agent on z, h and c", "search"])
def test_64_bits_change_nothing(both: list[dict[str, dict[str, list]]], part: str) -> None:
    narrow, wide = (each[part] for each in both)
    assert not {kind for kind in wide["kinds"] if kind.endswith("64")}
    assert wide["kinds"] == narrow["kinds"]
    np.testing.assert_allclose(wide["sums"], narrow["sums"], rtol=1e-3, atol=1e-3)
