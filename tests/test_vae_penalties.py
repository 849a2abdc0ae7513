"""Penalties on z, each against a computation of another kind: loops in float64, closed forms, Monte Carlo."""

from functools import cache, partial
from itertools import permutations, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from flax import nnx

from wm_jax.config import vaes as settings
from wm_jax.config.layers import validate
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae import Batch, Update, make_vae
from wm_jax.models.vae.beta_tc import _log_shares, aggregate
from wm_jax.models.vae.dip import Dip, covariance
from wm_jax.models.vae.divergences import Kernel, mmd
from wm_jax.models.vae.factor import Factor, discrimination, leaky_relu, shuffled
from wm_jax.models.vae.layers import LogOdds
from wm_jax.models.vae.losses import kl_term
from wm_jax.models.vae.swae import random_directions, sliced_wasserstein
from wm_jax.models.variables import partition
from wm_jax.utils.errors import UsageError

Z, FRAMES = 4, 6
KERNELS: tuple[Kernel, ...] = ("imq", "rbf")
GAUSSIAN = ("beta_tc", "factor", "dip", "info")
POINT = ("wae", "swae")


def model_of(variant: str, **given: Any) -> Any:
    """A narrow one of these settings; of the same weights always."""
    graphdef, variables, kind = _fresh(variant)
    model = nnx.merge(graphdef, variables)
    model.config = kind.model_validate(dict(model.config) | given)
    return model


@cache
def _fresh(variant: str) -> Any:
    kind = settings.VARIANTS[variant]
    small = {"variant": variant, "width": 0.125, "latent": Z, "free_nats": 0.0, "discriminator_width": 16}
    config = kind.model_validate({name: value for name, value in small.items() if name in kind.model_fields})
    return *nnx.split(make_vae(config, nnx.Rngs(0))), kind


def posteriors(count: int = FRAMES, seed: int = 0, spread: float = 2.0) -> Gaussian:
    """Far from N(0, 1), so that even a sampled KL is positive."""
    random = np.random.default_rng(seed)
    mean = spread * random.normal(size=(count, Z)) + 1
    return Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(random.uniform(-3, -1, (count, Z)), jnp.float32))


def frames(count: int = FRAMES) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))


def kl_by_hand(posterior: Gaussian) -> np.ndarray:
    """Of each frame, by the textbook's formula for two Gaussians."""
    mean, deviation = np.asarray(posterior.mean, np.float64), np.exp(np.asarray(posterior.log_var, np.float64) / 2)
    return np.sum(np.log(1 / deviation) + (deviation**2 + mean**2) / 2 - 0.5, axis=1)


# What all of them have in common


