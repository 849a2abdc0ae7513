"""Processes that work together, as one of them: what its threads know, and what it takes from inside JAX.

What travels between real processes is in `test_devices.py`.
"""

import ast
import pickle
import threading
from pathlib import Path

import jax
import pytest

import wm_jax
from wm_jax.distributed import group, processes
from wm_jax.utils.errors import UserError


class Silent:
    """A coordination service over which process 1 of two says None whenever it is its turn."""

    def __init__(self) -> None:
        self.said: dict[str, bytes] = {}

    def key_value_set_bytes(self, name: str, word: bytes) -> None:
        self.said |= {name: word, name.rpartition("/")[0] + "/1": pickle.dumps(None)}

    def key_value_dir_get_bytes(self, place: str) -> list[tuple[str, bytes]]:
        return [(name, word) for name, word in self.said.items() if name.startswith(place)]

    def key_value_delete(self, name: str) -> None:
        self.said.pop(name, None)


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_group", group.Group(0, 2, Silent()))


@pytest.mark.parametrize("fails", [False, True])
def test_what_one_thread_does_alone_changes_nothing_for_others(first_of_two: None, fails: bool) -> None:
    """Neither while it does so nor afterwards, whether it succeeds or fails."""
    inside, outside = [], []

    @processes.on_main_process
    def work() -> str:
        inside.append((processes.count(), processes.share(10), processes.all_gather_objects(lambda: 7)))
        thread = threading.Thread(target=lambda: outside.append((processes.count(), processes.share(10))))
        thread.start()
        thread.join()
        if fails:
            raise UserError("no room")
        return "done"

    if fails:
        with pytest.raises(UserError, match="no room"):
            work()
    else:
        assert work() == "done"
    assert inside == [(1, slice(0, 10), [7])] and outside == [(2, slice(0, 5))]
    assert processes.count() == 2


def test_work_inside_of_work_that_is_done_alone_is_done_alone(first_of_two: None) -> None:
    inner = processes.on_main_process(processes.count)
    assert processes.on_main_process(lambda: (inner(), processes.count()))() == (1, 1)
    assert processes.count() == 2


METHODS = (
    "blocking_key_value_get_bytes",
    "key_value_delete",
    "key_value_dir_get",
    "key_value_dir_get_bytes",
    "key_value_set",
    "key_value_set_bytes",
)


def test_jax_has_the_coordination_service_where_we_look_for_it() -> None:
    from jax._src import distributed
    from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

    where = f"in JAX {jax.__version__}; `group.store_of_words` found it in {', '.join(group.TRIED_WITH)}"
    assert hasattr(getattr(distributed, "global_state", None), "client"), (
        f"no client of the coordination service {where}"
    )
    missing = [name for name in METHODS if not hasattr(_jax.DistributedRuntimeClient, name)]
    assert not missing, f"the coordination service's client lacks {missing} {where}"
    source = Path(group.__file__).read_text()
    used = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert {name for name in used if "key_value" in name} == set(METHODS)


def test_a_jax_that_keeps_it_elsewhere_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("jax._src.distributed.global_state")
    with pytest.raises(
        UserError, match=r"^hosts.coordinator: this version of JAX .*0\.10\.2, or work with one process$"
    ):
        group.store_of_words()


def test_nothing_else_is_taken_from_inside_jax() -> None:
    """One function of one file; names in text, as of a logger, are no imports."""
    found = []
    for path in sorted(Path(wm_jax.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[:2] == ["jax", "_src"] for name in names):
                found.append((path.name, *(function.name for function in functions if node in ast.walk(function))))
    assert found == [("group.py", "store_of_words")]
