"""Collects the packages that the report needs on a machine without a network, as wheels in a folder.

    .venv/bin/python -m wm_jax.tools.benchmark.accelerator.wheels FOLDER

There, beside the checkout, with Python 3.12 and the packages of `GIVEN`:

    python3 -m pip install --no-index --no-deps --target SITE FOLDER/*.whl
    PYTHONPATH=SITE:CHECKOUT python3 -P -m wm_jax benchmark --accelerator-report OUT

Standard library only.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

GIVEN = ("jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "torch")
"""Packages that are on such a machine, with all that they need themselves."""
CARRIED = (
    *("evosax", "jaxtyping", "wadler-lindig"),
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions"),
    *("tensorboardx", "packaging", "tqdm", "pillow", "safetensors"),
)
"""What is imported beside them, by the names of constraints.txt. Dependencies that nobody imports are left out."""
PYTHON = "3.12"
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17, 5)), "manylinux2014_x86_64")
MOST_MB = 55
CONSTRAINTS = Path(__file__).resolve().parents[4] / "constraints.txt"


def requirements(constraints: str) -> list[str]:
    """NAME==VERSION of all that is carried.

    Args:
      constraints: the text of constraints.txt.

    Raises:
      ValueError: one has no version there.
    """
    pins = dict(re.findall(r"^([a-z0-9-]+)(==[^ \n]+)", constraints, re.MULTILINE))
    if missing := [name for name in CARRIED if name not in pins]:
        raise ValueError(f"constraints.txt: no version of {', '.join(missing)}; add it")
    return [name + pins[name] for name in CARRIED]


def main(words: Sequence[str]) -> int:
    """Download them into the folder that is named."""
    if len(words) != 1:
        print("usage: python -m wm_jax.tools.benchmark.accelerator.wheels FOLDER", file=sys.stderr)
        return 2
    folder = Path(words[0])
    options = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    options += [word for platform in PLATFORMS for word in ("--platform", platform)]
    wanted = requirements(CONSTRAINTS.read_text())
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", str(folder), *wanted]
    if status := subprocess.run(command).returncode:
        return status
    found = sorted(folder.glob("*.whl"))
    size = sum(file.stat().st_size for file in found) / 1e6
    print(f"{folder}: {len(found)} wheels, {size:.1f} MB")
    if size > MOST_MB:
        print(f"error: more than {MOST_MB} MB: empty the folder, or carry less", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