@pytest.mark.parametrize("variant", GAUSSIAN)
def test_the_whole_penalty_rises_where_a_warm_up_is_asked_for(variant: str) -> None:
    """The KL, and whatever else keeps z near its prior."""
    model, posterior, key = model_of(variant, warm_up=10), posteriors(), jax.random.key(0)
    z = posterior.sample(key)
    cost = {step: float(model.penalty(posterior, z, Update(key, step, 100))[0]) for step in (0, 5, 10, 20)}
    at_once = float(model_of(variant).penalty(posterior, z, Update(key, 0, 100))[0])
    assert abs(at_once) > 1
    assert cost == pytest.approx({0: 0.0, 5: at_once / 2, 10: at_once, 20: at_once}, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("variant", (*GAUSSIAN, *POINT))
def test_held_out_frames_are_judged_by_the_weights_of_training(variant: str) -> None:
    rising = {} if variant in POINT else {"warm_up": 10}
    model, batch, key = model_of(variant, **rising), Batch(frames()), jax.random.key(0)
    loss, metrics = model.loss(batch, Update(key, 3, 100, training=False))
    same, others = model.loss(batch, Update(key, 3, 100, training=True))
    assert loss == same and metrics == others


def test_a_sampled_kl_below_0_counts_as_it_is_where_there_is_no_floor() -> None:
    """Raised to 0, it would be too large on average."""
    kl = jnp.asarray([-3.0, 1.0, 8.0])
    assert kl_term(kl, model_of("beta_tc").config, 0) == 2
    assert kl_term(kl, model_of("beta_tc", free_nats=0.5).config, 0) == 4  # (2 + 2 + 8) / 3


# beta-TC-VAE


def densities(posterior: Gaussian, z: np.ndarray) -> np.ndarray:
    """[i, j, d]: q(z_i[d] | n_j), by SciPy."""
    mean, log_var = (np.asarray(part, np.float64) for part in posterior)
    return scipy.stats.norm.pdf(z[:, None], mean[None], np.exp(log_var / 2)[None])


@pytest.mark.parametrize("stratified", (False, True))
def test_q_of_z_is_estimated_as_in_the_paper_s_appendix(stratified: bool) -> None:
    size, posterior = 50, posteriors(spread=0.5)
    z = np.asarray(posterior.sample(jax.random.key(1)), np.float64)
    each, others = densities(posterior, z), FRAMES - 1  # "M" of C.2 counts the frames beside z's own
    together, apart = np.zeros(FRAMES), np.zeros(FRAMES)
    for i in range(FRAMES):
        joint, of_each = 0.0, np.zeros(Z)
        for step in range(FRAMES):
            j = (i + step) % FRAMES  # z's own frame, then the one that stands for those which are in no batch
            share = 1 / (size * FRAMES)
            if stratified:
                share = (1 / size, (size - others) / (size * others))[step] if step < 2 else 1 / others
            joint += share * np.prod(each[i, j])
            of_each += share * each[i, j]
        together[i], apart[i] = np.log(joint), np.log(of_each).sum()
    ours = aggregate(posterior, jnp.asarray(z, jnp.float32), size, stratified=stratified)
    np.testing.assert_allclose(ours[0], together, rtol=1e-4)
    np.testing.assert_allclose(ours[1], apart, rtol=1e-4)


@pytest.mark.parametrize(("batch", "size"), ((1, 1), (1, 9), (2, 2), (2, 9), (7, 7), (7, 1000)))
def test_stratified_weights_sum_to_one(batch: int, size: int) -> None:
    np.testing.assert_allclose(np.exp(_log_shares(batch, size)).sum(axis=1), 1, rtol=1e-12)


def test_the_stratified_estimate_is_right_on_average_over_all_batches() -> None:
    posterior = posteriors(5, spread=0.5)
    z = np.asarray(posterior.sample(jax.random.key(1)), np.float64)
    found = []
    for others in permutations(range(1, 5), 2):
        rows = jnp.asarray((0, *others))
        batch = Gaussian(posterior.mean[rows], posterior.log_var[rows])
        found.append(float(aggregate(batch, jnp.asarray(z, jnp.float32)[rows], 5, stratified=True)[0][0]))
    whole = densities(posterior, z)[0].prod(axis=1).mean()
    np.testing.assert_allclose(np.exp(found).mean(), whole, rtol=1e-4)


@pytest.mark.parametrize("sampling", ("weighted", "stratified"))
def test_with_weights_of_one_it_is_vanilla_with_a_sampled_kl(sampling: str) -> None:
    ones = {f"{name}_weight": 1.0 for name in ("mutual_information", "total_correlation", "dimension_wise")}
    model, posterior = model_of("beta_tc", sampling=sampling, **ones), posteriors()
    sample = jax.vmap(lambda key: model.penalty(posterior, posterior.sample(key), Update(key, 0, 1000)))
    penalty, metrics = sample(jax.random.split(jax.random.key(0), 2000))
    z = np.asarray(posterior.sample(jax.random.split(jax.random.key(0), 2000)[0]), np.float64)
    mean, deviation = np.asarray(posterior.mean, np.float64), np.exp(np.asarray(posterior.log_var, np.float64) / 2)
    sampled = scipy.stats.norm.logpdf(z, mean, deviation) - scipy.stats.norm.logpdf(z)
    np.testing.assert_allclose(penalty[0], sampled.sum(axis=1).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["kl"], penalty, rtol=1e-4)
    np.testing.assert_allclose(np.mean(penalty), kl_by_hand(posterior).mean(), rtol=0.01)
    batch, key = Batch(frames()), jax.random.key(2)
    loss, metrics = model.loss(batch, Update(key, 0, 1000))
    vanilla, others = model_of("vanilla").loss(batch, Update(key))
    np.testing.assert_allclose(metrics["reconstruction"], others["reconstruction"], rtol=1e-6)
    np.testing.assert_allclose(loss - metrics["kl"], vanilla - others["kl"], rtol=1e-4)


def test_the_floor_is_of_the_kl_whatever_its_parts_weigh_and_however_many_frames_there_are() -> None:
    posterior, key = posteriors(spread=0.0), jax.random.key(0)
    z = posterior.sample(key)
    lifts = []
    for size in (10, 10**6):
        with_floor, without = (
            model_of("beta_tc", free_nats=free).penalty(posterior, z, Update(key, 0, size)) for free in (5.0, 0.0)
        )
        lifts.append(float(with_floor[0] - without[0]))
        assert with_floor[1]["kl"] < 5.0 * Z
    assert lifts == pytest.approx([5.0 * Z - float(without[1]["kl"])] * 2, rel=1e-3)


def test_the_three_parts_of_kl_weigh_what_the_settings_say() -> None:
    posterior, weights = posteriors(), (2.0, 3.0, 5.0)
    z = posterior.sample(jax.random.key(1))
    names = ("mutual_information", "total_correlation", "dimension_wise")
    model = model_of("beta_tc", **{f"{name}_weight": weight for name, weight in zip(names, weights, strict=True)})
    penalty, metrics = model.penalty(posterior, z, Update(jax.random.key(0), 0, 40))
    each = densities(posterior, np.asarray(z, np.float64))
    own = np.log(each[np.arange(FRAMES), np.arange(FRAMES)]).sum(axis=1)
    whole = np.log(each.prod(axis=2).sum(axis=1) / (40 * FRAMES))
    apart = np.log(each.sum(axis=1) / (40 * FRAMES)).sum(axis=1)
    prior = scipy.stats.norm.logpdf(np.asarray(z, np.float64)).sum(axis=1)
    parts = np.array([(own - whole).mean(), (whole - apart).mean(), (apart - prior).mean()])
    np.testing.assert_allclose(metrics["mutual_information"], parts[0], rtol=1e-4)
    np.testing.assert_allclose(metrics["total_correlation"], parts[1], rtol=1e-4)
    np.testing.assert_allclose(penalty, np.dot(weights, parts), rtol=1e-4)


# FactorVAE


def test_each_dimension_is_shuffled_across_the_batch_and_for_itself() -> None:
    z = jax.random.normal(jax.random.key(0), (500, 3)) * jnp.asarray([[1.0, 10.0, 100.0]])
    found = np.asarray(shuffled(z, jax.random.key(1)))
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(np.asarray(z), axis=0))
    alike = jnp.broadcast_to(jnp.arange(500.0)[:, None], (500, 3))
    places = np.asarray(shuffled(alike, jax.random.key(1)))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (places[:, i] == places[:, j]).sum() < 10
        assert abs(np.corrcoef(places[:, i], places[:, j])[0, 1]) < 0.2  # 4.5 standard deviations


