"""The launchers of bin/ in a temporary copy of the project, with a pip, a venv and a uv that only pretend."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("sh", "env", "readlink", "cksum", "sed", "grep")

CLI = "import sys, os; print('cli', *sys.argv[1:]); print('in', os.getcwd())"

VENV_PYTHON = """#!/bin/sh
case "$1" in -c) exit 0 ;; esac
exec "{python}" "$@"
"""

FAKE_VENV = """
import os, sys
folder = sys.argv[1] + "/bin"
os.makedirs(folder)
with open(folder + "/python", "w") as file:
    file.write(os.environ["FAKE_PYTHON"])
os.chmod(folder + "/python", 0o755)
"""

FAKE_PIP = """
import os, sys, time
with open(os.environ["FAKE_RECORD"], "a") as file:
    file.write(f"{os.getppid()} {' '.join(sys.argv[1:])}\\n")
print("Collecting jax", flush=True)
print("WARNING: Location 'somewhere' is ignored: it is neither a file nor a folder")
if os.path.exists(os.environ["FAKE_RECORD"] + ".sleep"):
    time.sleep(float(open(os.environ["FAKE_RECORD"] + ".sleep").read()))
if os.path.exists(os.environ["FAKE_RECORD"] + ".fail"):
    print("ERROR: No matching distribution found for jax<0.12")
    sys.exit(1)
