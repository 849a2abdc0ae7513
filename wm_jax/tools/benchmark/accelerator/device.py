"""What the device is, and what nothing on it can exceed: arithmetic, memory, the time of a call."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import wm_jax
from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Setting, on_cpu
from wm_jax.tools.benchmark.timing import alternate, matmul_peak
from wm_jax.utils.process import cores

PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "flax", "optax", "numpy", "torch")
PRODUCTS: dict[str, tuple[Any, str | None]] = {
    "bfloat16": (jnp.bfloat16, None),
    "float32": (jnp.float32, None),
    "float32, highest precision": (jnp.float32, "highest"),
}
"""Products by name: type, and precision. By default, NVIDIA's processors round float32 to TF32 before they multiply."""
CALLS = 100


def measurements(setting: Setting) -> Iterator[Measurement]:
    """See above."""
    yield Measurement("machine", _machine)
    for name, (kind, precision) in PRODUCTS.items():
        yield Measurement(f"matrix product, {name}", partial(_product, setting, kind, precision))
    yield Measurement("memory", partial(_memory, setting))
    yield Measurement("an empty call", partial(_call, setting))


def _machine() -> Figures:
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return {
        "device": device.device_kind,
        "platform": " ".join(device.client.platform_version.split()),
        "devices": len(jax.devices()),
        "driver": _driver(),
        "memory for JAX, GB": None if memory is None else memory / 1e9,
        "processor": platform.machine(),
        "cores": cores(),
        "Python": platform.python_version(),
        "wm_jax": wm_jax.__version__,
        **{name: version for name in PACKAGES if (version := _version(name))},
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "none"),
    }


def _driver() -> str:
    """NVIDIA's, with the card's name and memory."""
    if shutil.which("nvidia-smi") is None:
        return "no nvidia-smi"
    words = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    return " / ".join(done.stdout.split("\n")[1:]).strip(" /") or "nvidia-smi says nothing"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _product(setting: Setting, kind: Any, precision: str | None) -> Figures:
    size, repeats = (2048, 1) if on_cpu() else (8192, 8)
    size = setting.size(size, 256)
    return {"size": size, "TFLOP/s": matmul_peak(kind, precision, size, repeats) / 1e12}


def _memory(setting: Setting) -> Figures:
    """An array that is read and written again."""
    numbers, repeats = setting.size(2**26 if on_cpu() else 2**29, 2**20), 8
    array = jnp.zeros(numbers, jnp.float32)
    # How often is decided when it runs, or the compiler could make one addition of all.
    again = jax.jit(lambda x, often: jax.lax.fori_loop(0, often, lambda _, x: x + 1, x), donate_argnums=0)

    def work() -> None:
        nonlocal array
        array = again(array, repeats).block_until_ready()

    seconds = min(alternate({"": work}, setting.rounds)[""].seconds)
    return {"array, GB": 4 * numbers / 1e9, "read and written, GB/s": repeats * 8 * numbers / seconds / 1e9}


def _call(setting: Setting) -> Figures:
    """What a program costs that computes next to nothing: waited for each time, and given one after another."""
    step = jax.jit(lambda x: x + 1)
    x = jnp.zeros((), jnp.float32)

    def waiting() -> None:
        for _ in range(CALLS):
            step(x).block_until_ready()

    def in_a_row() -> None:
        y = x
        for _ in range(CALLS):
            y = step(y)
        y.block_until_ready()

    timings = alternate({"waited for": waiting, "one after another": in_a_row}, setting.rounds)
    return {f"{name}, microseconds": 1e6 * timing.median / CALLS for name, timing in timings.items()}
