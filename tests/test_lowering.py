"""Every program that an accelerator runs lowers for CUDA and TPU, as it is there, and is compiled once for each size.

Lowering needs no such device. All tests here are as if there were GPUs (`programs.on`), but where they say otherwise.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from grid_game import Grid
from lowering import CALLS, lowered, products, require_portable, require_products
from programs import BFLOAT16, PROGRAMS, Spec, latents, on

import wm_jax
from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VaeConfig, VanillaConfig
from wm_jax.data.frames import Batches, ResidentFrames
from wm_jax.data.sequences import SequenceBatches
from wm_jax.distributed.mesh import RowSharing, open_mesh
from wm_jax.kernels.conv import Layer, convolutions
from wm_jax.models import memory, vae
from wm_jax.models.agent import Agent, AgentParams, make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.models.memory import MDNRNN
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae.layers import Dense
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.device import play_on_device
from wm_jax.rollout.types import EpisodeLimits
from wm_jax.run.artifacts import Trained
from wm_jax.stages import encode
from wm_jax.training.dispatch import lay_out
from wm_jax.training.task import Task, adam
from wm_jax.utils.sizes import FRAME

PLATFORMS = tuple(CALLS)


@pytest.fixture(scope="module", autouse=True)
def accelerator() -> Iterator[None]:
    with on("gpu"):
        yield


@cache
def traced(name: str) -> jax.stages.Traced:
    return PROGRAMS[name][0]()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_lower(name: str, platform: str) -> None:
    text = lowered(traced(name), platform)
    require_portable(text, platform)
    require_products(text, PROGRAMS[name][1])


def test_the_package_asks_for_nothing_but_the_cpu() -> None:
    """So what is traced for one accelerator is what is traced for all of them."""
    files = Path(wm_jax.__file__).parent.rglob("*.py")
    asking = {path.name: re.findall(r"default_backend\(\)(?! [!=]= \"cpu\")", path.read_text()) for path in files}
    assert {name for name, questions in asking.items() if questions} == {"doctor.py"}  # it tells the user


@pytest.mark.parametrize(("name", "precision"), [("V's update, float32", "DEFAULT"), ("tell", "HIGHEST")])
def test_products_have_the_precision_that_is_asked_for(name: str, precision: str) -> None:
    """JAX's own, unless the user sets another (float32 is TF32 then on GPUs); but covariances are never rounded."""
    with jax.default_matmul_precision("highest"):
        finest = PROGRAMS[name][0]()
    for program, wanted in ((traced(name), precision), (finest, "HIGHEST")):
        assert {each for product in products(lowered(program, "cuda")) for each in product.precision} == {wanted}


@pytest.mark.parametrize("name", ["V's update", "M's update", "segment", "ask", "tell"])
def test_what_is_handed_on_is_as_what_was_given(name: str) -> None:
    """In shapes and types; else the next call would be another program."""

    def kinds(arrays: Any) -> list[Any]:
        return [(each.shape, each.dtype, each.weak_type) for each in arrays]

    out = traced(name).out_info
    after = kinds(jax.tree.leaves(out[0] if type(out) is tuple else out))
    given = kinds(traced(name).jaxpr.in_avals)
    assert after in (given[: len(after)], given[-len(after) :])


# ---- What the checks refuse ----


@pytest.mark.parametrize("platform", ["cpu", *PLATFORMS])
def test_kernels_in_c_are_refused(platform: str) -> None:
    """JAX lowers a call of a foreign function for any platform; only running it would fail there."""
    layer = Layer(jnp.zeros((4, 4, 3, 8)), jnp.zeros(8))
    with on("cpu"):
        program = jax.jit(lambda x: convolutions(x, [layer], fast=True)).trace(Spec((2, 64, 64, 3), jnp.float32))
    for place in PLATFORMS:
        with pytest.raises(AssertionError, match="wm_jax_down"):
            require_portable(lowered(program, platform), place)


@pytest.mark.parametrize("name", ["V's update", "M's update", "encoding", "segment"])
def test_programs_of_the_cpu_are_refused(name: str) -> None:
    """Here they call kernels in C: it is the formulation for accelerators that passes."""
    with on("cpu"):
        text = lowered(PROGRAMS[name][0](), "cuda")
    with pytest.raises(AssertionError, match="wm_jax_"):
        require_portable(text, "cuda")


def test_what_runs_elsewhere_is_refused() -> None:
    square = Spec((4, 4), jnp.float32)
    asking = jax.jit(lambda x: jax.pure_callback(np.asarray, square, x)).trace(square)
    for program, name in ((jax.jit(jnp.linalg.eigh).trace(square), "lapack"), (asking, "callback")):
        with pytest.raises(AssertionError, match=name):
            require_portable(lowered(program, "cpu"), "cuda")
    with jax.enable_x64(True):
        wide = jax.jit(lambda x: 2 * x).trace(Spec((4,), jnp.float64))
    with pytest.raises(AssertionError, match="float64"):
        require_portable(lowered(wide, "cuda"), "cuda")


