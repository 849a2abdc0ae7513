"""The rules of the house that no linter knows: who may import whom, what is reachable, what is declared."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from wm_jax.utils.extras import MODULES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "wm_jax"

ROOMS = (
    "utils",
    "config",
    "distributed",
    "kernels",
    "envs",
    "models",
    "data",
    "run",
    "rollout",
    "training",
    "evaluation",
    "render",
    "stages",
    "library",
    "tools",
    "cli",
    "__main__",
)
"""From the ground up. A file imports what stands below its room, or in it; no files import each other in a circle."""

NO_JAX = (
    "cli",
    "config",
    "distributed.group",
    "distributed.processes",
    "distributed.progress",
    "envs.families",
    "envs.games",
    "envs.host",
    "envs.names",
    "envs.official",
    "envs.spaces",
    "run.interrupt",
    "run.stage_graph",
    "tools.doctor",
    "utils.errors",
    "utils.files",
    "utils.process",
)
"""Imported by processes that must start fast, or before JAX may be imported; some import it late, in a function."""

GAMES = ("gymnasium", "atari", "carracing", "procgen", "doom")
"""The extras that bring games."""

# Declared, but imported by nobody here: Gymnasium and EnvPool load them.
INDIRECT = {"box2d", "pygame-ce", "pyqt5-qt5", "six"}
PLATFORMS = {"vizdoom"}
"""There are no wheels of these for some platforms; what needs them says how to get them."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name under wm_jax -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, late: bool = True, types: bool = False) -> set[str]:
    """Absolute names that a file imports, `from a import b` as `a.b`.

    Args:
      late: those inside of functions too.
      types: those for types alone too.
    """
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        inside_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if (inside_function and not late) or (for_types_only and not types):
            skipped |= {id(below) for below in ast.walk(node)}
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path, *, late: bool = True, types: bool = False) -> set[str]:
    """Modules of this project that a file imports, as names under wm_jax."""
    found = set()
    for name in imports(path, late=late, types=types):
        if name == "wm_jax" or name.startswith("wm_jax."):
            inner = name.removeprefix("wm_jax").removeprefix(".")
            while inner not in modules():
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found - {""}


def room_of(name: str) -> str:
    """The package's first folder that a module lies in."""
    room = name.split(".")[0]
    assert room in ROOMS, f"wm_jax/{room} has no place in this test's list"
    return room


@pytest.mark.parametrize("name", [name for name in modules() if name])
def test_imports_go_down(name: str):
    room = room_of(name)
    for imported in sorted(ours(modules()[name])):
        other = room_of(imported)
        if other == room:
            assert room != "stages" or name == "stages", f"{name} imports {imported}: stages meet on disk"
        else:
            assert ROOMS.index(other) < ROOMS.index(room), f"{name} imports {imported}, which is not below it"


