"""doctor: what works on this machine, and the remedy for what does not.

Whatever could crash or hang (drivers, emulators, encoders) is tried in a process of its own, so that one failure
hides no other. This process imports neither JAX nor a game.
"""

import argparse
import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from wm_jax.config.layers import load
from wm_jax.envs.names import family_of
from wm_jax.utils import process
from wm_jax.utils.arguments import Parser
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import to_json
from wm_jax.utils.sizes import FRAME

_GAME_SECONDS = 90
_JAX_SECONDS = 180  # a first start on a GPU or TPU machine can be slow
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_MEMORY_NEEDED_GB = 4
_DISK_NEEDED_GB = 5
_NVIDIA = Path("/dev/nvidia0").exists()
_PLATFORMS = os.environ.get("JAX_PLATFORMS")
_REINSTALL = "remove .venv and start any command of bin/ again, or install the versions of constraints.txt"
_START_JAX = f"unset JAX_PLATFORMS, which is {_PLATFORMS} here; or {_REINSTALL}" if _PLATFORMS else _REINSTALL


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    ok: bool
    detail: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where nothing has to be done."""
    essential: bool = True
    """Does nothing work without it?"""


def main(arguments: Sequence[str] = ()) -> int:
    """Print the report; 1 if something essential fails."""
    parser = Parser(prog="bin/doctor", description="Says what works on this machine.")
    parser.add_argument("--json", action="store_true", help="print the checks as the last line of standard output")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)  # taken by every command
    options = parser.parse_args(arguments)
    checks = run(report=_print)
    failed = [check for check in checks if not check.ok]
    print(f"\n{len(checks) - len(failed)} of {len(checks)} checks are well." if failed else "\nAll is well.")
    if options.json:
        print(to_json([asdict(check) for check in checks]))
    return int(any(check.essential for check in failed))


def run(report: Callable[[Check], None] | None = None) -> list[Check]:
    """Do every check; `report` gets each one as soon as it is known."""
    checks = []
    for check in _checks():
        checks.append(check)
        if report is not None:
            report(check)
    return checks


def _checks() -> Iterator[Check]:
    with contextlib.ExitStack() as ends:
        # All at once: most of their time is loading libraries.
        probes = [ends.enter_context(_Probe(*each)) for each in _PROBES]
        yield _python()
        yield _packages()
        yield _machine()
        yield _disk()
        yield _cache()
        for probe in probes:
            yield probe.answer()


def _python() -> Check:
    version = sys.version_info
    fits = (3, 11) <= version[:2] < (3, 14)
    return Check("Python", fits, f"{version.major}.{version.minor}.{version.micro}", "use Python 3.11, 3.12 or 3.13")


def _packages() -> Check:
    """Are the installed versions within the ranges of the package's requirements?"""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in _requirements()]
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]
    wrong = []
    for need in wanted:
        try:
            have = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            have = "missing"
        if have == "missing" or not need.specifier.contains(have, prereleases=True):
            wrong.append(f"{need.name} {have} (needs {need.specifier})")
    detail = ", ".join(wrong) or f"the {len(wanted)} that are needed, in fitting versions"
    return Check("packages", not wrong, detail, _REINSTALL)


def _requirements() -> list[str]:
    """Of the checkout that this file lies in, else of the installed package."""
    project = _PACKAGE_PARENT / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text())["project"]["dependencies"]
    return importlib.metadata.requires("wm_jax") or []


def _machine() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = _available_memory_gb()
    detail = f"{process.cores()} cores, {total:.0f} GB memory" + (
        f", {free:.0f} GB of it free" if free is not None else ""
    )
    enough = (total if free is None else free) >= _MEMORY_NEEDED_GB
    remedy = f"end other programs: less than {_MEMORY_NEEDED_GB} GB may not do; else lower --data.device_budget_gb"
    return Check("machine", enough, detail, remedy, essential=False)


def _available_memory_gb() -> float | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**20
    except OSError:
        pass
    return None


def _disk() -> Check:
    """The current folder, since `runs/` is made there."""
    free = shutil.disk_usage(".").free / 2**30
    detail = f"{free:.0f} GB free here, where runs/ is kept"
    remedy = f"free some space, or give --run on another disk: less than {_DISK_NEEDED_GB} GB may not do"
    if not os.access(".", os.W_OK):
        return Check("disk", False, "this folder can't be written", "go to another one, or give --run", essential=False)
    return Check("disk", free >= _DISK_NEEDED_GB, detail, remedy, essential=False)


def _cache() -> Check:
    process.prepare()
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not folder:
        remedy = "set XDG_CACHE_HOME to a folder that can be written: without, every start compiles everything anew"
        return Check("compilation cache", False, "no folder for it can be written", remedy, essential=False)
    path = Path(folder)
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else []
    size = sum(file.stat().st_size for file in files) / 2**20
    return Check("compilation cache", True, f"{folder}, {len(files)} files, {size:.0f} MB")