def test_products_of_another_type_are_refused() -> None:
    wide, narrow = Spec((64, 64), jnp.float32), Spec((64, 64), jnp.bfloat16)

    def sums(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.dot(a, b, preferred_element_type=jnp.float32)

    def text(function: Callable[..., Any], *of: Spec) -> str:
        return lowered(jax.jit(function).trace(*of), "cuda")

    wanted = {"dot_general": "bf16"}
    require_products(text(sums, narrow, narrow), wanted)
    with pytest.raises(AssertionError, match="multiplies"):
        require_products(text(sums, wide, wide), wanted)
    with pytest.raises(AssertionError, match="rounds its sums to bf16"):
        require_products(text(jnp.matmul, narrow, narrow), wanted)
    with pytest.raises(AssertionError, match="multiplies"):  # JAX's own gradient of float32 sums
        require_products(text(jax.grad(lambda a, b: sums(a, b).sum()), narrow, narrow), wanted)
    with pytest.raises(AssertionError, match="kinds"):
        require_products(text(sums, narrow, narrow), BFLOAT16)


# ---- One compilation for each size ----


class Small(vae.Vae):
    """Compiled quickly; what the large ones hand on, their shapes have said above."""

    def __init__(self, config: VaeConfig, rngs: nnx.Rngs):
        self.config = config
        self.inner, self.outer = Dense(192, config.latent, rngs), Dense(config.latent, 192, rngs)

    def encode(self, frames: jax.Array) -> Gaussian:
        mean = self.inner(frames[:, ::8, ::8].reshape(-1, 192))
        return Gaussian(mean, jnp.zeros_like(mean))

    def loss(self, batch: vae.Batch, update: vae.Update) -> tuple[jax.Array, dict[str, jax.Array]]:
        frames = to_float(batch.frames)
        loss = jnp.mean(jnp.square(self.outer(self.encode(frames).mode())))
        return loss, {"loss": loss}


def small(actions: int = 3) -> tuple[Small, MDNRNN]:
    rngs = nnx.Rngs(0)
    return Small(VanillaConfig(), rngs), MDNRNN(MemoryConfig(hidden=8), LatentKind(32), actions, rngs)


def compilations(caplog: pytest.LogCaptureFixture, name: str, work: Callable[[], Any]) -> int:
    """How often the jitted function of that name is compiled meanwhile."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        work()
    return sum(f"Compiling jit({name})" in line for line in caplog.messages)


@pytest.mark.parametrize("of", ["V", "M"])
def test_updates_are_compiled_once(caplog: pytest.LogCaptureFixture, of: str) -> None:
    def train() -> None:
        v, m = small()
        graphdef, params = nnx.split(v if of == "V" else m)
        batches: Batches = ResidentFrames(np.zeros((6, *FRAME), np.uint8), 2, 0)
        gradient, carry = vae.gradient_of(graphdef), ()
        if of == "M":
            batches = SequenceBatches(latents(40), 8, 2, 0, carried=True)
            gradient, carry = memory.gradient_of(graphdef, carried=True), m.init_carry(2)
        task = Task.single(gradient, adam(1e-4, 1e-5, 9, 1.0), batches)
        state, data, dispatch = lay_out(task, task.start(params, carry), open_mesh(1, 1, ""))
        for step, count in ((0, 3), (3, 3), (6, 1)):
            state, _ = dispatch(state, data, batches.references(step, count, 3), step, count, jax.random.key(0))

    assert compilations(caplog, "dispatch", train) == 1


def test_encoding_is_compiled_once(caplog: pytest.LogCaptureFixture) -> None:
    def run() -> None:
        encoder = encode._encoder(Trained(*nnx.split(small()[0]), "", {}), 4, open_mesh(1, 1, ""))
        for count in (3, 9, 4):
            encoder(np.zeros((count, *FRAME), np.uint8))

    assert compilations(caplog, "encode", run) == 1


def player() -> tuple[Agent, AgentParams]:
    controller = Controller("zh", 0, 32, 8, Grid.actions)
    return make_agent(*small(Grid.actions.size), controller, jnp.zeros((2, controller.n_params)))


def test_act_is_compiled_once_for_each_padded_size(caplog: pytest.LogCaptureFixture) -> None:
    def play() -> None:
        policy = AgentPolicy(*player(), np.arange(8) % 2, range(8), 8)
        policy.start(np.arange(8), np.arange(8))
        for count in (8, 5, 3, 8, 4):  # 8, 8, 4, 8, 4
            policy.act(np.arange(count), np.zeros((count, *FRAME), np.uint8))

    assert compilations(caplog, "act", play) == 2


def test_the_segment_is_compiled_once(caplog: pytest.LogCaptureFixture) -> None:
    """Through several segments, and episodes that begin in slots of others."""

    def play() -> None:
        devices, rules = RowSharing(None), EpisodeLimits(Grid.episode_steps, 0)
        play_on_device(Grid(), range(40), *player(), np.arange(40) % 2, rules, slots=16, devices=devices)

    assert compilations(caplog, "_segment", play) == 1


def test_what_is_compiled_anew_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    @jax.jit
    def double(x: jax.Array) -> jax.Array:
        return 2 * x

    assert compilations(caplog, "double", lambda: [double(np.zeros(size)) for size in (2, 3, 2)]) == 2