def files_of(name: str) -> set[str]:
    """The files of this package that a file imports, late and for types alone included."""
    return ours(modules()[name], types=True) - {name}


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Files that reach each other."""
    reached = {name: set(others) for name, others in arrows.items()}
    for between in arrows:
        for others in reached.values():
            if between in others:
                others |= reached[between]
    return [{name for name in others if first in reached[name]} for first, others in reached.items() if first in others]


def test_no_files_import_each_other_in_a_circle():
    assert not circles({name: files_of(name) for name in modules() if name})


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}, {"b", "c"}]
    assert "envs.types" in files_of("envs.host.pool") and "envs.host.describe" in files_of("envs.families")


def test_every_stage_is_reachable_and_every_command_has_a_launcher():
    from wm_jax.cli.commands import COMMANDS

    stages = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    texts = [path.read_text() for path in (PACKAGE / "cli").glob("*.py")]
    words = {node.value for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    assert stages <= words, "stages that the command line doesn't name"
    launchers = {path.name for path in (ROOT / "bin").iterdir() if not path.name.startswith("_") and path.is_file()}
    assert launchers == set(COMMANDS) | {"test"}
    for name in launchers:
        text = (ROOT / "bin" / name).read_text()
        assert text == f'#!/bin/sh\nself=$(readlink -f -- "$0") && exec "${{self%/*}}/_launch" {name} "$@"\n'
        assert (ROOT / "bin" / name).stat().st_mode & 0o111


@pytest.mark.parametrize("name", NO_JAX)
def test_these_do_not_import_jax(name: str):
    """Nor does anything that they import at their top level."""
    todo, seen = [each for each in modules() if each == name or each.startswith(f"{name}.")], set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        roots = {each.split(".")[0] for each in imports(modules()[module], late=False)}
        heavy = roots & {"jax", "flax", "optax", "evosax", "orbax", "jaxtyping"}
        assert not heavy, f"{name} imports {heavy} by way of {module}"
        todo += ours(modules()[module], late=False)
    assert seen, f"wm_jax.{name} is gone: correct the list"


def test_worker_processes_start_without_jax():
    code = "import sys, wm_jax.envs.host.gymnasium, wm_jax.envs.games; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {_distribution(requirement) for requirement in with_games(project)}
    used = {name.split(".")[0] for path in modules().values() for name in imports(path)}
    used -= {"wm_jax"} | set(sys.stdlib_module_names)
    makers = importlib.metadata.packages_distributions()
    extras = project["optional-dependencies"]["bench"]
    assert {
        name.split(".")[0] for path in modules().values() if "benchmark" not in path.parts for name in imports(path)
    } & {_distribution(requirement) for requirement in extras} == set(), (
        "only the benchmarks may import what their extra brings"
    )
    used -= {_distribution(each) for name in ("bench", "hdf5") for each in project["optional-dependencies"][name]}
    for module in sorted(used):
        assert {_distribution(each) for each in makers[module]} & declared, f"{module} is imported but not declared"
    imported = {_distribution(each) for module in used for each in makers[module]}
    assert declared - imported - INDIRECT == set()
    launcher = (ROOT / "bin" / "_launch").read_text()
    looked_for = set(re.findall(r"\w+", launcher.split("needs='")[1].split("'")[0]))
    assert used - looked_for == PLATFORMS, "an environment without these would be taken for one that has all"


def with_games(project: dict[str, Any]) -> list[str]:
    """What a whole environment has: the dependencies, and those of all games."""
    of_games = [each for name in GAMES for each in project["optional-dependencies"][name]]
    return project["dependencies"] + [each for each in of_games if not each.startswith("wm_jax[")]


def test_games_are_all_extras_of_games():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["games"] == [f"wm_jax[{','.join(GAMES[1:])}]"]
    assert {extra for extra, _ in MODULES.values()} == {*GAMES, "hdf5"}
    for name in GAMES[1:]:
        assert name == "procgen" or extras[name][0] == "wm_jax[gymnasium]"


def _distribution(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_the_constraints_are_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.+]+( ; [a-z_ =!<>0-9.'()]+)?", pin), pin
    names = {pin.partition("==")[0] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*with_games(project), *project["optional-dependencies"]["dev"]]
    assert {_distribution(requirement) for requirement in wanted} <= names


def test_importing_the_stages_computes_nothing():
    """Processes can only be joined, and platforms chosen, before JAX has begun. (But for evosax, which computes.)"""
    program = """
import pkgutil, importlib, wm_jax.stages
for module in pkgutil.iter_modules(wm_jax.stages.__path__):
    if module.name != "train_controller":
        importlib.import_module(f"wm_jax.stages.{module.name}")
from jax._src import xla_bridge
assert not xla_bridge._backends, list(xla_bridge._backends)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_have_no_gaps_and_no_dead_links(document: Path):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (document.parent / target).exists(), target
    for command in set(re.findall(r"(?<![/\w])bin/([a-z_]+)", text)):
        assert (ROOT / "bin" / command).exists(), command
    # A word in capitals that stands where a figure or a paragraph is to come.
    assert re.findall(r"^[A-Z]{4,}$|\b[A-Z]*(?:ALONE|PERFECT|SLOWER|TODO|FIXME|XXX)\b", text, re.MULTILINE) == []


def test_the_slow_tests_exist():
    """`bin/test --quick` leaves them out by their names."""
    tests = Path(__file__).parent
    files = {path.name: ast.parse(path.read_text()).body for path in tests.glob("test_*.py")}
    names = {
        f"{name}::{node.name}" for name, body in files.items() for node in body if isinstance(node, ast.FunctionDef)
    }
    assert set((tests / "slow.txt").read_text().split()) <= names | set(files)