def test_the_discriminator_finds_the_total_correlation_of_gaussians() -> None:
    """-log(1 - rho^2) / 2 nats, in closed form."""
    rho, steps = 0.8, 400
    graphdef, params = nnx.split(LogOdds(2, 32, 2, nnx.Rngs(0), leaky_relu))
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def draw(key: jax.Array, count: int = 512) -> jax.Array:
        noise = jax.random.normal(key, (count, 2))
        return jnp.stack([noise[:, 0], rho * noise[:, 0] + np.sqrt(1 - rho**2) * noise[:, 1]], axis=1)

    def update(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        z_key, shuffle_key = jax.random.split(key)
        z = draw(z_key)
        loss, slope = jax.value_and_grad(
            lambda params: discrimination(nnx.merge(graphdef, params), z, shuffled(z, shuffle_key))
        )(params)
        with jax.numpy_dtype_promotion("standard"):
            changes, state = adam.update(slope, state)
        return (optax.apply_updates(params, changes), state), loss

    keys = jax.random.split(jax.random.key(0), steps)
    (params, _), _ = jax.jit(partial(jax.lax.scan, update))((params, adam.init(params)), keys)
    found = float(jnp.mean(nnx.merge(graphdef, params)(draw(jax.random.key(99), 20_000))))
    assert found == pytest.approx(-0.5 * np.log(1 - rho**2), rel=0.08)


def odds_by_hand(model: Factor, z: Any) -> np.ndarray:
    x = np.asarray(z, np.float64)
    layers = list(model.discriminator.layers)
    for i, layer in enumerate(layers):
        x = x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...], np.float64)
        x = x if i == len(layers) - 1 else np.where(x > 0, x, 0.2 * x)
    return x[:, 0]


