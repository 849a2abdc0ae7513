"""The report of an accelerator: what it needs, what it goes on with, and what it does when something goes wrong."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wm_jax import cli
from wm_jax.tools.benchmark.accelerator import page, report, training, wheels
from wm_jax.tools.benchmark.accelerator.measurement import Measurement, Part, Setting
from wm_jax.tools.benchmark.accelerator.profile import Operation, _lines, own_times
from wm_jax.tools.benchmark.accelerator.records import WHOLE, Records
from wm_jax.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
BARE = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(name + " can't be had there", name=name)

sys.meta_path.insert(0, Refusal())
"""


def bare(program: str, **environment: str) -> str:
    """Run a program where nothing is installed but what such a machine has, and what is carried there; its output."""
    there = needs(*wheels.GIVEN) - {"torch"} | set(wheels.CARRIED)
    makers = importlib.metadata.packages_distributions()
    absent = {module for module, owners in makers.items() if not {plain(name) for name in owners} & there}
    absent -= {"wm_jax", *sys.stdlib_module_names}
    assert {"envpool", "gymnasium", "gymnax", "Box2D", "pygame", "ale_py", "cv2", "av", "matplotlib"} < absent
    done = subprocess.run(
        [sys.executable, "-P", "-c", BARE.format(absent=sorted(absent)) + program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs(*names: str) -> set[str]:
    """Distributions, and all that they depend on."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = plain(todo.pop())
        if name in found:
            continue
        found.add(name)
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another system, or PyTorch
            continue
        todo += [re.split(r"[^\w.-]", each)[0] for each in wanted if "extra ==" not in each]
    return found


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_all_that_it_imports_is_there_or_carried():
    """Also what is imported late, but for PyTorch's side."""
    bare("""
import wm_jax.__main__, wm_jax.cli.options, wm_jax.envs.device, wm_jax.envs.make
from wm_jax.envs.car_racing.game import CarRacingGame
from wm_jax.tools.benchmark.accelerator import report
""")


def test_parts_run_where_nothing_else_is_there(tmp_path: Path):
    program = f"""
from pathlib import Path
from wm_jax.tools.benchmark.accelerator import report
report.PARTS = [part for part in report.PARTS if part.name in ("device", "networks")]
print(report.write(Path({str(tmp_path)!r}), small=True, minutes=2.0)["failed"])
"""
    assert bare(program, PATH="", XDG_CACHE_HOME=str(tmp_path / "cache")).split() == ["0"]
    said = (tmp_path / "report.md").read_text()
    assert "matrix product, bfloat16" in said and "V training" in said and "M training" in said


def test_what_is_carried_has_versions_and_is_named_once():
    wanted = wheels.requirements((ROOT / "constraints.txt").read_text())
    assert len(wanted) == len(set(wanted)) == len(wheels.CARRIED)
    with pytest.raises(ValueError, match="no version of jaxtyping"):
        wheels.requirements("\n".join(each for each in wanted if "jaxtyping" not in each))


def parts(*measurements: Any) -> tuple[Part, ...]:
    """One part, "first", and behind it another one, whose only measurement is "last"."""
    return (
        Part("first", "First", 0.5, lambda setting: (Measurement(*each) for each in measurements)),
        Part("second", "Second", 1.0, lambda setting: [Measurement("last", lambda: {"figure": 2.0})]),
    )


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Write a report of these parts; its summary and its records."""

    def write(measured: tuple[Part, ...], minutes: float = 1.0) -> tuple[dict[str, Any], Records]:
        monkeypatch.setattr(report, "PARTS", measured)
        summary = report.write(tmp_path, small=True, minutes=minutes)
        return summary, Records(tmp_path / "results.jsonl", {"small": True, "device": summary["device"]})

    return write


def test_one_that_fails_is_recorded_and_the_next_begins(taken, tmp_path: Path):
    summary, records = taken(parts(("broken", lambda: 1 // 0), ("sound", lambda: {"figure": 1.0})))
    assert (summary["done"], summary["failed"]) == (2, 1)
    broken = records.last("first")["broken"]
    assert broken["error"].startswith("ZeroDivisionError: ") and "1 // 0" in broken["trace"]
    said = (tmp_path / "report.md").read_text()
    assert "- broken: failed (ZeroDivisionError" in said and "| last | 2 |" in said


def test_a_part_that_can_not_offer_its_measurements_fails_alone(taken):
    def offer(setting: Setting):
        yield Measurement("sound", lambda: {"figure": 1.0})
        raise ValueError("no track")

    _, second = parts()
    summary, records = taken((Part("first", "First", 0.5, offer), second))
    assert (summary["done"], summary["failed"]) == (2, 1)
    assert records.last("first")[WHOLE]["error"] == "ValueError: no track"


def test_it_goes_on_with_what_is_missing(taken):
    calls = []

    def offered(fails: bool):
        def measure(name: str) -> dict[str, float]:
            calls.append(name)
            if fails and name == "b":
                raise OSError("no room")
            return {"figure": 1.0}

        return parts(*((name, lambda name=name: measure(name)) for name in "abc"))

    assert taken(offered(True))[0]["failed"] == 1
    assert taken(offered(False))[0]["failed"] == 0
    assert calls == ["a", "b", "c", "b"]


def test_what_finds_no_time_is_named_and_taken_the_next_time(taken, tmp_path: Path):
    summary, records = taken(parts(("sound", lambda: {"figure": 1.0})), minutes=0.01)
    assert (summary["done"], summary["skipped"]) == (0, 2)
    assert "- all of it: skipped (no time was left)" in (tmp_path / "report.md").read_text()
    summary, records = taken(parts(("sound", lambda: {"figure": 1.0})))
    assert (summary["done"], summary["skipped"]) == (2, 0) and WHOLE not in records.last("first")


def test_one_that_ends_the_process_is_tried_twice(taken):
    class Killed(BaseException):
        """As by a signal."""

    def kill() -> dict[str, float]:
        raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            taken(parts(("deadly", kill)))
    summary, records = taken(parts(("deadly", kill)))
    assert records.last("first")["deadly"]["error"] == "the process ended, or was ended, in the middle of it"
    assert (summary["done"], summary["failed"]) == (1, 1)


def test_a_torn_line_is_passed_over(tmp_path: Path):
    about = {"small": True, "device": "cpu"}
    records = Records(tmp_path / "results.jsonl", about)
    records.add("first", "a", "done", figures={"x": float("nan")})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"part": "first", "na')
    again = Records(tmp_path / "results.jsonl", about)
    again.add("first", "b", "begun")
    assert [*Records(tmp_path / "results.jsonl", about).last("first")] == ["a", "b"]
    assert again.figures("first", "a") == {"x": None} and again.figures("first", "b") == {}
    with pytest.raises(UserError, match=r"of another report \(small True, not False\): give another folder"):
        Records(tmp_path / "results.jsonl", about | {"small": False})


def test_the_page_shows_numbers_words_and_tables():
    rows = [{"operation": "fusion|1", "share": 0.5}, {"operation": "copy", "share": None}]
    found: Any = {
        "a": {"state": "done", "figures": {"rate": 12345.6, "spread": 0.01234}},
        "b": {"state": "done", "figures": {"rate": 1, "spread": 0.5}},
        "c": {"state": "done", "figures": {"whole": 3.0, "slowest": rows}},
        "d": {"state": "begun"},
    }
    records: Any = SimpleNamespace(about={"device": "H", "small": False}, last=lambda part: found)
    lines = page.render(records, [Part("p", "Title", 1.0, lambda _: [])]).splitlines()
    assert lines[:3] == ["# H", "", "## Title"]
    for line in (
        "| a | 12,346 | 0.01234 |",
        "| b | 1 | 0.5 |",
        "c, slowest:",
        "| fusion\\|1 | 0.5 |",
        "| copy |  |",
        "- d: begun",
    ):
        assert line in lines, line


def test_time_inside_of_an_operation_is_not_its_own():
    line = [Operation("loop", 0, 10), Operation("a", 1, 4), Operation("b", 5, 6), Operation("a", 12, 13)]
    assert own_times(line) == {"loop": 6, "a": 4, "b": 1}


@pytest.mark.parametrize("names", [["Stream #1(Kernel)", "XLA Modules"], ["something else"]])
def test_operations_are_those_of_the_accelerator_where_there_is_one(names: list[str]):
    """A plane of the host's own lines lies beside it, with operations that the host only starts."""

    def line(name: str) -> Any:
        return SimpleNamespace(name=name, events=[SimpleNamespace(name=name, start_ns=0, duration_ns=5, stats=stats)])

    stats = [("hlo_op", "dot.1"), (None, 3)]
    host = SimpleNamespace(name="/host:CPU", lines=[line("thread")])
    device = SimpleNamespace(name="/device:GPU:0", lines=[line(name) for name in names])
    (only,) = _lines(SimpleNamespace(planes=[host, device]))
    assert only == [Operation(f"dot.1: {names[0]}", 0, 5)]
    assert [*_lines(SimpleNamespace(planes=[host]))] == [[Operation("dot.1: thread", 0, 5)]]


def test_a_stage_ends_where_its_time_does(tmp_path: Path):
    """At what its last checkpoint says; it is then run once more, to be brought to its end."""
    asked = []

    def stage(config: Any, run: Any, stop: Any) -> dict[str, Any]:
        asked.append(config.vae.steps)
        if config.vae.steps > 30:
            while not stop.requested:
                pass
            raise training.Interrupted
        return {"steps": config.vae.steps}

    config = training.load("carracing", "carracing", "gpu")
    run: Any = SimpleNamespace(stage=lambda name: SimpleNamespace(checkpoints=SimpleNamespace(steps=lambda: [20, 30])))
    assert training.within(0.01, stage, config, run, "vae", "steps") == {"steps": 30}
    assert asked == [100_000, 30]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--minutes", "3"], "--minutes 3: only --accelerator-report OUT has a time; give that, too"),
        (["--accelerator-report", "o", "--minutes", "0"], "--minutes 0: give more than 0"),
        (["--accelerator-report", "o", "--stage", "vae"], "--stage: the report of an accelerator has sizes of its own"),
    ],
)
def test_mistakes(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["benchmark", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
