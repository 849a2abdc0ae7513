"""The auto-encoder of the paper: size, losses against Monte Carlo and by hand, the fast path against the plain one."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wm_jax.config.vaes import VanillaConfig
from wm_jax.kernels import native
from wm_jax.models.latents import Gaussian
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Update, layers, loss_and_grad, make_vae, paper
from wm_jax.models.vae.examples import PATCHES, Examples, fixed_patches, with_noise
from wm_jax.models.vae.losses import kl_to_standard_normal, squared_error
from wm_jax.models.vae.vanilla import Vanilla
from wm_jax.utils.errors import UserError


def frames(count, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8))


def small(**settings):
    """A narrow network: the same code, a sixteenth of the work."""
    return VanillaConfig.model_validate({"width": 0.125, "latent": 4, "fast_kernels": False} | settings)


@partial(jax.jit, static_argnums=0)
def grad(graphdef: Any, params: Any, frames: jax.Array, key: jax.Array) -> Any:
    return loss_and_grad(graphdef, params, Batch(frames), Update(key))


def grad_of(config, batch):
    graphdef, params = nnx.split(make_vae(config, nnx.Rngs(0)))
    metrics, gradients, others = grad(graphdef, params, batch, jax.random.key(3))
    assert others is None
    return (metrics["loss"], metrics), gradients


def test_the_paper_s_number_of_parameters():
    params = nnx.eval_shape(lambda: nnx.state(make_vae(VanillaConfig.model_validate({}), nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4_348_547


def test_to_float_reaches_both_ends():
    frame = jnp.broadcast_to(jnp.asarray([0, 51, 255], jnp.uint8), (64, 64, 3))
    zero, fifth, one = to_float(frame)[0, 0]
    assert (zero, one) == (0, 1)
    assert abs(fifth - 0.2) < 1e-7


def test_shapes_and_range():
    model = make_vae(small(), nnx.Rngs(0))
    posterior: Any = model.encode(to_float(frames(3)))
    assert posterior.mean.shape == posterior.log_var.shape == (3, 4)
    decoded = model.decode(posterior.mean)
    assert decoded.shape == (3, 64, 64, 3)
    assert 0 < decoded.min() < decoded.max() < 1


def test_fresh_weights_keep_the_scale():
    """Per-layer fan-in: activations neither vanish nor explode, and the first picture is not saturated."""
    model = make_vae(small(width=0.5), nnx.Rngs(0))
    assert isinstance(model, Vanilla)
    features = model.encoder(to_float(frames(8)))
    assert 0.1 < jnp.mean(jnp.square(features)) < 1.0
    logits = jax.scipy.special.logit(model.decode(jax.random.normal(jax.random.key(0), (8, 4))))
    assert 0.2 < jnp.std(logits) < 2.0


def test_kl_equals_monte_carlo():
    mean, log_var = jnp.asarray([[0.5, -1.0], [0.0, 2.0]]), jnp.asarray([[-1.0, 0.5], [0.0, -2.0]])
    posterior = Gaussian(mean, log_var)
    repeated = Gaussian(*(jnp.tile(part, (200_000, 1)) for part in posterior))
    z = repeated.sample(jax.random.key(0)).reshape(200_000, 2, 2)
    log_q = jax.scipy.stats.norm.logpdf(z, mean[None], jnp.exp(log_var / 2)[None])
    estimate = jnp.mean(jnp.sum(log_q - jax.scipy.stats.norm.logpdf(z), axis=-1), axis=0)
    np.testing.assert_allclose(kl_to_standard_normal(posterior), estimate, rtol=0.01)


def test_loss_is_summed_over_pixels_and_averaged_over_the_batch():
    config = small(beta=2.0, free_nats=0.0)
    model, batch, key = make_vae(config, nnx.Rngs(0)), frames(3), jax.random.key(5)
    loss, metrics = model.loss(Batch(batch), Update(key))
    posterior: Any = model.encode(to_float(batch))
    decoded = model.decode(posterior.sample(jax.random.split(key)[0]))
    error = np.square(np.asarray(decoded) - np.asarray(batch, np.float64) / 255).sum() / 3
    posterior: Any = model.encode(to_float(batch))
    kl = np.asarray(kl_to_standard_normal(posterior)).sum() / 3
    np.testing.assert_allclose(metrics["reconstruction"], error, rtol=1e-4)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(loss, error + 2 * kl, rtol=1e-4)
    assert metrics["loss"] == loss


def test_floor_is_per_sample_and_stops_the_gradient():
    batch = frames(2)
    model = make_vae(small(), nnx.Rngs(0))
    posterior: Any = model.encode(to_float(batch))
    kl = np.asarray(kl_to_standard_normal(posterior))
    assert kl.min() < kl.max()
    between = float(kl.mean()) / 4
    losses = {}
    for free_nats in (0.0, between, 100.0):
        (loss, metrics), _ = grad_of(small(free_nats=free_nats), batch)
        losses[free_nats] = float(loss) - float(metrics["reconstruction"])
        np.testing.assert_allclose(metrics["kl"], kl.mean(), rtol=1e-3)
    np.testing.assert_allclose(losses[0.0], kl.mean(), rtol=2e-2)
    # Floored per sample, not on average: only the sample below the floor is lifted.
    np.testing.assert_allclose(losses[between], (kl.max() + kl.mean()) / 2, rtol=2e-2)
    np.testing.assert_allclose(losses[100.0], 400.0, rtol=1e-5)
    below, without = (grad_of(small(**setting), batch)[1] for setting in ({"free_nats": 100.0}, {"beta": 0.0}))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), below, without)


def test_gradient_reaches_every_parameter():
    (_, _), grads = grad_of(small(free_nats=0.0), frames(4))
    for path, leaf in jax.tree.leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path


@pytest.mark.parametrize("batch", [3, 27])
def test_fast_equals_plain(batch):
    (plain, _), expected = grad_of(small(), frames(batch))
    (fast, _), got = grad_of(small(fast_kernels=True, bfloat16=False), frames(batch))
    np.testing.assert_allclose(fast, plain, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other)


narrow_only = pytest.mark.skipif(not native.narrow(), reason="this processor does not multiply bfloat16")


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=narrow_only)])
def test_bfloat16_computes_about_the_same_on_float32_parameters(monkeypatch: pytest.MonkeyPatch, fast: bool):
    batch = frames(8)
    (expected, _), plain = grad_of(small(bfloat16=False), batch)
    if not fast:  # as on an accelerator
        for module in (layers, paper):
            monkeypatch.setattr(module, "compute_type", lambda _: jnp.bfloat16)
    (loss, _), gradients = grad_of(small(fast_kernels=fast), batch)
    assert loss.dtype == jnp.float32 and loss != expected
    np.testing.assert_allclose(loss, expected, rtol=1e-2)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(plain), strict=True):
        assert one.dtype == jnp.float32
        assert np.vdot(one, other) > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)


def test_where_convolutions_multiply_in_bfloat16(monkeypatch: pytest.MonkeyPatch):
    def chosen(backend: str, narrow: bool, **settings: Any) -> Any:
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        monkeypatch.setattr(native, "narrow", lambda: narrow)
        return layers.compute_type(VanillaConfig.model_validate(settings))

    assert chosen("gpu", False) == chosen("gpu", False, fast_kernels=False) == chosen("cpu", True) == jnp.bfloat16
    assert chosen("gpu", False, bfloat16=False) == chosen("cpu", True, bfloat16=False) == jnp.float32
    # A CPU without the instructions or our kernels, and channels that don't come in pairs (3, 6, 13, 26 of 32 to 256).
    assert chosen("cpu", False) == chosen("cpu", True, fast_kernels=False) == jnp.float32
    assert chosen("cpu", True, width=0.1) == jnp.float32 and chosen("gpu", True, width=0.1) == jnp.bfloat16


@pytest.mark.parametrize("batch", [1, 30])
def test_batch_neighbours_do_not_matter(batch):
    model = make_vae(small(fast_kernels=True), nnx.Rngs(0))
    x = to_float(frames(batch))
    alone, together = model.encode(x[:1]).mode(), model.encode(x).mode()[:1]
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-6)


def test_noise_patches_lie_on_the_grid_only():
    clean = jnp.zeros((2, 64, 64, 3))
    noisy = np.asarray(with_noise(clean, fixed_patches(), jax.random.key(0)))
    lines = [line for first, end in PATCHES for line in range(first, end)]
    assert lines[:6] == [5, 6, 7, 8, 9, 15]
    assert len(lines) == 30
    assert lines[-1] == 58
    changed = np.zeros((64, 64), bool)
    changed[np.ix_(lines, lines)] = True
    assert np.all(noisy[:, changed] > 0)
    assert not np.any(noisy[:, ~changed])
    assert abs(noisy[:, changed].mean() - 0.5) < 0.02
    assert not np.allclose(noisy[0], noisy[1])


def test_noise_patches_are_encoded_and_never_aimed_at():
    raw, key = frames(2), jax.random.key(1)
    config = small(noise_patches=True)
    vae = make_vae(config, nnx.Rngs(0))
    batch = Examples.of(config, np.asarray(raw)).batch(raw, jax.random.key(2))
    noised = with_noise(to_float(raw), fixed_patches(), jax.random.key(2))
    expected = squared_error(vae.decode(vae.encode(noised).sample(jax.random.split(key)[0])), to_float(raw)).mean()
    np.testing.assert_allclose(vae.loss(batch, Update(key))[1]["reconstruction"], expected, rtol=1e-5)
    assert vae.loss(Batch(raw), Update(key))[1]["reconstruction"] != expected


def test_width_scales_and_has_an_end():
    assert nnx.eval_shape(lambda: Vanilla(small(width=0.5), nnx.Rngs(0))).encoder.features == 512
    with pytest.raises(UserError, match="width"):
        make_vae(small(width=0.001), nnx.Rngs(0))
