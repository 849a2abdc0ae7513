"""Auto-encoders that have more than parameters: batch statistics and random keys, through training, disk and play."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_training import StopAt, stage

from wm_jax.config.schema import EnvConfig
from wm_jax.config.vaes import VaeConfig, VanillaConfig
from wm_jax.data.frames import ResidentFrames
from wm_jax.distributed.mesh import open_mesh
from wm_jax.envs.games import find
from wm_jax.models import vae
from wm_jax.models.agent import make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.latents import Gaussian
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Update, Vae, gradient_of
from wm_jax.run.artifacts import Trained, init_vae
from wm_jax.run.folder import Stage
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.stages.encode import _encoder
from wm_jax.training.loop import Schedule, fit
from wm_jax.training.task import Task

PIXELS, LATENT, STEPS = 8 * 8 * 3, 4, 7
FRAMES = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), dtype=np.uint8)


class Toy(Vae):
    """Every eighth pixel, normalised by the batch or partly dropped, to a Gaussian and back."""

    def __init__(self, config: VaeConfig, rngs: nnx.Rngs, kind: str):
        self.config, self.kind = config, kind
        self.layer = nnx.BatchNorm(PIXELS, rngs=rngs) if kind == "normalised" else nnx.Dropout(0.5, rngs=rngs)
        self.inner, self.outer = nnx.Linear(PIXELS, 2 * LATENT, rngs=rngs), nnx.Linear(LATENT, PIXELS, rngs=rngs)

    def _encode(self, frames: jax.Array, training: bool) -> Gaussian:
        x = frames[:, ::8, ::8].reshape(len(frames), PIXELS)
        switch: dict[str, Any] = (
            {"use_running_average": not training} if self.kind == "normalised" else {"deterministic": not training}
        )
        with jax.numpy_rank_promotion("allow"):
            return Gaussian(*jnp.split(self.inner(self.layer(x, **switch)), 2, -1))

    def encode(self, frames: jax.Array) -> Gaussian:
        return self._encode(frames, training=False)

    def decode(self, z: jax.Array) -> jax.Array:
        with jax.numpy_rank_promotion("allow"):
            small = jax.nn.sigmoid(self.outer(z)).reshape(len(z), 8, 8, 3)
        return jnp.repeat(jnp.repeat(small, 8, 1), 8, 2)

    def loss(self, batch: Batch, update: Update) -> tuple[jax.Array, dict[str, Any]]:
        assert batch.weights is None and update.data_size == 0
        target = to_float(batch.frames)
        posterior = self._encode(target, update.training)
        error = jnp.mean(jnp.square(self.decode(posterior.mode()) - target))
        return error, {"loss": error, "reconstruction": error, "kl": jnp.mean(posterior.log_var)}


@pytest.fixture(params=["normalised", "dropping"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(vae.CLASSES, "vanilla", lambda config, rngs: Toy(config, rngs, request.param))
    return request.param


def train(folder: Stage, stop: Stop) -> tuple[Any, Any]:
    graphdef, params = init_vae(VanillaConfig(latent=LATENT), 0)

    def report(params: Any, step: int) -> dict[str, float]:
        loss, _ = nnx.merge(graphdef, params).loss(
            Batch(jnp.asarray(FRAMES)), Update(jax.random.key(0), training=False)
        )
        return {"test_error": float(loss)}

    trained, figures = fit(
        Task.single(gradient_of(graphdef), optax.adam(1e-2), ResidentFrames(FRAMES, 8, seed=3)),
        params,
        (),
        schedule=Schedule(STEPS, per_dispatch=2, save_every=100, report_every=100),
        stage=folder,
        seed=7,
        stop=stop,
        report=report,
    )
    assert figures["test_error"] > 0
    return graphdef, trained


def numbers(variables: Any) -> list[np.ndarray]:
    """The leaves, keys as what they are made of."""
    leaves = jax.tree.leaves(variables)
    are_keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [np.asarray(jax.random.key_data(x) if is_key else x) for x, is_key in zip(leaves, are_keys, strict=True)]


def test_they_train_and_go_on_where_they_were_stopped(kind: str, tmp_path: Path) -> None:
    graphdef, undisturbed = train(stage(tmp_path / "undisturbed"), Stop())
    broken = stage(tmp_path / "broken")
    with pytest.raises(Interrupted):
        train(broken, StopAt(2))
    (kept,) = broken.checkpoints.steps()
    assert 0 < kept < STEPS
    _, resumed = train(broken, Stop())
    for a, b in zip(numbers(undisturbed), numbers(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    layer = nnx.merge(graphdef, undisturbed).layer
    if kind == "normalised":
        share = 1 - 0.99**STEPS  # of what it has seen in the running mean
        seen = FRAMES[:, ::8, ::8].mean(0).ravel() / 255
        np.testing.assert_allclose(layer.mean[...], share * seen, atol=0.3 * share)
        assert not np.allclose(layer.mean[...], 0, atol=0.1 * share)
    else:
        fresh = nnx.merge(*init_vae(VanillaConfig(latent=LATENT), 0)).layer
        assert int(layer.rngs.count[...]) == int(fresh.rngs.count[...]) + STEPS


def test_what_they_have_seen_is_kept_with_the_weights_and_used_in_play(kind: str, tmp_path: Path) -> None:
    folder = stage(tmp_path)
    graphdef, trained = train(folder, Stop())
    digest = folder.weights.save(STEPS, trained)
    _, fresh = init_vae(VanillaConfig(latent=LATENT), 1)
    found = folder.weights.restore(fresh)
    assert found is not None and found[2]["digest"] == digest
    restored = jax.device_put(found[1])
    for a, b in zip(numbers(trained), numbers(restored), strict=True):
        np.testing.assert_array_equal(a, b)
    wanted = nnx.merge(graphdef, trained).encode(to_float(jnp.asarray(FRAMES))).mean
    mean = _encoder(Trained(graphdef, restored, digest, {}), 16, open_mesh(1, 1, ""))(FRAMES)["mean"]
    np.testing.assert_allclose(mean, wanted, atol=1e-5)
    space = find("gymnasium:probe_games:Probe-v0", EnvConfig()).actions
    controller = Controller("z", 0, LATENT, 0, space)
    model = nnx.merge(graphdef, restored)
    agent, params = make_agent(model, None, controller, jnp.zeros(controller.n_params))
    seen = agent.see(params, jnp.asarray(FRAMES), jax.random.split(jax.random.key(0), len(FRAMES)))
    np.testing.assert_allclose(seen, wanted, atol=1e-5)


def test_a_model_of_parameters_alone_keeps_its_layout() -> None:
    """So that its weights on disk stay readable."""
    from wm_jax.models.variables import combine, partition
    from wm_jax.run.checkpoints import layout_of

    _, params = init_vae(VanillaConfig(width=0.125), 0)
    learned, others = partition(params)
    assert others is None and layout_of(learned) == layout_of(combine(learned, others)) == layout_of(params)
    assert partition({"w": 1}) == ({"w": 1}, None)