def test_factor_costs_kl_and_gamma_times_the_mean_log_odds() -> None:
    model, posterior, key = model_of("factor", total_correlation_weight=6.4, beta=3.0), posteriors(), jax.random.key(0)
    z = posterior.sample(key)
    penalty, metrics = model.penalty(posterior, z, Update(key))
    odds = odds_by_hand(model, z)
    assert abs(odds.mean()) > 0.01
    np.testing.assert_allclose(metrics["total_correlation"], odds.mean(), rtol=1e-4)
    np.testing.assert_allclose(penalty, 3 * kl_by_hand(posterior).mean() + 6.4 * odds.mean(), rtol=1e-4)


def test_the_discriminator_s_loss_is_a_cross_entropy() -> None:
    model = model_of("factor")
    joint, other = posteriors(seed=1).mode(), posteriors(seed=2).mode()
    right, wrong = (scipy.special.expit(odds_by_hand(model, z)) for z in (joint, other))
    found = discrimination(model.discriminator, joint, other)
    np.testing.assert_allclose(found, -0.5 * np.mean(np.log(right) + np.log(1 - wrong)), rtol=1e-4)
    loss, metrics = model.discriminator_loss(Batch(frames()), Update(jax.random.key(0)))
    assert set(metrics) == {"discriminator_loss"} and 0.1 < loss < 5


def test_v_and_the_discriminator_learn_apart_and_leave_nothing_out() -> None:
    variables = nnx.state(model_of("factor"))
    of_v, of_it = (
        {path for path, _ in nnx.to_flat_state(partition(variables, objective.learned)[0])}
        for objective in Factor.objectives
    )
    assert not of_v & of_it and len(of_v | of_it) == len(jax.tree.leaves(variables))
    assert of_it == {path for path in of_v | of_it if "discriminator" in path} and len(of_it) == 8


# DIP-VAE


def test_the_covariance_is_over_the_batch() -> None:
    posterior = posteriors(20)
    mean = np.asarray(posterior.mean, np.float64)
    of_means = np.cov(mean, rowvar=False, bias=True)
    np.testing.assert_allclose(covariance(posterior, False), of_means, rtol=1e-4, atol=1e-5)
    draws = jax.vmap(posterior.sample)(jax.random.split(jax.random.key(0), 5000)).reshape(-1, Z)
    of_z = np.cov(np.asarray(draws), rowvar=False)
    np.testing.assert_allclose(covariance(posterior, True), of_z, atol=0.05)
    assert np.abs(of_z - of_means).max() > 0.1


