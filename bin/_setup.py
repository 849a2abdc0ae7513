"""Makes the project's own environment, `.venv`. Standard library only: this runs before anything is installed.

Called by `_launch` as `_setup.py STAMP SUM EXTRA MODULE ...`. The stamp is written last, under a lock, so that an
environment is either complete or not taken for one. The lock file says `unfinished` while the environment is being
built or changed: who finds that word when it gets the lock knows that the last one was interrupted, and starts over.
"""

import contextlib
import fcntl
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / ".venv.lock"
LOG = ROOT / ".venv.log"
BUILD_OPTIONS = {"PIP_BUILD_CONSTRAINT": "constraints.txt", "UV_BUILD_CONSTRAINT": "constraints.txt"}
EXTRAS = {
    "none": ("for the CPU", "about a minute with a fast connection: 500 MB to download, 2.3 GB on disk"),
    "cuda": ("for NVIDIA GPUs, by CUDA 12", "some minutes with a fast connection: 3 GB to download, 8 GB on disk"),
    "cuda13": ("for NVIDIA GPUs, by CUDA 13", "some minutes with a fast connection: 3 GB to download, 8 GB on disk"),
    "tpu": ("for TPUs", "about a minute with a fast connection: 700 MB to download, 3 GB on disk"),
}
SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to overwrite a line on


class SetupError(Exception):
    """One sentence for the user."""


def main(stamp: str, checksum: str, extra: str, *modules: str) -> None:
    """Make `.venv` fit the requirements, unless another process has just done so.

    Args:
      stamp: name of the file that says that the environment is complete, `.ready` or `.ready-dev`.
      checksum: of the requirements.
      extra: what JAX is wanted for.
      modules: what the commands import.
    """
    if extra not in EXTRAS:
        raise SetupError(f"WM_JAX_ACCELERATOR={extra}: no such accelerator; choose none, cuda, cuda13 or tpu")
    with locked() as lock:
        made_for = installed_extra(stamp)
        if extra == "none" and made_for in EXTRAS:
            extra = made_for  # a machine without an accelerator must not break the environment of one that has it
        wanted = f"{checksum} {extra}\n"
        if (VENV / stamp).is_file() and (VENV / stamp).read_text() == wanted and os.access(PYTHON, os.X_OK):
            return
        began = time.monotonic()
        development = stamp == ".ready-dev"
        # A whole environment is added to; the user may have made it.
        interrupted = lock.read() != ""
        # JAX refuses to start where its plug-ins for both versions of CUDA are installed.
        other_cuda = made_for != extra and {made_for, extra} <= {"cuda", "cuda13"}
        start_over = interrupted or other_cuda or not works(PYTHON)
        purpose, effort = EXTRAS[extra]
        tools = " and the development tools" if development else ""
        verb = "Setting up" if start_over else "Updating"
        say(f"{verb} {VENV.name} in {ROOT}: JAX {purpose}{tools}, Python {sys.version.split()[0]}.")
        if start_over:
            say(f"This is done once and takes {effort}.")
        write(lock, "unfinished")
        for old in (".ready", ".ready-dev"):
            (VENV / old).unlink(missing_ok=True)
        options = ["games", *(name for name in (extra, "dev" if development else "none") if name != "none")]
        build(lock, options, start_over=start_over)
        compile_modules(modules)
        for new in (".ready", stamp):
            (VENV / new).write_text(wanted)
        write(lock, "")
        say(f"Ready after {time.monotonic() - began:.0f} s.")


def installed_extra(stamp: str) -> str:
    """What the present environment was made for, or nothing."""
    for name in (stamp, ".ready"):
        with contextlib.suppress(OSError, IndexError):
            return (VENV / name).read_text().split()[1]
    return ""


@contextlib.contextmanager
def locked() -> Iterator[TextIO]:
    """Hold the lock file; says so when another process has it first."""
    try:
        lock = LOCK.open("a+")
    except OSError as error:
        raise SetupError(f"{ROOT} can't be written ({error.strerror}): use a copy in a folder of yours") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another command is setting up the environment: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        lock.seek(0)
        yield lock


def write(lock: TextIO, word: str) -> None:
    """Replace what the lock file says."""
    lock.truncate(0)
    lock.write(word)
    lock.flush()


def works(python: Path) -> bool:
    """Does this interpreter start, and is it one that we support?"""
    check = "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"
    with contextlib.suppress(OSError):
        return subprocess.run([python, "-c", check], stderr=subprocess.DEVNULL).returncode == 0
    return False


