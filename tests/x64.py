"""What V, M, the car and an agent compute, with numbers of 64 bits allowed or not, for `test_x64.py`.

    python x64.py

Prints JSON: by name the types and the values of what comes out.
"""

import contextlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.schema import EnvConfig, MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.envs.car_racing import camera, drawing
from wm_jax.envs.car_racing import endless as endless_tracks
from wm_jax.envs.car_racing.track import nearest_sections
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.models import memory, vae
from wm_jax.models.agent import make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.play import play
from wm_jax.run.artifacts import init_memory, init_vae
from wm_jax.training.evolution import Evolution

STEPS, SEEDS = 4, [5, 6]
GAME = find("carracing", EnvConfig(backend="device", episode_steps=STEPS))


def auto_encoder(fast: bool) -> Any:
    """V's update."""
    config = VanillaConfig(width=0.125, latent=4, fast_kernels=fast, noise_patches=True)
    graphdef, params = init_vae(config, 0)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    key = jax.random.key(0, impl="threefry2x32")
    return params, jax.jit(lambda *given: vae.gradient_of(graphdef)(*given))(params, frames, (), key, 0)


def recurrent(**settings: Any) -> Any:
    """M's update, and a sample."""
    graphdef, params = init_memory(
        MemoryConfig(hidden=8, reward_head=True, done_head=True, **settings), LatentKind(4), 2, 0
    )
    model = nnx.merge(graphdef, params)
    random = np.random.default_rng(1)
    z, flags = random.normal(size=(10, 5, 4)).astype(np.float32), random.random((9, 5)) < 0.2
    ends = flags.astype(np.float32)
    batch = memory.Sequences(
        Gaussian(jnp.asarray(z), jnp.asarray(0 * z)), *map(jnp.asarray, (z[1:, :, :2], ends, ends, flags, 1 - ends))
    )
    update = jax.jit(memory.loss_and_grad, static_argnums=0)
    _, h = model.unroll(model.init_carry(5), batch.latent.mean[:-1], batch.action, batch.is_first)
    sample = model.predict(h).latent.sample(jax.random.key(2), 1.5)
    return params, update(graphdef, params, batch, model.init_carry(5), jax.random.key(1)), sample


def car() -> Any:
    """Tracks, states, rewards and pictures, these in C and by JAX."""
    with contextlib.closing(open_pool(GAME, 2, random_start=True)) as pool:
        frames = pool.reset(SEEDS)
        steps = [pool.step(np.tile(np.array([0.3, 1, 0], np.float32), (2, 1)))[1:] for _ in range(STEPS)]
        engine: Any = pool._engine  # pyright: ignore[reportAttributeAccessIssue]
        tracks, states = engine._params.bank, engine._states
    here = camera.view(jax.tree.map(lambda leaf: leaf[0], states))
    plain = jax.jit(lambda: drawing.picture(tracks, here, drawing.FRAME, fast=False))()
    endless = endless_tracks.draw_tracks(jax.random.key(0), 2)
    return frames, steps, states, plain, tracks, nearest_sections(tracks.points, tracks.count, fast=False), endless


def agent(inputs: Any) -> Any:
    """Returns of an agent, watched and not."""
    model = nnx.merge(*init_vae(VanillaConfig(width=0.125), 0))
    remembering = nnx.merge(*init_memory(MemoryConfig(hidden=8), LatentKind(32), GAME.actions.size, 0))
    controller = Controller(inputs, 3, 32, 8, GAME.actions)
    numbers = np.random.default_rng(2).normal(size=(2, controller.n_params)).astype(np.float32)
    policy, params = make_agent(
        model, remembering, controller, jnp.asarray(numbers), memory_reset=3, sample_latent=True
    )
    returns = []
    for watch in (None, lambda step, done: None):
        with contextlib.closing(open_pool(GAME, 2)) as pool:
            acting = AgentPolicy(policy, params, np.array([0, 1]), SEEDS, 2)
            returns.append(play(pool, SEEDS, acting, watch=watch).returns)
    return returns, policy.init(2), params


def search() -> Any:
    """A generation of the search."""
    evolution = Evolution("CMA_ES", 10, 8, 0.1, jax.random.key(0))
    state, candidates = evolution.ask(evolution.init())
    state = evolution.tell(state, np.random.default_rng(3).random((8, 2)))
    return state, candidates, evolution.mean(state)


PARTS = {
    "V in C": lambda: auto_encoder(True),
    "V": lambda: auto_encoder(False),
    "M in C": recurrent,
    "M": lambda: recurrent(fast_kernels=False),
    "M of GRU": lambda: recurrent(cell="gru"),
    "car": car,
    "agent on z, h and c": lambda: agent("zhc"),
    "search": search,
}


def main() -> None:
    """Print what comes of every part."""
    found = {}
    for name, part in PARTS.items():
        leaves = jax.tree.leaves(part())
        kinds = sorted({str(leaf.dtype) for leaf in leaves if isinstance(leaf, jax.Array)})
        arrays = [np.asarray(leaf, np.float64) for leaf in leaves]
        found[name] = {"kinds": kinds, "sums": [[float(each.sum()), float(np.abs(each).sum())] for each in arrays]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
