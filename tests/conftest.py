"""Strict JAX on the CPU and checked signatures for every test; here, before anything imports JAX or the package."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"

import gc
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

from wm_jax.utils import process

process.prepare()
install_import_hook(
    [
        "wm_jax.kernels",
        "wm_jax.models",
        "wm_jax.data.sequences",
        "wm_jax.envs.car_racing",
        "wm_jax.evaluation.vae_measures",
    ],
    "checking.checked",
)

TRIMMED_ABOVE_GB = 1.0
"""Of a test process. Freed memory stays with it (`process.keep_freed_memory`), which is fast, and in a process that
runs hundreds of tests becomes gigabytes in which nothing lies."""

SHARED_OUT = ("test_pipeline.py",)
"""Files whose tests both test processes run. Those of any other stay together in one: what several tests of a file look
at, or have compiled, is made once."""


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Give freed memory back once there is much of it, and after a file's last test what was compiled for it, too."""
    if _resident_gb() < TRIMMED_ABOVE_GB:
        return
    if nextitem is None or nextitem.path != item.path:
        import jax  # late: `process.prepare` comes first

        jax.clear_caches()
        gc.collect()
    process.give_back_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `bin/test --quick` leaves out."""
    marks = {mark: set((Path(__file__).parent / f"{mark}.txt").read_text().split()) for mark in ("slow", "long")}
    for item in items:
        name = item.originalname if isinstance(item, pytest.Function) else item.name
        for mark, named in marks.items():
            if named & {item.path.name, f"{item.path.name}::{name}"}:
                item.add_marker(mark)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, but for `SHARED_OUT`. (xdist 3.8's own groups go unseen with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling  # late: it need not be there

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return nodeid if Path(file).name in SHARED_OUT else file

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def _resident_gb() -> float:
    """Memory of this process; 0 where the system does not say, and malloc is another one."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30 if statm.exists() else 0.0
