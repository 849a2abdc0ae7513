"""Losses that see more than frames and a key: beside a discriminator, and with a weight that grows with the updates."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_training import StopAt, stage

from wm_jax.data.frames import ResidentFrames
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Objective, Update, Vae, gradient_of
from wm_jax.run.folder import Stage
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.metrics import read_metrics
from wm_jax.training.loop import Schedule, fit
from wm_jax.training.task import OptimizerStep, Task

FRAMES = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), dtype=np.uint8)
PIXELS, LATENT = 4 * 4 * 3, 3
JUDGE = nnx.PathContains("judge")


class Adversarial(Vae):
    """Sixteen pixels to a code and back; a judge tells codes from N(0, 1), and the code is to deceive it (Makhzani et
    al. 2016)."""

    objectives = (Objective("loss", nnx.Not(JUDGE)), Objective("judge_loss", JUDGE))

    def __init__(self, rngs: nnx.Rngs):
        self.inner, self.outer = nnx.Linear(PIXELS, LATENT, rngs=rngs), nnx.Linear(LATENT, PIXELS, rngs=rngs)
        self.judge = nnx.Linear(LATENT, 1, rngs=rngs)

    def _code(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        pixels = to_float(batch.frames)[:, ::16, ::16].reshape(len(batch.frames), PIXELS)
        return pixels, self.inner(pixels)

    @jax.numpy_rank_promotion("allow")
    def loss(self, batch: Batch, update: Update) -> tuple[jax.Array, dict[str, jax.Array]]:
        pixels, code = self._code(batch)
        error = jnp.mean(jnp.square(self.outer(code) - pixels))
        return error - 0.1 * jnp.mean(jax.nn.log_sigmoid(self.judge(code))), {"loss": error}

    @jax.numpy_rank_promotion("allow")
    def judge_loss(self, batch: Batch, update: Update) -> tuple[jax.Array, dict[str, jax.Array]]:
        code = self._code(batch)[1]
        true = self.judge(jax.random.normal(update.key, code.shape))
        loss = -jnp.mean(jax.nn.log_sigmoid(true) + jax.nn.log_sigmoid(-self.judge(code)))
        return loss, {"judge": loss}


def task(graphdef: Any, objectives: tuple[Objective, ...], optimizers: list[Any], data_size: int = 0) -> Task:
    steps = tuple(
        OptimizerStep(gradient_of(graphdef, objective, data_size), optimizer, objective.learned)
        for objective, optimizer in zip(objectives, optimizers, strict=True)
    )
    return Task(steps, ResidentFrames(FRAMES, 8, seed=3))


def train(model: Vae, folder: Stage, stop: Stop, optimizers: list[Any], data_size: int = 0) -> Any:
    graphdef, params = nnx.split(model)
    return fit(
        task(graphdef, model.objectives, optimizers, data_size),
        params,
        (),
        schedule=Schedule(9, per_dispatch=2, save_every=100, report_every=100),
        stage=folder,
        seed=7,
        stop=stop,
        report=lambda params, step: {"test": 0.0},
    )[0]


def test_each_loss_changes_its_own_parameters_and_sees_what_the_one_before_left() -> None:
    model, rate = Adversarial(nnx.Rngs(0)), 0.5
    graphdef, params = nnx.split(model)
    both = task(graphdef, model.objectives, [optax.sgd(rate), optax.sgd(rate)])
    key, batch = jax.random.key(1), jnp.asarray(FRAMES[:8])
    state, metrics = jax.jit(both.update)(both.start(params, ()), batch, key, jnp.int32(0))
    assert set(metrics) == {"loss", "judge"}

    def after(name: str, model: Adversarial, key: jax.Array) -> Any:
        loss = lambda model: getattr(model, name)(Batch(batch), Update(key))[0]  # noqa: E731
        return nnx.grad(loss)(model)

    def move(layer: Any, gradient: Any) -> None:
        layer.kernel[...] -= rate * gradient.kernel[...]
        layer.bias[...] -= rate * gradient.bias[...]

    first = after("loss", model, jax.random.split(key)[1])
    move(model.inner, first.inner)
    move(model.outer, first.outer)
    move(model.judge, after("judge_loss", model, jax.random.split(jax.random.fold_in(key, 1))[1]).judge)
    found = nnx.merge(graphdef, state.params)
    for ours, by_hand in zip(jax.tree.leaves(nnx.state(found)), jax.tree.leaves(nnx.state(model)), strict=True):
        np.testing.assert_allclose(ours, by_hand, rtol=1e-5, atol=1e-6)


def test_a_model_and_its_judge_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    def run(folder: Stage, stop: Stop) -> Any:
        return train(Adversarial(nnx.Rngs(0)), folder, stop, [optax.adam(1e-2), optax.adam(3e-2)])

    undisturbed = run(stage(tmp_path / "undisturbed"), Stop())
    broken = stage(tmp_path / "broken")
    with pytest.raises(Interrupted):
        run(broken, StopAt(2))
    resumed = run(broken, Stop())
    for a, b in zip(jax.tree.leaves(undisturbed), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = [row for row in read_metrics(broken.path / "metrics.jsonl") if "train_judge" in row]
    assert rows[-1]["step"] == 9 and {"train_loss", "train_judge"} <= set(rows[-1])


class Annealed(Vae):
    """A weight that grows to 1 in four updates, and one over the size of the data."""

    def __init__(self, rngs: nnx.Rngs):
        self.weight = nnx.Param(jnp.float32(1.0))

    def loss(self, batch: Batch, update: Update) -> tuple[jax.Array, dict[str, jax.Array]]:
        beta = jnp.minimum(jnp.float32(update.step) / 4, 1.0)
        return beta * self.weight[...] ** 2, {"loss": beta, "share": jnp.float32(1 / update.data_size)}


def test_a_loss_knows_which_update_it_is_taken_in_wherever_training_was_resumed(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    train(Annealed(nnx.Rngs(0)), folder, Stop(), [optax.sgd(0.1)], data_size=50)
    rows = {row["step"]: row for row in read_metrics(folder.path / "metrics.jsonl") if "train_loss" in row}
    means = {2: (0 + 0.25) / 2, 4: (0.5 + 0.75) / 2, 6: 1.0, 8: 1.0, 9: 1.0}
    assert {step: row["train_loss"] for step, row in rows.items()} == pytest.approx(means)
    assert rows[9]["train_share"] == pytest.approx(0.02)