@pytest.mark.parametrize("version", ("I", "II"))
def test_dip_by_hand(version: str) -> None:
    weights = {"off_diagonal_weight": 7.0, "diagonal_weight": 3.0, "beta": 2.0}
    model, posterior = model_of("dip", version=version, **weights), posteriors()
    penalty, metrics = model.penalty(posterior, posterior.sample(jax.random.key(0)), Update(jax.random.key(0)))
    mean, variance = np.asarray(posterior.mean, np.float64), np.exp(np.asarray(posterior.log_var, np.float64))
    cost = 0.0
    for i, j in product(range(Z), range(Z)):
        entry = np.mean(mean[:, i] * mean[:, j]) - mean[:, i].mean() * mean[:, j].mean()
        if i == j:
            entry += variance[:, i].mean() if version == "II" else 0.0
            cost += 3 * (entry - 1) ** 2
        else:
            cost += 7 * entry**2
    np.testing.assert_allclose(penalty, cost + 2 * kl_by_hand(posterior).mean(), rtol=1e-4)
    np.testing.assert_allclose(7 * metrics["off_diagonal"] + 3 * metrics["diagonal"], cost, rtol=1e-4)


@pytest.mark.parametrize(("version", "ratio"), (("I", 10.0), ("II", 1.0)))
def test_dip_s_default_weighs_variances_as_the_paper_does(version: str, ratio: float) -> None:
    posterior, update = posteriors(), Update(jax.random.key(0))
    default = model_of("dip", version=version, off_diagonal_weight=3.0).penalty(posterior, posterior.mode(), update)[0]
    given = model_of("dip", version=version, off_diagonal_weight=3.0, diagonal_weight=3.0 * ratio)
    assert default == given.penalty(posterior, posterior.mode(), update)[0]


def test_dip_costs_nothing_where_the_means_are_uncorrelated_with_a_variance_of_one() -> None:
    corners = jnp.asarray(list(product((-1.0, 1.0), repeat=Z)), jnp.float32) + 5.0
    model = model_of("dip", beta=0.0)
    assert isinstance(model, Dip)
    cost = lambda mean: float(model.penalty(Gaussian(mean, 0 * mean), mean, Update(jax.random.key(0)))[0])  # noqa: E731
    assert cost(corners) == pytest.approx(0, abs=1e-8)
    assert cost(2 * corners) == pytest.approx(100.0 * Z * 9)


