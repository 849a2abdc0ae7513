"""Auto-encoders with tighter bounds, other priors and other posteriors, each against what was computed otherwise."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from flax import nnx

from wm_jax.config import vaes as settings
from wm_jax.models.latents import Gamma, Gaussian
from wm_jax.models.vae import Batch, Update, loss_and_grad, make_vae
from wm_jax.models.vae.bounds import log_mean_exp, log_weights
from wm_jax.models.vae.gamma import GammaVae, kl_of_gammas
from wm_jax.models.vae.iaf import Iaf, masks
from wm_jax.models.vae.vamp import Vamp, log_mixture

KEY = jax.random.key(5)
BOUNDS = ("iwae", "miwae", "piwae", "ciwae")


def make(variant: str, **given: Any) -> Any:
    """A small one."""
    kind = settings.VARIANTS[variant]
    beside: dict[str, Any] = {"free_nats": 0.0} if "free_nats" in kind.model_fields else {}
    small = {"variant": variant, "width": 0.125, "latent": 4, "bfloat16": False}
    return make_vae(kind.model_validate({**small, **beside, **given}), nnx.Rngs(0))


def frames(count: int = 3, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8))


def float64(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def gradients(model: Any, batch: Batch) -> dict[str, np.ndarray]:
    graphdef, variables = nnx.split(model)
    slopes = jax.jit(lambda variables: loss_and_grad(graphdef, variables, batch, Update(KEY))[1])(variables)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(slopes)}


@cache
def of_iwae(**given: Any) -> dict[str, np.ndarray]:
    """What special cases of the others are to learn by."""
    return gradients(make("iwae", **given), Batch(frames(2)))


def likelihoods(model: Any, samples: int, batch: Batch, beta: float = 1.0) -> np.ndarray:
    """Log weights [K, B] in float64, one sample and frame after the other, by SciPy's densities."""
    posterior = model.encode(batch.encoder_input)
    deviation = np.exp(float64(posterior.log_var) / 2)
    target = float64(batch.frames) / 255
    weights = 1.0 if batch.weights is None else float64(batch.weights)
    rows = []
    for key in jax.random.split(KEY, samples):
        z = float64(posterior.sample(key))
        apart = weights * (float64(model.decode(jnp.asarray(z, jnp.float32))) - target) ** 2
        log_q = scipy.stats.norm.logpdf(z, float64(posterior.mean), deviation).sum(1)
        log_p = scipy.stats.norm.logpdf(z).sum(1)
        rows.append(-apart.sum((1, 2, 3)) - beta * (log_q - log_p))
    return np.array(rows)


# IWAE and its relatives


@pytest.mark.parametrize("variant", BOUNDS)
def test_a_bound_is_what_the_paper_says_of_the_same_samples(variant: str) -> None:
    """With a beta, and pixels that weigh differently; in float64, where weights are formed as they stand."""
    weights = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2.0, (3, 64, 64, 1)), jnp.float32)
    batch = Batch(frames(), weights=weights)
    bounds = {} if variant in ("iwae", "ciwae") else {"bounds": 2}
    others = {"elbo_weight": 0.3} if variant == "ciwae" else {}
    model = make(variant, beta=0.7, samples=3, **bounds, **others)
    loss, metrics = model.loss(batch, Update(KEY))
    log_w = likelihoods(model, 3 * bounds.get("bounds", 1), batch, beta=0.7)
    shift = log_w.max(0)
    w = np.exp(log_w - shift)
    iwae = np.mean(np.log(w.mean(0)) + shift)
    by_bound = log_w.reshape(-1, 3, 3)
    shift = by_bound.max(1, keepdims=True)
    miwae = np.mean(np.log(np.exp(by_bound - shift).mean(1, keepdims=True)) + shift)
    expected = {"iwae": iwae, "piwae": iwae, "miwae": miwae, "ciwae": 0.3 * log_w.mean() + 0.7 * iwae}[variant]
    np.testing.assert_allclose(loss, -expected, rtol=1e-5)
    assert metrics["loss"] == loss
    if variant == "piwae":
        np.testing.assert_allclose(metrics["encoder_loss"], -miwae, rtol=1e-5)
    mean, log_var = (float64(part) for part in model.encode(batch.encoder_input))
    kl = [0.5 * (m**2 + np.exp(v) - 1 - v).sum() for m, v in zip(mean, log_var, strict=True)]
    np.testing.assert_allclose(metrics["kl"], np.mean(kl), rtol=1e-4)