"""


class Project:
    """A copy of the launchers with a stub for the package, in a folder with a space in its name."""

    def __init__(self, folder: Path):
        self.root = folder / "my project"
        shutil.copytree(ROOT / "bin", self.root / "bin", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root)
        (self.root / "wm_jax").mkdir()
        (self.root / "wm_jax" / "__init__.py").touch()
        (self.root / "wm_jax" / "__main__.py").write_text(CLI)
        self.path = folder / "path"
        self.path.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.path / tool).symlink_to(found)
        fakes = folder / "fakes"
        for module, text in (("venv", FAKE_VENV), ("pip", FAKE_PIP)):
            (fakes / module).mkdir(parents=True)
            (fakes / module / "__init__.py").touch()
            (fakes / module / "__main__.py").write_text(text)
        self.record = folder / "record"
        self.environment = {
            "PATH": str(self.path),
            "HOME": str(folder),
            "PYTHONPATH": str(fakes),
            "WM_JAX_ACCELERATOR": "none",
            "FAKE_RECORD": str(self.record),
            "FAKE_PYTHON": VENV_PYTHON.format(python=sys.executable),
        }
        self.add("python3", f'exec "{sys.executable}" "$@"')

    def add(self, name: str, script: str) -> Path:
        """A program on the PATH."""
        program = self.path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    def pip(self, word: str, text: str = "") -> None:
        """Tell the pretended pip to `sleep` so many seconds, or to `fail`."""
        Path(f"{self.record}.{word}").write_text(text)

    def behave(self) -> None:
        for word in ("sleep", "fail"):
            Path(f"{self.record}.{word}").unlink(missing_ok=True)

    def installs(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.exists() else []

    def start(
        self, *arguments: str, command: str | Path = "bin/train_vae", **environment: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / command, *arguments],
            env=self.environment | environment,
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, command: str | Path = "bin/train_vae", **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, command=command, **environment)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_first_use_makes_the_environment_and_the_second_only_starts(project: Project):
    status, out, err = project.run("--game", "two words")
    assert (status, out) == (0, f"cli train_vae --game two words\nin {project.path}\n")
    assert "Setting up .venv" in err and "Ready after" in err
    assert project.installs()[0].endswith("install --no-compile -e .[games] -c constraints.txt")
    link = project.path / "link"
    link.symlink_to(project.root / "bin" / "encode")
    assert project.run(command=link) == (0, f"cli encode\nin {project.path}\n", "")
    assert len(project.installs()) == 1


def test_two_at_once_install_once(project: Project):
    project.pip("sleep", "1")
    first = project.start()
    wait_until(project.installs)
    second = project.start()
    for process in (first, second):
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and "cli train_vae" in out
    assert "waiting for it" in err and "Setting up" not in err
    assert len(project.installs()) == 1


def test_an_interrupted_set_up_is_started_over(project: Project):
    project.pip("sleep", "30")
    process = project.start()
    wait_until(project.installs)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    half = project.root / ".venv" / "half"
    half.touch()
    project.behave()
    assert project.run()[0] == 0
    assert not half.exists() and len(project.installs()) == 2


def test_ctrl_c_ends_the_set_up_in_one_sentence(project: Project):
    project.pip("sleep", "30")
    process = project.start()
    wait_until(project.installs)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert "interrupted; the next command starts the set-up again" in err and "Traceback" not in err
    assert not (project.root / ".venv" / ".ready").exists()


def test_an_installer_that_outlives_the_set_up_is_waited_for(project: Project):
    project.pip("sleep", "1.5")
    process = project.start()
    wait_until(project.installs)
    os.kill(int(project.installs()[0].split()[0]), signal.SIGKILL)  # the set-up, not its pip
    process.wait(timeout=30)
    project.behave()
    status, out, err = project.run()
    assert status == 0 and "cli train_vae" in out and "waiting for it" in err
    assert len(project.installs()) == 2
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


def test_a_failing_pip_ends_in_one_sentence(project: Project):
    project.pip("fail")
    status, out, err = project.run()
    assert (status, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: pip could not install the packages (ERROR: No matching distribution found for jax")
    assert ".venv.log" in last and "Traceback" not in err
    log = (project.root / ".venv.log").read_text()
    assert "Collecting jax" in log and "is ignored" not in log
    project.behave()
    assert project.run()[0] == 0


def test_changed_requirements_are_installed_into_the_same_environment(project: Project):
    project.run()
    kept = project.root / ".venv" / "kept"
    kept.touch()
    with (project.root / "constraints.txt").open("a") as file:
        file.write("# another line\n")
    assert project.run()[0] == 0
    assert kept.exists() and len(project.installs()) == 2


def test_an_environment_whose_python_is_gone_is_made_anew(project: Project):
    project.run()
    (project.root / ".venv" / "bin" / "python").unlink()
    assert project.run()[0] == 0
    assert len(project.installs()) == 2


def test_the_extra_follows_the_accelerator_and_serves_a_machine_without(project: Project):
    project.run(WM_JAX_ACCELERATOR="cuda")
    assert "-e .[games,cuda] " in project.installs()[0]
    (project.path / "python3").rename(project.path / "hidden")  # nothing that could set up anything
    assert project.run()[0] == 0
    (project.path / "hidden").rename(project.path / "python3")
    with (project.root / "constraints.txt").open("a") as file:
        file.write("# another line\n")
    project.run()
    assert "-e .[games,cuda] " in project.installs()[1]
    status, _, err = project.run(WM_JAX_ACCELERATOR="gpu")
    assert status == 1 and "choose none, cuda, cuda13 or tpu" in err


def driver(project: Project, version: str) -> Path:
    """Have the launcher look for NVIDIA's driver in a folder of ours, and find this version of it."""
    folder = project.path / "nvidia"
    launcher = project.root / "bin" / "_launch"
    launcher.write_text(launcher.read_text().replace("/proc/driver/nvidia", str(folder)))
    folder.mkdir()
    (folder / "version").write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Aug  5 12:00:00 2025\n"
    )
    return folder


@pytest.mark.parametrize(("version", "extra"), [("580.65.06", "cuda13"), ("1000.1", "cuda13"), ("575.57.08", "cuda")])
def test_the_driver_decides_which_cuda(project: Project, version: str, extra: str):
    driver(project, version)
    project.run(WM_JAX_ACCELERATOR="")
    assert f"-e .[games,{extra}] " in project.installs()[0]