class _Probe:
    """One task of `_child`, tried in a process of its own."""

    def __init__(self, name: str, task: str, seconds: float, remedy: str, essential: bool):
        self._check = Check(name, True, "", remedy, essential)
        self._seconds = seconds
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by __exit__
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "wm_jax.tools.doctor", *task.split()],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # games have worker processes, which must end with it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._out.close()
        self._err.close()

    def answer(self) -> Check:
        """Wait for the process; what it said if it ended well, else its last words."""
        try:
            status = self._child.wait(self._seconds)
        except subprocess.TimeoutExpired:
            return replace(self._check, ok=False, detail=f"no answer within {self._seconds:.0f} s")
        if status < 0:
            return replace(self._check, ok=False, detail=f"crashed ({signal.Signals(-status).name})")
        file = self._out if status == 0 else self._err
        file.seek(0)
        words = file.read().strip().splitlines() or [f"exit status {status}, without a word"]
        return replace(self._check, ok=status == 0, detail=words[-1])


def _game_probe(name: str, game: str, which: str) -> tuple[str, str, float, str, bool]:
    remedy = f"do without such games (the others don't need them), or {_REINSTALL}"
    return name, f"{which} {game}", _GAME_SECONDS, remedy, False


_PROBES = (
    ("JAX", "jax", _JAX_SECONDS, _START_JAX, True),
    ("kernels in C", "kernels", _JAX_SECONDS, "do without them: V, M and CarRacing are slow on CPU", False),
    _game_probe("CarRacing, training", "carracing", "training"),
    _game_probe("CarRacing, official", "carracing", "official"),
    _game_probe("Atari", "enduro", "training"),
    _game_probe("Procgen", "chaser", "training"),
    _game_probe("Gymnasium by id", "gymnasium:CarRacing-v3", "training"),
    *[("GPU", "gpu", _JAX_SECONDS, f"unset JAX_PLATFORMS; update the NVIDIA driver; or {_REINSTALL}", False)] * _NVIDIA,
    ("videos", "video", _GAME_SECONDS, f"do without videos, or {_REINSTALL}", False),
)
"""Name, task, seconds, remedy, essential: one game of each family, in each implementation that it has by default."""


def _print(check: Check) -> None:
    mark = "ok  " if check.ok else "FAIL" if check.essential else "warn"
    print(f"{mark}  {check.name:<20} {check.detail}", flush=True)
    if not check.ok and check.remedy:
        print(f"      remedy: {check.remedy}", flush=True)


def _probe_jax() -> str:
    """Versions, devices, and one compiled computation with a known answer on each device."""
    import jax
    import jax.numpy as jnp

    from wm_jax.distributed.mesh import started

    devices = started()
    for device in devices:
        ones = jax.device_put(jnp.ones((64, 64), jnp.float32), device)
        found = float(jax.jit(lambda x: (x @ x).sum())(ones))
        if found != 64.0**3:
            raise UserError(f"{device} computes {found} where {64**3} is right")
    kinds = sorted({device.device_kind for device in devices})
    return f"{jax.__version__} on {len(devices)} {devices[0].platform} device(s): {', '.join(kinds)}"


def _probe_kernels() -> str:
    """Compile and load the kernels for CPU."""
    import ctypes

    from wm_jax.kernels import native

    library = native.build()
    ctypes.CDLL(str(library))
    return str(library)


def _probe_gpu() -> str:
    import jax

    if jax.default_backend() == "cpu":
        raise UserError("there is an NVIDIA GPU, but JAX does not use it")
    return f"JAX uses the {jax.default_backend().upper()}"


def _probe_game(name: str, *, official: bool) -> str:
    """Open a game, play one step, and look at the frame."""
    from wm_jax.envs.games import find
    from wm_jax.envs.make import open_pool
    from wm_jax.envs.spaces import Continuous

    game = find(name, load(name, family_of(name)).env)
    with contextlib.closing(open_pool(game, 1, official=official)) as pool:
        pool.reset([0])
        step = pool.step(game.actions.nothing(1))
    if step.frames.shape != (1, *FRAME) or step.frames.min() == step.frames.max():
        raise UserError(f"{name} opens, but its frames are empty")
    kind = "continuous actions" if isinstance(game.actions, Continuous) else "actions"
    return f"{game.title}: {game.actions.size} {kind}"


def _probe_video() -> str:
    """Encode some frames with the encoder that videos use."""
    import numpy as np

    from wm_jax.render.video import write_video

    with tempfile.TemporaryDirectory() as folder:
        video = write_video(Path(folder) / "check.mp4", [np.full(FRAME, 9 * i, np.uint8) for i in range(8)], 10.0)
    return f"MP4 by {video.encoder}"


def _child(task: str, game: str = "") -> str:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU may be busy with a run
    process.prepare()
    probes = {"jax": _probe_jax, "kernels": _probe_kernels, "gpu": _probe_gpu, "video": _probe_video}
    return probes[task]() if task in probes else _probe_game(game, official=task == "official")


if __name__ == "__main__":
    try:
        print(_child(*sys.argv[1:]))
    except Exception as error:
        sentence = str(error).strip().splitlines()
        sys.exit(f"{type(error).__name__}: {sentence[0] if sentence else ''}")