def test_important_samples_weigh_most_in_the_gradient() -> None:
    """Each by its share of the sum: with the wrong sign the worst sample would lead."""
    log_w = jnp.asarray([[-9000.0, 3.0], [-9001.0, 3.0], [-9020.0, -400.0]])
    np.testing.assert_allclose(log_mean_exp(log_w), [-9000 + np.log1p(np.exp(-1)) - np.log(3), 3 + np.log(2 / 3)])
    slope = jax.grad(lambda log_w: -jnp.sum(log_mean_exp(log_w)))(log_w)
    first = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(slope, [[-first, -0.5], [first - 1, -0.5], [0, 0]], atol=1e-6)


def test_one_sample_is_the_usual_bound() -> None:
    """The mean of the loss over draws is the error's, plus the KL in closed form."""
    model, batch = make("iwae", samples=1, beta=3.0), Batch(frames(2))
    losses, errors, kls = [], [], []
    run = jax.jit(lambda key: model.loss(batch, Update(key))[1])
    for key in jax.random.split(KEY, 300):
        metrics = run(key)
        losses.append(metrics["loss"])
        errors.append(metrics["reconstruction"])
        kls.append(metrics["kl"])
    sampled = (np.array(losses) - np.array(errors)) / 3
    assert abs(sampled.mean() - kls[0]) < 4 * sampled.std() / np.sqrt(len(sampled))
    assert sampled.std() / np.sqrt(len(sampled)) < 0.1 * kls[0]


def test_more_samples_are_a_tighter_bound_of_a_known_likelihood() -> None:
    """x = z + noise of variance 1/2 in each of four numbers: p(x) = N(0, 1 + 1/2), whose constant is left out."""
    config = settings.IwaeConfig(latent=4)
    posterior = Gaussian(jnp.full((1, 4), 0.2), jnp.zeros((1, 4)))
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[0, 0, :4, 0] = (51, 102, 153, 204)

    def decode(z: jax.Array) -> jax.Array:
        return jnp.zeros((len(z), 64, 64, 3)).at[:, 0, :4, 0].set(z)

    bounds = {}
    for samples, draws in ((1, 500), (5, 500), (300, 20)):
        of = jax.jit(
            lambda key, samples=samples: log_mean_exp(
                log_weights(posterior, decode, config, Batch(jnp.asarray(picture)), Update(key), samples)[0]
            )[0]
        )
        bounds[samples] = np.mean([of(key) for key in jax.random.split(KEY, draws)])
    x = picture[0, 0, :4, 0] / 255
    known = (scipy.stats.norm.logpdf(x, 0, np.sqrt(1.5)) + 0.5 * np.log(np.pi)).sum()
    assert bounds[1] < bounds[5] - 0.1 < bounds[300] - 0.2
    np.testing.assert_allclose(bounds[300], known, atol=0.05)


@pytest.mark.parametrize(
    ("variant", "given", "special"),
    [
        ("miwae", {"bounds": 1, "samples": 3}, {"samples": 3}),
        ("piwae", {"bounds": 1, "samples": 3}, {"samples": 3}),
        ("ciwae", {"elbo_weight": 0.0, "samples": 3}, {"samples": 3}),
        ("ciwae", {"elbo_weight": 1.0, "samples": 1}, {"samples": 1}),
    ],
)
def test_special_cases_are_the_iwae(variant: str, given: dict[str, Any], special: dict[str, Any]) -> None:
    expected = of_iwae(**special)
    for path, slope in gradients(make(variant, **given), Batch(frames(2))).items():
        np.testing.assert_allclose(slope, expected[path], rtol=1e-4, atol=1e-4 * np.abs(expected[path]).max())


def test_piwae_s_decoder_learns_by_all_samples_and_its_encoder_by_bounds() -> None:
    batch, given = Batch(frames(2)), {"beta": 5.0}
    both = gradients(make("piwae", bounds=2, samples=2, **given), batch)
    together = of_iwae(samples=4, **given)
    apart = gradients(make("miwae", bounds=2, samples=2, **given), batch)
    assert both.keys() == together.keys() == apart.keys()
    for path, slope in both.items():
        right, wrong = (together, apart) if "decoder" in path else (apart, together)
        scale = np.abs(right[path]).max()
        np.testing.assert_allclose(slope, right[path], rtol=1e-3, atol=1e-4 * scale, err_msg=path)
        assert np.abs(slope - wrong[path]).max() > 1e-2 * scale, path


# VampPrior


