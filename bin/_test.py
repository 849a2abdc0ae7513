"""bin/test: ruff, pyright and pytest, each with its time. Arguments go to pytest.

`bin/test --quick` is for work on the code: without types, and without the tests that tests/slow.txt names. `bin/test
--all` runs those of tests/long.txt, too: what each auto-encoder's loss is held against, and that it learns.
"""

import importlib.util
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-P", "-m"]


def main(arguments: list[str]) -> int:
    """Run every part, also after one has failed; 1 if any has."""
    quick, whole = "--quick" in arguments, "--all" in arguments
    chosen = [] if whole else ["-m", "not slow and not long" if quick else "not long"]
    arguments = [word for word in arguments if word not in ("--quick", "--all")] + chosen
    parts = {
        "ruff check": [*PYTHON, "ruff", "check"],
        "ruff format": [*PYTHON, "ruff", "format", "--check"],
        "pytest": [*PYTHON, "pytest", *workers(arguments), *arguments],
    }
    results = []
    with ThreadPoolExecutor(1) as beside:  # the tests often wait, and leave a part of the cores idle
        types = None if quick else beside.submit(captured, [*PYTHON, "pyright", "--pythonpath", sys.executable])
        for name, command in parts.items():
            print(f"== {name}", flush=True)
            began = time.monotonic()
            status = subprocess.run(command, cwd=ROOT).returncode
            results.append((name, status, time.monotonic() - began))
    if types is not None:
        status, seconds, said = types.result()
        print(f"== pyright\n{said}", flush=True)
        results.append(("pyright", status, seconds))
    print()
    for name, status, seconds in results:
        print(f"{name:<12} {seconds:6.1f} s  {'ok' if status == 0 else f'FAILED ({status})'}")
    print(f"most memory of a process: {most_memory_gb():.1f} GB")
    return int(any(status for _, status, _ in results))


def captured(command: list[str]) -> tuple[int, float, str]:
    """Exit status, seconds, and what the command says, for a part that runs beside another one."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, time.monotonic() - began, done.stdout


def most_memory_gb() -> float:
    """Of any process that was started here and has ended."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**30


def workers(arguments: list[str]) -> list[str]:
    """Two test processes, unless the caller says otherwise or there is but one core."""
    if (os.cpu_count() or 1) < 2 or importlib.util.find_spec("xdist") is None:
        return []
    if any(word.startswith(("-n", "--numprocesses", "--pdb")) for word in arguments):
        return []
    return ["-n", "2", "--dist", "loadfile"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