# Maximum mean discrepancy: InfoVAE and WAE


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_equals_a_loop_over_pairs(kernel: Kernel) -> None:
    random = np.random.default_rng(0)
    a, b = 2 * random.normal(size=(5, 3)), random.normal(size=(7, 3)) + 1

    def k(x: np.ndarray, y: np.ndarray) -> float:
        squared = sum((x[d] - y[d]) ** 2 for d in range(3))
        return 6 / (6 + squared) if kernel == "imq" else np.exp(-squared / 6)

    among = [[k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j] for s in (a, b)]
    between = [k(x, y) for x in a for y in b]
    expected = np.mean(among[0]) + np.mean(among[1]) - 2 * np.mean(between)
    found = mmd(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isfinite(mmd(jnp.zeros((1, 3)), jnp.ones((1, 3)), kernel))


@pytest.mark.parametrize(("shift", "deviation"), ((0.0, 1.0), (1.5, 0.5)))
def test_mmd_is_on_average_what_it_is_between_gaussians_in_closed_form(shift: float, deviation: float) -> None:
    def once(key: jax.Array) -> jax.Array:
        ours, theirs = jax.random.split(key)
        return mmd(shift + deviation * jax.random.normal(ours, (4, Z)), jax.random.normal(theirs, (4, Z)), "rbf")

    found = np.asarray(jax.vmap(once)(jax.random.split(jax.random.key(0), 4000)))
    # E exp(-d^2 / C) for d ~ N(m, v): (1 + 2 v / C)^(-1/2) exp(-m^2 / (C + 2 v)), in each dimension.
    kernel = lambda m, v: ((1 + 2 * v / (2 * Z)) ** -0.5 * np.exp(-(m**2) / (2 * Z + 2 * v))) ** Z  # noqa: E731
    expected = kernel(0, 2 * deviation**2) + kernel(0, 2) - 2 * kernel(shift, 1 + deviation**2)
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(len(found))


@pytest.mark.parametrize(("alpha", "divergence", "beta"), ((0.0, 1.0, 1.0), (-3.0, 4.0, 4.0)))
def test_info_is_the_elbo_or_beta_vae_where_the_paper_says_so(alpha: float, divergence: float, beta: float) -> None:
    batch, key = Batch(frames()), jax.random.key(0)
    loss, metrics = model_of("info", alpha=alpha, divergence_weight=divergence).loss(batch, Update(key))
    expected, others = model_of("vanilla", beta=beta).loss(batch, Update(key))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics["kl"] == others["kl"] and metrics["mmd"] != 0


def test_info_weighs_by_default_the_kl_by_1_and_the_mmd_by_100() -> None:
    posterior, (z_key, key) = posteriors(), jax.random.split(jax.random.key(0))
    penalty, metrics = model_of("info").penalty(posterior, posterior.sample(z_key), Update(key))
    np.testing.assert_allclose(penalty, kl_by_hand(posterior).mean() + 100 * float(metrics["mmd"]), rtol=1e-4)


@pytest.mark.parametrize(
    "given", ({"divergence_weight": 0.9}, {"alpha": -100.5}, {"alpha": 0.5, "divergence_weight": 0.4})
)
def test_info_refuses_to_maximise_the_mmd(given: dict[str, float]) -> None:
    with pytest.raises(
        UsageError, match=r"vae.divergence_weight .*: the MMD would be maximised; give at least 1 - vae.alpha"
    ):
        validate({"game": "enduro", "vae": {"variant": "info", **given}})


@pytest.mark.parametrize("alpha", (-9.0, 0.5, 1.0))
def test_info_weighs_kl_and_mmd(alpha: float) -> None:
    posterior, (z_key, key) = posteriors(), jax.random.split(jax.random.key(0))
    model = model_of("info", alpha=alpha, divergence_weight=110.0)
    penalty, metrics = model.penalty(posterior, posterior.sample(z_key), Update(key))
    expected = (1 - alpha) * kl_by_hand(posterior).mean() + (alpha + 110 - 1) * float(metrics["mmd"])
    np.testing.assert_allclose(penalty, expected, rtol=1e-4)
    assert metrics["mmd"] > 0.1


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_prior_s_draws_are_not_the_noise_of_the_posterior(kernel: Kernel) -> None:
    """Where all posteriors are the prior, the MMD is 0 on average; drawn with the same key, it would be below."""
    nothing = Gaussian(jnp.zeros((FRAMES, Z)), jnp.zeros((FRAMES, Z)))
    model = model_of("info", kernel=kernel)
    object.__setattr__(model, "encode", lambda frames: nothing)
    object.__setattr__(model, "decode", lambda z: jnp.zeros((FRAMES, 64, 64, 3)))
    batch = Batch(frames())
    once = jax.vmap(lambda key: model.loss(batch, Update(key))[1]["mmd"])
    found = np.asarray(once(jax.random.split(jax.random.key(0), 2000)))
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))


# Auto-encoders without noise


@pytest.mark.parametrize("variant", POINT)
def test_without_noise_the_loss_is_the_error_and_lambda_times_the_divergence(variant: str) -> None:
    shown, noisy = frames(), jnp.zeros((FRAMES, 64, 64, 3)) + 0.3
    weights = 1 + jax.random.uniform(jax.random.key(1), (FRAMES, 64, 64, 1))
    model = model_of(variant, divergence_weight=3.0, likelihood="laplace")
    losses = []
    for key in (jax.random.key(0), jax.random.key(1)):
        loss, metrics = model.loss(Batch(shown, noisy, weights), Update(key))
        decoded = np.asarray(model.decode(model.encode(noisy).mode()), np.float64)
        apart = decoded - np.asarray(shown, np.float64) / 255
        error = (np.asarray(weights, np.float64) * np.abs(apart)).sum() / FRAMES
        np.testing.assert_allclose(loss, error + 3 * metrics["kl"], rtol=1e-5)
        np.testing.assert_allclose(metrics["reconstruction"], (apart**2).sum() / FRAMES, rtol=1e-4)
        losses.append(float(metrics["kl"]))
    assert losses[0] != losses[1]  # the prior is drawn from anew


