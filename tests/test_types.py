"""That the annotated signatures are checked under pytest, and nowhere else."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import TypeCheckError

from wm_jax.config.vaes import VanillaConfig
from wm_jax.data.sequences import FlatLatents, Places, SequenceBatches, random_windows
from wm_jax.models.heads import Mixture, MixtureHead
from wm_jax.models.latents import Gaussian
from wm_jax.models.memory import restart
from wm_jax.models.vae import Batch, Update, make_vae
from wm_jax.models.vae.losses import squared_error

ROOT = Path(__file__).resolve().parent.parent


def mixture() -> Mixture:
    return MixtureHead(4, 5).read(jnp.zeros((2, 3 * 4 * 5)))


def test_shapes_are_checked_argument_against_argument() -> None:
    frames = jnp.zeros((2, 64, 64, 3))
    assert squared_error(frames, frames).shape == (2,)
    with pytest.raises(TypeCheckError, match="parameter 'target'"):
        squared_error(frames, frames[:1])
    with pytest.raises(TypeCheckError, match="parameter 'frames'"):
        squared_error(frames[..., :1], frames)


def test_fields_are_checked_against_arguments_and_each_other() -> None:
    """Sizes that broadcast: without the check both give a number."""
    assert mixture().log_prob(jnp.zeros((2, 4))).shape == (2,)
    with pytest.raises(TypeCheckError, match="parameter 'target'"):
        mixture().log_prob(jnp.zeros((2, 1)))
    with pytest.raises(TypeCheckError, match="parameter 'mixture'"):
        mixture()._replace(mean=jnp.zeros((2, 5, 1))).log_prob(jnp.zeros((2, 4)))


def test_windows_have_one_frame_more_than_steps() -> None:
    places = random_windows(np.array([0, 9]), 3, 2, np.random.default_rng(0))
    flat = np.zeros((9, 1), np.float32)
    batches = SequenceBatches(
        FlatLatents(Gaussian(flat, flat), flat, flat[:, 0], flat[:, 0], np.array([0, 9])), 3, 2, 0, False
    )
    batches.fetch(batches.data, places)
    with pytest.raises(TypeCheckError, match="parameter 'reference'"):
        batches.fetch(batches.data, Places(places.frames[1:], places.weight, places.is_first))


def test_types_of_numbers_are_checked_also_inside_jit() -> None:
    with pytest.raises(TypeCheckError, match="parameter 'is_first'"):
        jax.jit(restart)((jnp.zeros((2, 3)),), jnp.zeros(2), (jnp.zeros((1, 3)),))
    vae = make_vae(VanillaConfig.model_validate({"width": 0.125, "fast_kernels": False}), nnx.Rngs(0))
    with pytest.raises(TypeCheckError, match="parameter 'batch'"):
        vae.loss(Batch(jnp.zeros((1, 64, 64, 3))), Update(jax.random.key(0)))  # floats are not what replays hold


def test_every_annotated_module_is_hooked() -> None:
    files = [path for room in ("kernels", "models") for path in (ROOT / "wm_jax" / room).rglob("*.py")]
    for path in (*files, ROOT / "wm_jax" / "data" / "sequences.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if "jaxtyping" in path.read_text():
            spec = find_spec(name)
            assert spec is not None and type(spec.loader).__module__.startswith("jaxtyping"), name


def test_nothing_is_checked_outside_of_pytest() -> None:
    code = "import sys, wm_jax.models.agent, wm_jax.data.sequences; sys.exit('beartype' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