def build(lock: IO[str], options: list[str], *, start_over: bool) -> None:
    """Create the environment where there is none, and install into it, with uv where that is, else with pip."""
    if start_over:
        shutil.rmtree(VENV, ignore_errors=True)
    target = "." + (f"[{','.join(options)}]" if options else "")
    uv = shutil.which("uv")
    with LOG.open("w") as log:
        if uv:
            made = VENV.exists() or run([uv, "venv", "--seed", "--python", sys.executable, str(VENV)], lock, log) == 0
            command = [uv, "pip", "install", "--python", str(PYTHON), "-e", target, "-c", "constraints.txt"]
            if made and run(command, lock, log) == 0:
                return
            say("uv could not do it; trying pip.")
        if not VENV.exists() and run([sys.executable, "-m", "venv", str(VENV)], lock, log) != 0:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(
                f"Python can't make an environment ({last_words(log)}): install its venv module "
                f"(apt install python{version}-venv), or uv; the whole output is in {LOG.name}"
            )
        command = [str(PYTHON), "-m", "pip", "install", "--no-compile", "-e", target, "-c", "constraints.txt"]
        if run(command, lock, log) != 0:
            raise SetupError(
                f"pip could not install the packages ({last_words(log)}); mend that and start again; "
                f"the whole output is in {LOG}"
            )


def compile_modules(modules: tuple[str, ...]) -> None:
    """Compile what is used, by importing it: a tenth of the time that compiling every installed file takes.

    What can't be imported here is for `bin/doctor` to explain.
    """
    code = """if True:
        import contextlib, importlib, sys
        for name in sys.argv[1:]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [PYTHON, "-c", code, *modules],
        cwd=VENV,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run(command: list[str], lock: IO[str], log: TextIO) -> int:
    """Run a command with its output in the log and its progress on standard error; returns its exit status.

    It inherits the lock: should this process be killed, the next one waits until the command has ended, too.
    """
    log.write(f"$ {' '.join(command)}\n")
    log.flush()
    process = subprocess.Popen(
        command,
        cwd=ROOT,  # relative paths, since pip takes a space in PIP_BUILD_CONSTRAINT for a separator
        env=os.environ | BUILD_OPTIONS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[lock.fileno()],
    )
    assert process.stdout is not None
    try:
        with Progress() as progress:
            for line in lines(process.stdout.fileno(), progress):
                if "is ignored: it " in line:
                    continue  # pip's remark about an unusual configuration
                log.write(line + "\n")
                progress.note(line)
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def lines(descriptor: int, progress: "Progress") -> Iterator[str]:
    """The lines of a pipe, while the clock on the screen goes on."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], 0.5)[0]:
            progress.show()
            continue
        chunk = os.read(descriptor, 65536)
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole if chunk else [*whole, rest]:
            yield line.decode(errors="replace").rstrip()
        if not chunk:
            return


class Progress:
    """One line on a terminal, or a line now and then in a file: what the installer is doing."""

    def __init__(self) -> None:
        self.began = self.shown = time.monotonic()
        self.doing = "starting"
        self.live = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        """Take what a line of output says."""
        if found := re.match(r"\s*(?:Collecting|Downloading|Using cached|Building wheel for) ([^\s/=<>!~;(]+)", line):
            name = re.sub(r"-\d.*", "", found[1])
            size = re.search(r"\(([\d.]+ [kMG]B)\)", line)
            self.doing = f"fetching {name}{f', {size[1]}' if size else ''}"
        elif line.startswith("Installing collected"):
            self.doing = f"installing {line.count(',') + 1} packages"
        elif line.startswith(("Resolved", "Prepared", "Installed")):
            self.doing = line
        self.show()

    def show(self) -> None:
        """Bring the screen up to date."""
        now = time.monotonic()
        if self.live:
            text = f"  {now - self.began:4.0f} s  {self.doing}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif now - self.shown > SECONDS_BETWEEN_LINES:
            self.shown = now
            say(f"  {now - self.began:4.0f} s  {self.doing}")


def last_words(log: TextIO) -> str:
    """The last error that the installer printed, else its last line."""
    log.flush()
    text = [line.strip() for line in LOG.read_text().splitlines() if line.strip() and not line.startswith("$ ")]
    errors = [line for line in text if line.lower().startswith(("error", "fatal"))]
    return (errors or text or ["it printed nothing"])[-1].rstrip(".")


def say(text: str) -> None:
    """Standard output belongs to the command that was asked for."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SetupError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(
            f"error: the set-up failed: {error.filename or 'writing'}: {error.strerror}; mend that and start again"
        )
    except KeyboardInterrupt:
        say("\ninterrupted; the next command starts the set-up again")
        sys.exit(130)
