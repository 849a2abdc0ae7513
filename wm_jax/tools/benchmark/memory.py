"""M's benchmark: training updates on long sequences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.schema import MemoryConfig
from wm_jax.data.sequences import FlatLatents, SequenceBatches
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.models.memory import gradient_of, loss_and_grad
from wm_jax.run.artifacts import init_memory
from wm_jax.tools.benchmark import flops
from wm_jax.tools.benchmark.case import OURS, PLAIN, TUNED, WRITTEN, Case, Options
from wm_jax.tools.benchmark.timing import Work
from wm_jax.tools.benchmark.updates import updates
from wm_jax.tools.benchmark.vae import difference
from wm_jax.training.task import Task, adam

LATENT, ACTION = 32, 3
EPISODES = 200
LEARNING_RATE = 1e-3


def training(options: Options) -> Case:
    """Updates of the paper's M: 1,000 steps, batch 100, float32, gradients clipped by value, Adam."""
    steps, batch = (16, 4) if options.small else (1000, options.batch or 100)
    config = MemoryConfig(hidden=32 if options.small else 256, sequence=steps, batch=batch)
    latents = wandering_latents(batch if options.small else EPISODES, steps)
    model = nnx.merge(*init_memory(config, LatentKind(LATENT), ACTION, 0))

    def ours(*, fast: bool) -> Work:
        settings = config.model_copy(update={"fast_kernels": fast})
        graphdef, params = init_memory(settings, LatentKind(LATENT), ACTION, 0)
        carry = nnx.merge(graphdef, params).init_carry(batch)
        batches = SequenceBatches(latents, steps, batch, 0, False)
        task = Task.single(gradient_of(graphdef, carried=False), adam(LEARNING_RATE, None, 1, config.clip), batches)
        return updates(task, params, carry, batch=batch, count=1, devices=options.devices)

    def theirs(*, tuned: bool) -> Work:
        from wm_jax.tools.benchmark.pytorch import memory

        return memory.training(model, latents, steps, batch, LEARNING_RATE, tuned=tuned)

    def agreement() -> float:
        from wm_jax.tools.benchmark.pytorch import memory

        graphdef, params = init_memory(config, LatentKind(LATENT), ACTION, 0)
        batches = SequenceBatches(latents, min(steps, 64), 4, 0, False)
        shown = batches.fetch(batches.data, jax.tree.map(jnp.asarray, batches.windows.places(0)))
        key, carry = jax.random.key(1), model.init_carry(4)
        metrics, _, gradients, _ = jax.jit(lambda p: loss_and_grad(graphdef, p, shown, carry, key))(params)
        noise = np.array(jax.random.normal(key, shown.latent.mean.shape))
        loss, gradient = memory.loss_and_gradient(model, shown, noise)
        recurrent = nnx.merge(graphdef, gradients).cell.wh[...]
        return max(difference(metrics["loss"], loss), difference(recurrent, gradient))

    makers = {
        OURS: lambda: ours(fast=True),
        PLAIN: lambda: ours(fast=False),
        TUNED: lambda: theirs(tuned=True),
        WRITTEN: lambda: theirs(tuned=False),
    }
    name = f"M training, {steps:,} steps, batch {batch}"
    return Case(name, "sequence steps", steps * batch, flops.memory_update(model), makers, agreement, 1e-3)


def wandering_latents(episodes: int, steps: int) -> FlatLatents:
    """Episodes of one length whose latents wander."""
    random = np.random.default_rng(0)
    count = episodes * (steps + 1)
    mean: Any = np.sin(np.cumsum(random.normal(0, 0.1, (count, LATENT)), 0)).astype(np.float32)
    return FlatLatents(
        latent=Gaussian(mean, 0 * mean - 3),
        action=random.uniform(-1, 1, (count, ACTION)).astype(np.float32),
        reward=np.zeros(count, np.float32),
        done=np.zeros(count, np.float32),
        offsets=np.arange(episodes + 1, dtype=np.int64) * (steps + 1),
    )