@pytest.mark.parametrize("kernel", KERNELS)
def test_wae_draws_from_the_prior_as_many_as_there_are_frames(kernel: Kernel) -> None:
    model = model_of("wae", kernel=kernel)
    far = jnp.full((FRAMES, Z), 3.0)
    once = jax.vmap(lambda z, key: model.penalty(z, Update(key))[1]["kl"])
    like, unlike = jax.random.split(jax.random.key(0), (2, 2000))
    alike = np.asarray(once(jax.random.normal(jax.random.key(5), (2000, FRAMES, Z)), like))
    assert abs(alike.mean()) < 4 * alike.std() / np.sqrt(len(alike))
    # All codes in one place: 1 + E k(b, b') - 2 E k(3, b), here by Monte Carlo with other draws.
    draws = np.random.default_rng(0).normal(size=(2, 20_000, Z))
    k = lambda squared: 8 / (8 + squared) if kernel == "imq" else np.exp(-squared / 8)  # noqa: E731
    expected = 1 + k(((draws[0] - draws[1]) ** 2).sum(1)).mean() - 2 * k(((draws[0] - 3) ** 2).sum(1)).mean()
    assert np.asarray(once(jnp.broadcast_to(far[None], (2000, FRAMES, Z)), unlike)).mean() == pytest.approx(
        expected, rel=0.02
    )


@pytest.mark.parametrize("power", (1.0, 1.5, 2.0))
def test_sliced_wasserstein_equals_the_best_assignment_on_each_direction(power: float) -> None:
    a, b = posteriors(8, 1).mode(), posteriors(8, 2).mode()
    directions = random_directions(jax.random.key(0), 5, Z)
    costs = []
    for direction in np.asarray(directions, np.float64):
        cost = np.abs((np.asarray(a) @ direction)[:, None] - (np.asarray(b) @ direction)[None]) ** power
        costs.append(cost[scipy.optimize.linear_sum_assignment(cost)].mean())
    np.testing.assert_allclose(sliced_wasserstein(a, b, directions, power), np.mean(costs), rtol=1e-4)
    slope = jax.grad(lambda a: sliced_wasserstein(a, b, directions, power))(b)  # where all distances are 0
    assert np.isfinite(slope).all()


def test_directions_are_unit_vectors_and_equally_likely() -> None:
    directions = np.asarray(random_directions(jax.random.key(0), 20_000, 3))
    np.testing.assert_allclose((directions**2).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(directions.T @ directions / len(directions), np.eye(3) / 3, atol=0.02)
    # Of a point on the sphere in three dimensions, each coordinate is uniform in [-1, 1] (Archimedes).
    np.testing.assert_allclose(np.quantile(directions[:, 0], (0.1, 0.25, 0.75)), (-0.8, -0.5, 0.5), atol=0.03)


def test_swae_is_a_mean_over_directions_not_a_sum_over_latents() -> None:
    """Draws from the prior, moved by v: |v|^2 / Z on average over directions."""
    z = jax.random.normal(jax.random.key(7), (1000, Z)) + jnp.asarray([[4.0, 0.0, 0.0, 0.0]])
    penalty, metrics = model_of("swae", divergence_weight=100.0, projections=500).penalty(z, Update(jax.random.key(0)))
    assert metrics["kl"] == pytest.approx(16 / Z, rel=0.15)
    np.testing.assert_allclose(penalty, 100 * metrics["kl"], rtol=1e-6)
