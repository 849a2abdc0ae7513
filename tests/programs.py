"""The programs that an accelerator runs, each traced on shapes alone, at the paper's sizes.

Which formulation a program has, the package decides by what `jax.default_backend()` says as it is built and traced
(`native.available`, `networks.compute_type`, the rows at once of play). In `on` it says what it would say there, and
what was traced elsewhere is forgotten.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wm_jax.config.schema import EnvConfig, MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.data.frames import ResidentFrames
from wm_jax.data.sequences import FlatLatents, SequenceBatches
from wm_jax.distributed.mesh import open_mesh
from wm_jax.envs.car_racing.endless import draw_tracks
from wm_jax.envs.car_racing.game import CarRacingGame, Tracks
from wm_jax.envs.car_racing.track import prepare
from wm_jax.envs.device import start_all
from wm_jax.envs.families import CAR_ACTIONS
from wm_jax.envs.games import find
from wm_jax.kernels import native
from wm_jax.models import memory, vae
from wm_jax.models.agent import Agent, AgentParams, make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.dream import Beginnings, Dream, DreamParams
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae import make_vae
from wm_jax.rollout import device
from wm_jax.stages import encode
from wm_jax.training import generated_frames
from wm_jax.training.dispatch import compile_dispatch
from wm_jax.training.evolution import Evolution
from wm_jax.training.task import Task, adam
from wm_jax.utils.sizes import FRAME

SLOTS = 16
Spec = jax.ShapeDtypeStruct
_AVAILABLE: Any = native.available


@contextmanager
def on(backend: str) -> Iterator[None]:
    """As if JAX had found devices of this kind, and no others; and kernels in C, if it is the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: backend)
        # What it has answered before is remembered.
        patch.setattr(native, "available", (lambda: True) if backend == "cpu" else _AVAILABLE.__wrapped__)
        jax.clear_caches()
        yield
    jax.clear_caches()


def shapes(make: Callable[[], Any]) -> tuple[Any, Any]:
    """(graphdef, shapes of the parameters) of a model."""
    return nnx.split(nnx.eval_shape(make))


def dispatch(task: Task, params: Any, carry: Any) -> jax.stages.Traced:
    state, references = jax.eval_shape(task.start, params, carry), task.batches.references(0, 2, 4)
    return compile_dispatch(task).trace(state, task.batches.data, references, 0, 2, jax.random.key(0))


def train_vae(**settings: Any) -> jax.stages.Traced:
    graphdef, params = shapes(lambda: make_vae(VanillaConfig(**settings), nnx.Rngs(0)))
    frames = ResidentFrames(np.zeros((2, *FRAME), np.uint8), 100, 0)
    return dispatch(Task.single(vae.gradient_of(graphdef), adam(1e-4, None, 1), frames), params, ())


def train_memory(steps: int = 1000, batch: int = 100, **settings: Any) -> jax.stages.Traced:
    config = MemoryConfig(reward_head=True, done_head=True, **settings)
    graphdef, params = shapes(lambda: MDNRNN(config, LatentKind(32), 3, nnx.Rngs(0)))
    batches = SequenceBatches(latents(2 * steps), steps, batch, 0, carried=False)
    task = Task.single(memory.gradient_of(graphdef, carried=False), adam(1e-3, None, 1, 1.0), batches)
    return dispatch(task, params, jax.eval_shape(lambda: nnx.merge(graphdef, params).init_carry(batch)))


def latents(count: int) -> FlatLatents:
    """One episode."""
    z, action = np.zeros((count, 32), np.float32), np.zeros((count, 3), np.float32)
    return FlatLatents(Gaussian(z, z), action, action[:, 0], action[:, 0], np.array([0, count]))


def encoding(**settings: Any) -> jax.stages.Traced:
    graphdef, params = shapes(lambda: make_vae(VanillaConfig(**settings), nnx.Rngs(0)))
    return encode.compile_encoder(graphdef, open_mesh(1, 1, "")).trace(params, Spec((64, *FRAME), jnp.uint8))


def agent() -> tuple[Agent, AgentParams]:
    """V, M, and 64 candidates that see z, h and c."""
    v = nnx.eval_shape(lambda: make_vae(VanillaConfig(), nnx.Rngs(0)))
    m = nnx.eval_shape(lambda: MDNRNN(MemoryConfig(), LatentKind(32), CAR_ACTIONS.size, nnx.Rngs(0)))
    controller = Controller("zhc", 0, 32, 256, CAR_ACTIONS)
    return make_agent(v, m, controller, jnp.zeros((64, controller.n_params)), memory_reset=9, sample_latent=True)


