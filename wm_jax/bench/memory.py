"""M's benchmark: training updates on long sequences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.artefacts import init_memory
from wm_jax.bench import flops
from wm_jax.bench.case import OURS, PLAIN, TUNED, WRITTEN, Case, Options
from wm_jax.bench.timing import Work
from wm_jax.bench.vae import difference
from wm_jax.config import MemoryConfig
from wm_jax.data.sequences import FlatLatents, SequenceBatches
from wm_jax.models.memory import loss_and_grad
from wm_jax.training import Task, TrainState, adam, compile_dispatch

LATENT, ACTION = 32, 3
EPISODES = 200
LEARNING_RATE = 1e-3


def training(options: Options) -> Case:
    """Updates of the paper's M: 1,000 steps, batch 100, float32, gradients clipped by value, Adam."""
    steps, batch = (16, 4) if options.small else (1000, options.batch or 100)
    config = MemoryConfig(hidden=32 if options.small else 256, sequence=steps, batch=batch)
    latents = _latents(batch if options.small else EPISODES, steps)

    def ours(*, fast: bool) -> Work:
        settings = config.model_copy(update={"fast_kernels": fast})
        graphdef, params = init_memory(settings, LATENT, ACTION, 0)
        carry = nnx.merge(graphdef, params).init_carry(batch)

        def gradient(params: Any, batch: Any, carry: Any, key: jax.Array) -> tuple[Any, Any, Any]:
            metrics, _, gradients = loss_and_grad(graphdef, params, batch, carry, key)
            return metrics, carry, gradients

        task = Task(
            gradient, adam(LEARNING_RATE, None, 1, config.clip), SequenceBatches(latents, steps, batch, 0, False)
        )
        dispatch = compile_dispatch(task)
        state = TrainState(params, task.optimizer.init(params), carry)
        step = 0

        def work() -> None:
            nonlocal state, step
            references = task.batches.references(step, 1, 1)
            state, sums = dispatch(state, task.batches.data, references, step, 1, jax.random.key(0))
            jax.block_until_ready(sums)
            step += 1

        return work

    def theirs(*, tuned: bool) -> Work:
        import torch

        model = _torch_memory(config)
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=tuned)
        episode = (torch.from_numpy(np.array(part)) for part in (latents.mean, latents.log_var, latents.action))
        mean, log_var, action = (part.unflatten(0, (-1, steps + 1)) for part in episode)
        order = torch.Generator().manual_seed(0)
        # The recurrent layer is one call of oneDNN or cuDNN either way; compiled, what follows it is fused.
        loss_of = torch.compile(model.loss) if tuned else model.loss
        mask = torch.ones(steps, batch)

        def work() -> None:
            chosen = torch.randint(len(mean), (batch,), generator=order)
            noise = torch.randn(batch, steps + 1, LATENT)
            z = (mean[chosen] + torch.exp(0.5 * log_var[chosen]) * noise).transpose(0, 1)
            optimizer.zero_grad(set_to_none=tuned)
            loss = loss_of(z, action[chosen, :-1].transpose(0, 1), mask)
            loss.backward()
            torch.nn.utils.clip_grad_value_(model.parameters(), config.clip)
            optimizer.step()
            if not tuned:
                loss.item()

        return work

    def agreement() -> float:
        from wm_jax.bench.torch_models import sequences_of

        graphdef, params = init_memory(config, LATENT, ACTION, 0)
        batches = SequenceBatches(latents, min(steps, 64), 4, 0, False)
        batch = batches.fetch(batches.data, jax.tree.map(jnp.asarray, batches.places(0)))
        key = jax.random.key(1)
        carry = nnx.merge(graphdef, params).init_carry(4)
        metrics, _, gradients = jax.jit(lambda p: loss_and_grad(graphdef, p, batch, carry, key))(params)
        model = _torch_memory(config)
        theirs = model.loss(*sequences_of(batch, np.asarray(jax.random.normal(key, batch.mean.shape))))
        theirs.backward()
        recurrent = np.asarray(nnx.merge(graphdef, gradients).cell.wh[...]).T
        return max(difference(metrics["loss"], theirs.detach()), difference(recurrent, model.lstm.weight_hh_l0.grad))

    makers = {
        OURS: lambda: ours(fast=True),
        PLAIN: lambda: ours(fast=False),
        TUNED: lambda: theirs(tuned=True),
        WRITTEN: lambda: theirs(tuned=False),
    }
    work = flops.memory_update(nnx.merge(*init_memory(config, LATENT, ACTION, 0)))
    return Case(
        f"M training, {steps:,} steps, batch {batch}", "sequence steps", steps * batch, work, makers, agreement, 1e-3
    )


def _latents(episodes: int, steps: int) -> FlatLatents:
    """Episodes of one length whose latents wander."""
    random = np.random.default_rng(0)
    count = episodes * (steps + 1)
    return FlatLatents(
        mean=np.sin(np.cumsum(random.normal(0, 0.1, (count, LATENT)), 0)).astype(np.float32),
        log_var=np.full((count, LATENT), -3.0, np.float32),
        action=random.uniform(-1, 1, (count, ACTION)).astype(np.float32),
        reward=np.zeros(count, np.float32),
        done=np.zeros(count, np.float32),
        offsets=np.arange(episodes + 1, dtype=np.int64) * (steps + 1),
    )


def _torch_memory(config: MemoryConfig) -> Any:
    from wm_jax.bench.torch_models import TorchMemory

    return TorchMemory(nnx.merge(*init_memory(config, LATENT, ACTION, 0)))
