"""What `test_devices.py` runs in a process that sees eight virtual devices: `python many_devices.py FOLDER`.

Trains a small V and a small M on one device, on eight, and on eight and then two; encodes and acts with one device and
with eight; prints the differences as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import conftest  # noqa: F401 (strict JAX on the CPU)
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from wm_jax import cli
from wm_jax.config.layers import load
from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.data.frames import ResidentFrames
from wm_jax.data.sequences import FlatLatents, SequenceBatches
from wm_jax.distributed.mesh import RowSharing, open_local_mesh, open_mesh
from wm_jax.envs.games import find
from wm_jax.envs.names import family_of
from wm_jax.models import memory, vae
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.run.artifacts import init_memory, init_vae, load_world
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.training.loop import Schedule, fit
from wm_jax.training.task import Task
from wm_jax.utils.errors import UserError

STEPS = 6


def vae_task() -> tuple[Task, Any, Any]:
    """A small V on random frames."""
    graphdef, params = init_vae(VanillaConfig(width=0.125, fast_kernels=False), 0)
    frames = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    return Task.single(vae.gradient_of(graphdef), optax.sgd(1e-6), ResidentFrames(frames, 16, 0)), params, ()


def memory_task() -> tuple[Task, Any, Any]:
    """A small M, whose state is carried from batch to batch."""
    graphdef, params = init_memory(MemoryConfig(hidden=16), LatentKind(8), 3, 0)
    random, offsets = np.random.default_rng(0), np.arange(0, 601, 60)
    z, action = random.normal(size=(600, 8)).astype(np.float32), random.normal(size=(600, 3)).astype(np.float32)
    latents = FlatLatents(Gaussian(z, z * 0), action, z[:, 0], z[:, 0] * 0, offsets)
    carry = nnx.merge(graphdef, params).init_carry(16)
    batches = SequenceBatches(latents, 8, 16, 0, carried=True)
    return Task.single(memory.gradient_of(graphdef, carried=True), optax.sgd(1e-2), batches), params, carry


def train(folder: Path, name: str, make: Any, devices: int, steps: int = STEPS) -> np.ndarray:
    """All weights after so many steps."""
    task, params, carry = make()
    stage = Run(folder).stage(name)
    with stage.lock():
        trained, _ = fit(
            task,
            jax.tree.map(jnp.copy, params),
            carry,
            schedule=Schedule(steps, 3, 3, 6),
            stage=stage,
            seed=5,
            stop=Stop(),
            report=lambda params, step: {},
            mesh=open_mesh(devices, 16, "vae.batch"),
        )
    return weights(trained)


def weights(params: Any) -> np.ndarray:
    """All of them, in one row."""
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(params)])


TASKS = {"vae": vae_task, "memory": memory_task}


def encode(folder: Path, devices: int) -> tuple[np.ndarray, int]:
    """The latents of a smoke run's replays, made anew; and the command's exit status."""
    words = ["encode", "--game", "chaser", "--preset", "smoke", "--run", str(folder), "--fresh"]
    status = cli.main([*words, "--encode.batch", "60", "--devices", str(devices)])
    latents = np.concatenate([np.load(path)["mean"] for path in sorted((folder / "latents").glob("*.npz"))])
    return latents, status


def act(devices: int) -> np.ndarray:
    """M's states after three steps of 16 slots, the frames of twelve shown at a time."""
    settings = {"vae": {"width": 0.125}, "memory": {"hidden": 16}, "controller": {"world": "random"}}
    config = load("chaser", family_of("chaser"), "smoke", settings)
    world = load_world(Run(Path()), config, find("chaser", config.env), config.controller)
    params = world.params(jnp.ones((4, world.agent.controller.n_params)))
    random, slots = np.random.default_rng(0), np.arange(16, dtype=np.int32)
    shared = RowSharing(open_local_mesh(devices))
    policy = AgentPolicy(world.agent, params, slots % 4, slots.tolist(), 16, shared)
    policy.start(slots, slots)
    for _ in range(3):
        ids = np.sort(random.choice(slots, 12, replace=False))
        policy.act(ids, random.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    return np.concatenate([np.asarray(state) for state in policy._carry.memory])


def main(folder: Path) -> dict[str, Any]:
    """The figures that the test looks at."""
    assert jax.device_count() == 8
    figures: dict[str, Any] = {}
    for name, make in TASKS.items():
        before = weights(make()[1])
        one, eight = (train(folder / f"{name}{count}", name, make, count) for count in (1, 8))
        train(folder / f"{name}-resumed", name, make, 8, steps=3)
        resumed = train(folder / f"{name}-resumed", name, make, 2)
        moved = float(np.abs(one - before).max())
        figures[name] = {
            "moved": moved,
            "eight": float(np.abs(eight - one).max()) / moved,
            "resumed": float(np.abs(resumed - one).max()) / moved,
        }
    try:
        open_mesh(8, 100, "vae.batch")
    except UserError as error:
        figures["uneven"] = str(error)
    figures["automatic"] = open_mesh(0, 100, "vae.batch").size
    words = ["train_vae", "--game", "chaser", "--preset", "smoke", "--run", str(folder / "run"), "--devices", "8"]
    figures["command"] = cli.main([*words, "--vae.width", "0.125"])
    (one, _), (eight, status) = (encode(folder / "run", count) for count in (1, 8))
    figures["encode"] = {"status": status, "spread": float(one.std()), "eight": float(np.abs(eight - one).max())}
    (one, eight), sharing = map(act, (1, 8)), RowSharing(open_local_mesh(8))
    figures["act"] = {"spread": float(one.std()), "eight": float(np.abs(eight - one).max())}
    figures["rows"] = [[shard.data.shape[0] for shard in sharing.rows(np.zeros(n)).addressable_shards] for n in (16, 9)]
    return figures


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