def act() -> jax.stages.Traced:
    """For host environments: some of the slots."""
    policy, params = agent()
    rows, frames = np.arange(SLOTS // 2, dtype=np.int32), np.zeros((SLOTS // 2, *FRAME), np.uint8)
    return Agent.act.trace(policy, params, policy.init(SLOTS), rows, frames, rows, rows, rows > 0, at_once=None)


def tracks(game: CarRacingGame) -> Tracks:
    drawn = draw_tracks.eval_shape(jax.random.key(0), SLOTS)
    return Tracks(drawn, np.zeros(SLOTS, np.int32))


def starts() -> jax.stages.Traced:
    game = CarRacingGame()
    return start_all.trace(game, tracks(game), jnp.arange(SLOTS, dtype=jnp.int32))


def slots(policy: Agent) -> tuple[Any, device.Slots]:
    """Beginnings, and slots for their episodes."""
    begun = starts().out_info
    return begun, jax.eval_shape(lambda: device._vacant(policy, begun, SLOTS))


def begin() -> jax.stages.Traced:
    begun, free = slots(agent()[0])
    rows = np.zeros(SLOTS, np.int32)
    return device._begin.trace(begun, free, rows, rows, rows, rows == 0)


def segment() -> jax.stages.Traced:
    """Game, V, M and C."""
    (policy, params), game = agent(), CarRacingGame()
    limits, playing = jnp.zeros(2, jnp.int32), slots(policy)[1]
    return device._segment.trace(game, policy, device._rows_at_once(), tracks(game), params, limits, playing)


def dreaming() -> jax.stages.Traced:
    """The dream, M and C."""
    policy, params = agent()
    v, m = nnx.merge(policy.vae, params.vae), nnx.merge(*shapes(dreaming_memory))
    zero = np.zeros((1, 1, 32), np.float32)
    begins = Beginnings(Gaussian(zero, zero), np.zeros((1, 0, CAR_ACTIONS.size), np.float32))
    dream = Dream(find("carracing", EnvConfig(backend="device")), v, [m], begins, ends="sampled", shares_memory=True)
    keys = jax.eval_shape(jax.vmap(jax.random.key), Spec((SLOTS,), jnp.uint32))
    carry = jax.eval_shape(lambda: m.init_carry(SLOTS))
    variables = params.vae, (nnx.split(m)[1],)
    tau, z = (jax.eval_shape(lambda size=size: jnp.zeros(size)) for size in ((), (SLOTS, 32)))
    world: Any = (*variables, tau, z, (carry,), keys)
    world = DreamParams(*world)
    begun = start_all.trace(dream, world, jnp.arange(SLOTS, dtype=jnp.int32)).out_info
    limits, playing = jnp.zeros(2, jnp.int32), jax.eval_shape(lambda: device._vacant(policy, begun, SLOTS))
    return device._segment.trace(dream, policy, device._rows_at_once(), world, params, limits, playing)


def dreaming_memory() -> MDNRNN:
    """M with all heads."""
    config = MemoryConfig(reward_head=True, done_head=True)
    return MDNRNN(config, LatentKind(32), CAR_ACTIONS.size, nnx.Rngs(0))


def draw() -> jax.stages.Traced:
    return draw_tracks.trace(jax.random.key(0), SLOTS)


def prepared() -> jax.stages.Traced:
    """The tracks that the host has made."""
    drawn = draw_tracks.eval_shape(jax.random.key(0), SLOTS)
    return prepare.trace(drawn.count, drawn.points, drawn.angles, drawn.curbs, drawn.colours)


def generated() -> jax.stages.Traced:
    game = CarRacingGame(endless=True)
    return generated_frames._play.trace(game, tracks(game), jnp.zeros((SLOTS, 20, 3)))


def search() -> Evolution:
    return Evolution("CMA_ES", 867, 64, 0.1, jax.random.key(0))


def ask() -> jax.stages.Traced:
    evolution = search()
    return jax.jit(evolution.ask).trace(jax.eval_shape(evolution.init))


def tell() -> jax.stages.Traced:
    evolution = search()
    return jax.jit(evolution.tell).trace(jax.eval_shape(evolution.init), jnp.zeros((64, 16)))


BFLOAT16 = {"convolution": "bf16", "dot_general": "bf16"}
FLOAT32 = {"convolution": "f32", "dot_general": "f32"}
PLAY = {"convolution": "bf16", "dot_general": "f32"}
PROGRAMS: dict[str, tuple[Callable[[], jax.stages.Traced], dict[str, str]]] = {
    "V's update": (train_vae, BFLOAT16),
    "V's update, float32": (lambda: train_vae(bfloat16=False), FLOAT32),
    "M's update": (train_memory, {"dot_general": "f32"}),
    "M's update, plain": (lambda: train_memory(fast_kernels=False), {"dot_general": "f32"}),
    "M's update, GRU": (lambda: train_memory(cell="gru"), {"dot_general": "f32"}),
    "encoding": (encoding, {"convolution": "bf16"}),
    "encoding, float32": (lambda: encoding(bfloat16=False), {"convolution": "f32"}),
    "act": (act, PLAY),
    "starts": (starts, {"dot_general": "f32"}),
    "begin": (begin, {}),
    "segment": (segment, PLAY),
    "dream": (dreaming, {"dot_general": "f32"}),
    "tracks drawn": (draw, {}),
    "tracks prepared": (prepared, {}),
    "generated frames": (generated, {"dot_general": "f32"}),
    "ask": (ask, {"dot_general": "f32"}),
    "tell": (tell, {"dot_general": "f32"}),
}
"""What is traced, and what its large products multiply. `--vae.bfloat16` is about V's convolutions, the decoder's first
among them: M's products, C's, those of V's small dense layers, of pictures and of the search are always float32."""