def test_the_mixture_s_density_is_scipy_s() -> None:
    """With variances far from 1: divided by their logarithm, or by none, it would be another."""
    draw = np.random.default_rng(0)
    z, mean, log_var = draw.normal(size=(5, 4)), draw.normal(size=(3, 4)), draw.normal(size=(3, 4)) - 2
    pdf: Any = scipy.stats.multivariate_normal.pdf
    each = [pdf(z, m, np.diag(np.exp(v))) for m, v in zip(mean, log_var, strict=True)]
    expected = np.log(np.mean(each, axis=0))
    components = Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(log_var, jnp.float32))
    np.testing.assert_allclose(log_mixture(jnp.asarray(z, jnp.float32), components), expected, rtol=1e-4)


def test_one_component_at_the_standard_normal_is_vanilla(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sampled KL: on the average over draws the one in closed form."""
    monkeypatch.setattr(Vamp, "components", lambda self: Gaussian(jnp.zeros((1, 4)), jnp.zeros((1, 4))))
    posterior = Gaussian(jnp.asarray([[0.5, -1.0, 0.0, 2.0]]), jnp.asarray([[-1.0, 0.5, 0.0, -2.0]]))
    many = Gaussian(*(jnp.tile(part, (100_000, 1)) for part in posterior))
    given = {"beta": 2.0, "free_nats": 0.1}
    cost, metrics = make("vamp", **given).penalty(many, many.sample(KEY), Update(KEY))
    vanilla = make("vanilla", **given).penalty(posterior, posterior.mean, Update(KEY))[1]
    np.testing.assert_allclose(metrics["kl"], vanilla["kl"], rtol=0.01)
    sampled = scipy.stats.norm.logpdf(float64(many.sample(KEY)), float64(many.mean), np.exp(float64(many.log_var) / 2))
    sampled = (sampled - scipy.stats.norm.logpdf(float64(many.sample(KEY)))).sum(1)
    np.testing.assert_allclose(cost, 2 * np.maximum(sampled, 0.4).mean(), rtol=1e-4)


def test_learned_pictures_stay_pictures() -> None:
    model = make("vamp", components=3)
    model.pseudo_inputs[...] *= 50
    encoded: list[jax.Array] = []
    encode = model.encode
    object.__setattr__(model, "encode", lambda pictures: encoded.append(pictures) or encode(pictures))
    model.components()
    assert encoded[0].shape == (3, 64, 64, 3) and encoded[0].min() >= 0 and encoded[0].max() <= 1


def test_the_mixture_is_what_the_prior_draws_from() -> None:
    model = make("vamp", components=2)
    mean, log_var = (float64(part) for part in model.components())
    drawn = float64(model.prior(KEY, 40_000))
    np.testing.assert_allclose(drawn.mean(0), mean.mean(0), atol=0.05)
    second = (mean**2 + np.exp(log_var)).mean(0)
    np.testing.assert_allclose((drawn**2).mean(0), second, rtol=0.05)


# Inverse autoregressive flow


def stirred(model: Iaf) -> Iaf:
    """With gates and shifts that are far from nothing."""
    for i, step in enumerate(model.steps):
        for j, kernel in enumerate((step.shift, step.gate)):
            kernel[...] += jax.random.normal(jax.random.key(10 * i + j), kernel.shape) / np.sqrt(len(kernel))
    return model


@pytest.mark.parametrize("backwards", [False, True])
def test_a_step_depends_on_what_comes_before_alone(backwards: bool) -> None:
    model = stirred(make("iaf", latent=5, hidden=12))
    step, context = model.steps[int(backwards)], jax.random.normal(KEY, (1, 64))
    z = jax.random.normal(jax.random.key(1), (1, 5))
    slopes = np.asarray(jax.jacobian(lambda z: step(z, context)[0])(z)[0, :, 0])
    after = np.triu(slopes, 1) if not backwards else np.tril(slopes, -1)
    before = np.tril(slopes, -1) if not backwards else np.triu(slopes, 1)
    assert (after == 0).all() and (before != 0).sum() == 10
    np.testing.assert_allclose(np.log(np.diag(slopes)), step(z, context)[1][0], rtol=1e-4)


def test_the_log_determinant_is_the_jacobian_s() -> None:
    model = stirred(make("iaf", latent=5, hidden=12))
    z, context = jax.random.normal(KEY, (3, 5)), jax.random.normal(jax.random.key(1), (3, 64))
    slopes = jax.vmap(jax.jacobian(lambda z, c: model.flow(z[None], c[None])[0][0]))(z, context)
    sign, expected = np.linalg.slogdet(float64(slopes))
    assert (sign == 1).all() and (expected < -0.5).all()
    np.testing.assert_allclose(model.flow(z, context)[1].sum(1), expected, rtol=1e-4)


def test_its_kl_is_that_of_the_bent_density() -> None:
    """Of every frame log q(z) by the change of variables with the Jacobian as it is, log p(z) by SciPy."""
    model, batch = stirred(make("iaf", beta=2.0)), Batch(frames(3))
    loss, metrics = model.loss(batch, Update(KEY))
    base, context = model.base(batch.encoder_input)
    z0 = base.sample(KEY)
    z = model.flow(z0, context)[0]
    slopes = jax.vmap(jax.jacobian(lambda z, c: model.flow(z[None], c[None])[0][0]))(z0, context)
    log_q0 = scipy.stats.norm.logpdf(float64(z0), float64(base.mean), np.exp(float64(base.log_var) / 2)).sum(1)
    log_q = log_q0 - np.linalg.slogdet(float64(slopes))[1]
    kl = np.mean(log_q - scipy.stats.norm.logpdf(float64(z)).sum(1))
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-3)
    error = np.square(float64(model.decode(z)) - float64(batch.frames) / 255).sum() / 3
    np.testing.assert_allclose(metrics["reconstruction"], error, rtol=1e-4)
    np.testing.assert_allclose(loss, error + 2 * np.maximum(kl, 0), rtol=1e-2)


def test_with_open_gates_it_is_vanilla() -> None:
    model, batch = make("iaf"), Batch(frames(3))
    for step in model.steps:
        step.gate_bias[...] += 100.0
    base, context = model.base(batch.encoder_input)
    for part, expected in zip(model.encode(batch.encoder_input), base, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-6)
    np.testing.assert_allclose(model.flow(base.mean, context)[1], 0, atol=1e-6)


def test_what_is_stored_of_it_is_where_each_latent_lies_after_the_flow() -> None:
    """Its mean and spread, by many draws from a narrow base, around which the flow is nearly linear."""
    model = stirred(make("iaf", latent=5, hidden=12))
    narrow: Any = lambda features: jnp.full((len(features), 5), -9.0) + jnp.arange(5.0)[None]  # noqa: E731
    model.log_var = narrow
    seen = Batch(frames(2)).encoder_input
    base, context = model.base(seen)
    stored = model.encode(seen)
    np.testing.assert_allclose(stored.mean, model.flow(base.mode(), context)[0], rtol=1e-6)
    drawn = jax.vmap(lambda key: model.flow(base.sample(key), context)[0])(jax.random.split(KEY, 40_000))
    np.testing.assert_allclose(np.exp(float64(stored.log_var) / 2), float64(drawn).std(0), rtol=0.03)


def test_every_number_may_reach_every_other_one_over_two_steps() -> None:
    reach = np.eye(6)
    for backwards in (False, True):
        into, out = masks(6, 8, backwards=backwards)
        reach = (np.eye(6) + (into @ out).T) @ reach
    assert (reach > 0).all()


@pytest.mark.parametrize("backwards", [False, True])
def test_a_narrow_step_uses_late_numbers_too(backwards: bool) -> None:
    """With half as many units as numbers, every second number can be the last that a unit sees."""
    into, out = masks(8, 4, backwards=backwards)
    used = np.flatnonzero(into.any(1)).tolist()
    assert used == ([2, 3, 4, 5, 6, 7] if backwards else [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(sorted(into.sum(0)), [0, 2, 4, 6])
    assert not np.any((into @ out)[np.tril_indices(8) if not backwards else np.triu_indices(8)])


# Gamma

SHAPES = [(1.2, 0.6), (3.0, 2.0), (80.0, 30.0)]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_the_kl_of_gammas_is_the_integral_s_and_monte_carlo_s(a: float, b: float) -> None:
    frozen: Any = scipy.stats.gamma
    q, p = frozen(a, scale=1 / b), frozen(2.0, scale=1 / 1.5)
    low, high = q.ppf([1e-13, 1 - 1e-13])
    expected = scipy.integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), low, high, limit=200)[0]
    posterior = Gamma(jnp.full((1, 2), a), jnp.full((1, 2), b))
    np.testing.assert_allclose(kl_of_gammas(posterior, 2.0, 1.5), [2 * expected], rtol=1e-3, atol=1e-4)
    z = float64(Gamma(jnp.full((100_000,), a), jnp.full((100_000,), b)).sample(KEY))
    np.testing.assert_allclose(np.mean(q.logpdf(z) - p.logpdf(z)), expected, rtol=0.03)
    assert scipy.stats.kstest(z[:5000], q.cdf).pvalue > 1e-3


def test_the_kl_of_the_prior_from_itself_is_none() -> None:
    same = Gamma(jnp.full((3, 4), 2.0), jnp.full((3, 4), 1.5))
    np.testing.assert_allclose(kl_of_gammas(same, 2.0, 1.5), 0, atol=1e-5)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_a_draw_s_gradient_is_that_of_the_quantile(a: float, b: float) -> None:
    """Dz/da at a fixed value of the distribution function, by differences of SciPy's quantiles."""
    draw = lambda a, b: Gamma(a[None], b[None]).sample(KEY)[0]  # noqa: E731
    z, (by_a, by_b) = jax.value_and_grad(draw, argnums=(0, 1))(jnp.float32(a), jnp.float32(b))
    place = scipy.stats.gamma.cdf(float(z), a, scale=1 / b)
    step = 1e-4 * a
    higher, lower = (scipy.stats.gamma.ppf(place, a + sign * step, scale=1 / b) for sign in (1, -1))
    np.testing.assert_allclose(by_a, (higher - lower) / (2 * step), rtol=1e-2)
    np.testing.assert_allclose(by_b, -z / b, rtol=1e-4)


def test_the_mode_is_where_the_density_is_highest() -> None:
    latent = Gamma(jnp.asarray([1.5, 40.0]), jnp.asarray([0.5, 10.0]))
    z = np.linspace(1e-3, 20, 200_001)
    highest = [z[scipy.stats.gamma.logpdf(z, a, scale=1 / b).argmax()] for a, b in ((1.5, 0.5), (40.0, 10.0))]
    np.testing.assert_allclose(latent.mode(), highest, atol=1e-3)


def test_its_loss_is_error_and_kl_and_its_prior_a_gamma_s() -> None:
    model, batch = make("gamma", beta=2.0, prior_concentration=3.0, prior_rate=2.0), Batch(frames(3))
    loss, metrics = model.loss(batch, Update(KEY))
    posterior = model.encode(batch.encoder_input)
    error = np.square(float64(model.decode(posterior.sample(KEY))) - float64(batch.frames) / 255).sum() / 3
    kl = float(jnp.mean(kl_of_gammas(posterior, 3.0, 2.0)))
    np.testing.assert_allclose([metrics["reconstruction"], metrics["kl"]], [error, kl], rtol=1e-4)
    np.testing.assert_allclose(loss, error + 2 * kl, rtol=1e-4)
    drawn = float64(model.prior(KEY, 1000)).ravel()
    assert scipy.stats.kstest(drawn, scipy.stats.gamma(3.0, scale=1 / 2.0).cdf).pvalue > 1e-3


def test_it_decodes_what_no_gamma_draws() -> None:
    """M expects mixtures of Gaussians, some of which lie below 0."""
    model = make("gamma")
    assert isinstance(model, GammaVae)
    z = jnp.asarray([[-3.0, 0.0, 1e-12, 5.0]])
    slope = jax.grad(lambda z: jnp.sum(model.decode(z)))(z)
    assert np.isfinite(model.decode(z)).all() and np.isfinite(slope).all()


# What holds of all of them


@pytest.mark.parametrize("variant", [*BOUNDS, "vamp", "iaf", "gamma"])
def test_beta_rises_in_training_and_beyond_it_alike(variant: str) -> None:
    """The KL weighs nothing in update 0 and beta from the end of the rise on, on held-out frames too."""
    model, batch = make(variant, beta=3.0, warm_up=10), Batch(frames(2))
    costs = {}
    for step in (0, 5, 10, 99):
        metrics = model.loss(batch, Update(KEY, step))[1]
        held_out = model.loss(batch, Update(KEY, step, training=False))[1]
        assert metrics["loss"] == held_out["loss"]
        costs[step] = float(metrics["loss"])
    assert costs[10] == costs[99] != costs[5] != costs[0]
    if variant in ("vamp", "iaf", "gamma"):
        risen = [costs[step] - float(metrics["reconstruction"]) for step in (0, 5, 10)]
        np.testing.assert_allclose(risen[0], 0, atol=1e-3)
        np.testing.assert_allclose(2 * risen[1], risen[2], rtol=1e-3)


@pytest.mark.parametrize("variant", ["vamp", "iaf", "gamma"])
def test_every_parameter_is_learned(variant: str) -> None:
    for path, slope in gradients(make(variant), Batch(frames(3))).items():
        assert np.isfinite(slope).all() and np.any(slope != 0), path