@pytest.mark.parametrize(("said", "extra"), [("580.159.04", "cuda13"), ("550.54.15", "cuda"), ("no devices", "cuda")])
def test_without_the_drivers_own_file_nvidia_smi_is_asked_once(project: Project, said: str, extra: str):
    folder = driver(project, "1.2.3")
    (folder / "version").unlink()
    project.add("nvidia-smi", f'echo asked >>"{project.record}"; echo "{said}"; echo "{said}"')
    for _ in range(2):
        assert project.run(WM_JAX_ACCELERATOR="")[0] == 0
    asked, install = project.installs()
    assert asked == "asked" and f"-e .[games,{extra}] " in install


def test_another_cuda_is_installed_into_an_environment_made_anew(project: Project):
    project.run(WM_JAX_ACCELERATOR="cuda")
    kept = project.root / ".venv" / "kept"
    kept.touch()
    project.run(WM_JAX_ACCELERATOR="cuda13")
    assert "-e .[games,cuda13] " in project.installs()[1] and not kept.exists()
    kept.touch()
    project.run(WM_JAX_ACCELERATOR="none")
    assert kept.exists() and len(project.installs()) == 2


def test_the_report_of_an_accelerator_needs_no_games(project: Project, tmp_path: Path):
    """An active environment without EnvPool and Gymnasium is used for it, and for nothing else."""
    python = tmp_path / "active" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # It has all that it is asked for, but for games.
    python.write_text(f'''#!/bin/sh
case "$*" in *find_spec*envpool*) exit 1 ;; *find_spec*) exit 0 ;; esac
exec "{sys.executable}" "$@"
''')
    python.chmod(0o755)
    words = ["--small", "--accelerator-report", "out"]
    status, out, _ = project.run(*words, command="bin/benchmark", VIRTUAL_ENV=str(tmp_path / "active"))
    assert (status, out) == (0, f"cli benchmark {' '.join(words)}\nin {project.path}\n") and not project.installs()
    project.run("--small", command="bin/benchmark", VIRTUAL_ENV=str(tmp_path / "active"))
    assert len(project.installs()) == 1


def test_only_bin_test_installs_the_development_tools(project: Project):
    (project.root / "bin" / "_test.py").write_text("import sys; print('tests', *sys.argv[1:])")
    project.run()
    assert project.run("-k", "word", command="bin/test")[1] == "tests -k word\n"
    assert "-e .[games,dev] " in project.installs()[1]
    project.run()
    project.run(command="bin/test")
    assert len(project.installs()) == 2


def test_uv_is_preferred_and_pip_steps_in_when_it_fails(project: Project):
    project.add("uv", f'echo "uv $*" >>"{project.record}"; test "$1" = venv && "{sys.executable}" -m venv "$5"')
    status, _, err = project.run()
    assert status == 0 and "trying pip" in err
    venv, uv, pip = project.installs()
    assert venv.startswith("uv venv --seed") and uv.startswith("uv pip install") and "install --no-compile" in pip


def test_an_active_environment_that_has_everything_is_used(project: Project, tmp_path: Path):
    python = tmp_path / "active" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        status, out, err = project.run("x", **{variable: str(tmp_path / "active")})
        assert (status, out, err) == (0, f"cli train_vae x\nin {project.path}\n", "")
    assert not (project.root / ".venv").exists()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without its packages
    assert "Setting up .venv" in project.run(VIRTUAL_ENV=str(tmp_path / "active"))[2]


def test_without_a_fitting_python_one_sentence_says_so(project: Project):
    project.add("python3", "exit 1")
    project.add("python3.12", "echo 'no such version'; exit 127")
    status, out, err = project.run()
    assert status == 1 and len(err.splitlines()) == 1
    assert err.startswith("error: wm_jax needs Python 3.11, 3.12 or 3.13, and no python3.13, python3.12")
    assert "cli" not in out and not (project.root / ".venv").exists()


def test_a_module_in_the_current_folder_does_not_get_in_the_way(project: Project):
    (project.path / "jax.py").write_text("raise SystemExit('the wrong jax')")
    (project.path / "wm_jax").mkdir()
    (project.path / "wm_jax" / "__init__.py").touch()
    (project.path / "wm_jax" / "__main__.py").write_text("raise SystemExit('the wrong wm_jax')")
    assert project.run()[1].startswith("cli train_vae")
