"""Building the kernels in C: once, in the cache, and what happens where that can't be done."""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from narrow_norms import norms

from wm_jax.kernels import native


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path)
    return tmp_path / "kernels"


def fake_compiler(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


def test_a_library_is_compiled_once(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = tmp_path / "calls"
    fake_compiler(tmp_path / "cc", f'echo call >>{calls}; for last; do :; done; echo library >"$last"', monkeypatch)
    first = native.build()
    assert first.read_text() == "library\n"
    assert native.build() == first
    assert calls.read_text() == "call\n"
    assert [path.name for path in empty_cache.iterdir()] == [first.name]


def test_several_at_once_leave_one_whole_library(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_compiler(tmp_path / "cc", 'for last; do :; done; sleep 0.2; echo library >"$last"', monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        libraries = set(pool.map(lambda _: native.build(), range(4)))
    assert [path.read_text() for path in libraries] == ["library\n"]
    assert list(empty_cache.iterdir()) == list(libraries)


def test_every_source_is_part_of_the_key(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library of older sources would be tested, and used, in their place."""
    fake_compiler(tmp_path / "cc", 'for last; do :; done; echo library >"$last"', monkeypatch)
    copy = tmp_path / "native"
    shutil.copytree(Path(native.__file__).parent, copy)
    monkeypatch.setattr(native, "__file__", str(copy / "__init__.py"))
    libraries = {native.build()}
    sources = sorted(copy.glob("*.[ch]"))
    assert {source.name for source in sources} >= {"conv.c", "lstm.c", "tiles.h", "simd.h", "xla.h"}
    for source in sources:
        source.write_text(source.read_text() + "\n")
        libraries.add(native.build())
    assert len(libraries) == len(sources) + 1


def test_a_library_that_can_not_be_loaded_is_made_anew_once(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = tmp_path / "calls"
    fake_compiler(tmp_path / "cc", f'echo call >>{calls}; for last; do :; done; : >"$last"', monkeypatch)
    with pytest.raises(native.CannotBuild, match=r"can't be loaded.*CC"):
        native._load()
    assert calls.read_text() == "call\ncall\n"


def test_a_failing_compiler_is_named_and_leaves_nothing(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_compiler(tmp_path / "cc", "echo 'x.c:1: error: no such processor' >&2; exit 1", monkeypatch)
    with pytest.raises(native.CannotBuild, match=r"error: no such processor.*CC"):
        native.build()
    assert not list(empty_cache.iterdir())


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CC", "/no/compiler", "can't be started"),
        ("CC", 'gcc "', "is no command"),
        ("PATH", "", "there is no C compiler"),
    ],
)
def test_no_compiler_is_said_with_the_remedy(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(native.CannotBuild, match=f"{said}.*CC"):
        native.build()


def test_memory_that_is_not_there_ends_the_process_with_the_reason(tmp_path: Path):
    source, program = tmp_path / "big.c", tmp_path / "big"
    source.write_text('#include "xla.h"\nint main(void) { return allocate_zeros((int64_t)1 << 59) == NULL; }\n')
    here = Path(native.__file__).parent
    command = [*native._compiler(), "-std=gnu11", f"-I{here}", f"-I{jax.ffi.include_dir()}", str(source)]
    subprocess.run([*command, "-o", str(program)], check=True, capture_output=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.startswith(f"wm_jax kernels: no memory for {1 << 61} bytes; ")


def test_all_kernels_take_memory_in_one_way():
    for source in sorted(Path(native.__file__).parent.glob("*.c")):
        assert not re.findall(r"\b(?:malloc|calloc|realloc|aligned_alloc)\b", source.read_text()), source.name


def run_with(tmp_path: Path, program: str, **environment: str) -> tuple[str, str]:
    """What a Python process with a cache of its own says; what is registered with XLA in this one stays."""
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_without_a_compiler_models_use_plain_operations(tmp_path: Path):
    said, complaint = run_with(
        tmp_path,
        """
import jax
from flax import nnx
from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.models.latents import LatentKind
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae import make_vae
vae = make_vae(VanillaConfig(width=0.125), nnx.Rngs(0))
memory = MDNRNN(MemoryConfig(hidden=8), LatentKind(4), 2, nnx.Rngs(0))
print(vae.encoder.fast, memory.cell.formulation, vae.encode(jax.numpy.zeros((1, 64, 64, 3))).mean.shape)
""",
        PATH="",
    )
    assert said == "False derived (1, 32)\n"
    assert complaint.count("there is no C compiler") == 1


LOSSES = """
import jax, numpy as np
from flax import nnx
from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.kernels import native
from wm_jax.models import latents, memory, vae
fast = {fast}
assert native.available() or not fast
frames = np.random.default_rng(0).integers(0, 256, (7, 64, 64, 3), np.uint8)
noise = np.random.default_rng(1).normal(size=(10, 5, 4)).astype(np.float32)
flags = np.ones((9, 5), np.float32)
batch = jax.tree.map(jax.numpy.asarray, memory.Sequences(
    latents.Gaussian(noise, noise), noise[1:, :, :2], flags, flags, flags > 2, flags
))
model = vae.make_vae(VanillaConfig(width=0.25, fast_kernels=fast), nnx.Rngs(0))
graphdef, params = nnx.split(model)
update = vae.Update(jax.random.key(0))
metrics, gradients, _ = jax.jit(lambda p: vae.loss_and_grad(graphdef, p, vae.Batch(frames), update))(params)
print(float(metrics["loss"]), *(float(jax.numpy.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradients)))
model = memory.MDNRNN(MemoryConfig(hidden=24, fast_kernels=fast), latents.LatentKind(4), 2, nnx.Rngs(0))
graphdef, params = nnx.split(model)
given = batch, model.init_carry(5), jax.random.key(0)
metrics, _, gradients, _ = jax.jit(lambda p: memory.loss_and_grad(graphdef, p, *given))(params)
print(float(metrics["loss"]), *(float(jax.numpy.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradients)))
"""
"""V's loss and M's, and the norms of their gradients."""


@pytest.fixture(scope="module")
def plain_losses(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """`LOSSES` without the kernels, which are the same for every processor."""
    return losses(tmp_path_factory.mktemp("plain"), fast=False)


def losses(folder: Path, *, fast: bool, **environment: str) -> list[np.ndarray]:
    said, complaint = run_with(folder, LOSSES.format(fast=fast), PATH=os.environ["PATH"], **environment)
    assert "can't" not in complaint
    return [np.array(line.split(), float) for line in said.splitlines()]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have vectors of one size")
@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64"])
def test_narrower_vectors_compute_the_same(tmp_path: Path, plain_losses: list[np.ndarray], processor: str):
    """As on processors without AVX-512: V's loss and M's, and their gradients."""
    made = losses(tmp_path, fast=True, CC=f"cc -march={processor} -O1 -Wall -Wextra -Werror")
    assert len(made) == len(plain_losses) == 2
    for numbers, plain in zip(made, plain_losses, strict=True):
        np.testing.assert_allclose(numbers, plain, rtol=1e-4)


@pytest.mark.skipif(not native.narrow(), reason="this processor does not multiply bfloat16")
def test_bfloat16_by_pairs_is_bfloat16_by_tiles(tmp_path: Path):
    """As on processors with AVX512-BF16 alone. (Beside itself, where this is one.)"""
    program = "import narrow_norms; print(*narrow_norms.norms())"
    said, _ = run_with(tmp_path, program, PATH=os.environ["PATH"], CC="cc -mno-amx-bf16 -O1 -Wall -Wextra -Werror")
    np.testing.assert_allclose(np.array(said.split(), float), norms(), rtol=1e-5)


def test_bfloat16_needs_instructions_for_it(tmp_path: Path):
    if platform.machine() != "x86_64":
        pytest.skip("other processors have none of them")
    program = "from wm_jax.kernels import native; print(native.available(), native.narrow())"
    said, _ = run_with(tmp_path, program, PATH=os.environ["PATH"], CC="cc -march=x86-64 -O1")
    assert said == "True False\n"
