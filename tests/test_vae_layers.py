"""Auto-encoders with several levels or stages, without noise, or with a condition: each loss against another way."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.stats import norm

from wm_jax.config import vaes as settings
from wm_jax.config.layers import load
from wm_jax.config.vaes import LadderConfig, VaeConfig
from wm_jax.data.conditions import last_actions
from wm_jax.data.episodes import Episode, Split, Whole
from wm_jax.data.frames import ResidentFrames, StreamedFrames
from wm_jax.data.neighbours import Neighbours
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.spaces import Continuous, Discrete
from wm_jax.models.latents import Gaussian, Levels, from_named, named
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Examples, Update, loss_and_grad, make_vae
from wm_jax.models.vae.ladder import level_sizes, merged
from wm_jax.models.variables import combine, partition
from wm_jax.stages import train_vae
from wm_jax.utils.errors import UsageError, UserError
from wm_jax.utils.sizes import FRAME

SMALL: dict[str, Any] = {"width": 0.125, "latent": 6, "bfloat16": False}
MANY = 4096
"""Samples of a Monte Carlo estimate."""


def config(variant: str, **more: Any) -> VaeConfig:
    return settings.VARIANTS[variant].model_validate({"variant": variant, **SMALL, **more})


def make(variant: str, seed: int = 0, **more: Any) -> Any:
    return make_vae(config(variant, **more), nnx.Rngs(seed))


def frames(count: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8))


def double(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def gaussian(count: int, size: int, seed: int) -> Gaussian:
    random = np.random.default_rng(seed)
    return Gaussian(*(jnp.asarray(random.normal(size=(count, size)), jnp.float32) for _ in range(2)))


def nats(q: Gaussian, p: Gaussian) -> np.ndarray:
    """KL(q || p) by quadrature over a fine grid, one number after the other: [B]."""
    grid = np.linspace(-40, 40, 40_001)
    pieces = np.zeros(q.mean.shape)
    for place in np.ndindex(pieces.shape):
        log_q, log_p = (norm.logpdf(grid, double(g.mean)[place], np.exp(double(g.log_var)[place] / 2)) for g in (q, p))
        pieces[place] = np.sum(np.exp(log_q) * (log_q - log_p)) * (grid[1] - grid[0])
    return pieces.sum(axis=1)


def still(layer: Any) -> None:
    """Make of a `GaussianLayer` N(0, 1), whatever it is given."""
    last = layer.mean_and_log_var.layers[-1]
    last.kernel[...] = jnp.zeros_like(last.kernel[...])
    last.bias[...] = jnp.zeros_like(last.bias[...])


# -- levels ---------------------------------------------------------------------------------------------------------


def test_levels_are_one_after_the_other_and_each_is_drawn_by_itself() -> None:
    latent = Levels((gaussian(3, 2, 0), gaussian(3, 4, 1)))
    assert named(latent).keys() == {"levels.0.mean", "levels.0.log_var", "levels.1.mean", "levels.1.log_var"}
    again = from_named(latent, named(latent))
    np.testing.assert_array_equal(again.mode(), np.concatenate([level.mean for level in latent.levels], axis=1))
    keys = jax.random.split(jax.random.key(0), MANY)
    drawn = double(jax.vmap(latent.sample)(keys))
    np.testing.assert_array_equal(latent.sample(keys[0]), latent.target(keys[0]))
    log_var = np.concatenate([level.log_var for level in latent.levels], axis=1)
    np.testing.assert_allclose((drawn.mean(0) - latent.mode()) / np.exp(log_var / 2), 0, atol=0.08)
    np.testing.assert_allclose(drawn.var(0) / np.exp(log_var), 1, atol=0.12)
    first = (drawn[:, 0] - drawn[:, 0].mean(0)) / drawn[:, 0].std(0)
    np.testing.assert_allclose(first.T @ first / MANY, np.eye(6), atol=0.08)


# -- hierarchical ---------------------------------------------------------------------------------------------------


def test_hierarchical_sizes_sum_to_z() -> None:
    for top, wanted in ((None, (1, 5)), (4, (4, 2))):
        latent = jax.eval_shape(lambda top=top: make("hierarchical", top=top).encode(jnp.zeros((2, *FRAME))))
        assert tuple(level.mean.shape[1] for level in latent.levels) == wanted
    with pytest.raises(UserError, match=r"vae.top 6: nothing is left"):
        make("hierarchical", top=6)


def test_hierarchical_kl_is_that_of_both_levels_together() -> None:
    """Against a sum over the whole plane of (z1, z2), one number each, in float64."""
    vae = make("hierarchical", latent=2, top=1, hidden=8, free_nats=0.0, beta=3.0)
    vae.log_var.bias[...] -= 3.0
    vae.up.mean_and_log_var.layers[-1].bias[...] = jnp.asarray([1.5, -1.0])  # so that each level costs something
    frame = frames(1)
    bottom = vae._bottom(to_float(frame))
    side, step = np.linspace(-9, 9, 361), 18 / 360
    z1 = double(bottom.mean).item() + side
    log_q1 = norm.logpdf(z1, double(bottom.mean).item(), np.exp(double(bottom.log_var).item() / 2))
    up, down = (layer(jnp.asarray(z[:, None], jnp.float32)) for layer, z in ((vae.up, z1), (vae.down, side)))
    log_q2 = norm.logpdf(side[None, :], double(up.mean), np.exp(double(up.log_var) / 2))  # [z1, z2]
    log_p1 = norm.logpdf(z1[:, None], double(down.mean)[:, 0][None], np.exp(double(down.log_var)[:, 0][None] / 2))
    log_q = log_q1[:, None] + log_q2
    whole = np.exp(log_q).sum() * step**2
    np.testing.assert_allclose(whole, 1, atol=1e-3)
    expected = (np.exp(log_q) * (log_q - log_p1 - norm.logpdf(side)[None, :])).sum() * step**2
    loss = jax.jit(jax.vmap(lambda key: vae.loss(Batch(frame), Update(key))))
    totals, metrics = loss(jax.random.split(jax.random.key(0), 2000))
    spread = double(metrics["kl"]).std() / np.sqrt(2000)
    assert spread < 0.05 * expected
    assert abs(double(metrics["kl"]).mean() - expected) < 4 * spread
    assert double(metrics["kl"]).min() < 0  # of a single sample, which counts as it is
    np.testing.assert_allclose(totals, metrics["reconstruction"] + 3 * metrics["kl"], rtol=1e-5)


def test_hierarchical_with_levels_that_know_nothing_of_each_other_is_the_paper_s() -> None:
    """p(z1 | z2) = N(0, 1) and q(z2 | z1) = N(0, 1): on average what a single level costs."""
    vae, batch = make("hierarchical", free_nats=0.0), frames(3)
    still(vae.up)
    still(vae.down)
    loss = jax.jit(jax.vmap(lambda key: vae.loss(Batch(batch), Update(key))[1]["kl"]))
    found = double(loss(jax.random.split(jax.random.key(0), 300)))
    bottom = vae._bottom(to_float(batch))
    expected = nats(bottom, Gaussian(jnp.zeros((3, 5)), jnp.zeros((3, 5)))).mean()
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(300)


def test_hierarchical_draws_from_the_top_down() -> None:
    vae = make("hierarchical", top=2)
    drawn = vae.prior(jax.random.key(0), MANY)
    top, bottom = double(drawn[:, :2]), drawn[:, 2:]
    np.testing.assert_allclose(top.mean(0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(top.T), np.eye(2), atol=0.1)
    given = vae.down(drawn[:, :2])
    standard = double((bottom - given.mean) / jnp.exp(given.log_var / 2))
    np.testing.assert_allclose(np.cov(standard.T), np.eye(4), atol=0.1)
    assert double(given.mean).std() > 0.1  # there is something to depend on
    np.testing.assert_array_equal(vae.decode(drawn[:2]), vae.decode(drawn[:2].at[:, :2].set(7.0)))


# -- ladder ---------------------------------------------------------------------------------------------------------


def test_ladder_multiplies_what_the_frame_and_the_level_above_say() -> None:
    evidence, prior = gaussian(2, 3, 0), gaussian(2, 3, 1)
    found, grid = merged(evidence, prior), np.linspace(-30, 30, 60_001)
    for place in np.ndindex(2, 3):
        logs = [
            norm.logpdf(grid, double(g.mean)[place], np.exp(double(g.log_var)[place] / 2)) for g in (evidence, prior)
        ]
        density = np.exp(logs[0] + logs[1] - (logs[0] + logs[1]).max())
        mean = np.average(grid, weights=density)
        np.testing.assert_allclose(found.mean[place], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            np.exp(found.log_var[place]), np.average((grid - mean) ** 2, weights=density), rtol=1e-4
        )
    blind = merged(Gaussian(evidence.mean, jnp.full((2, 3), 80.0)), prior)
    jax.tree.map(np.testing.assert_array_equal, blind, prior)
    sure = merged(Gaussian(evidence.mean, jnp.full((2, 3), -80.0)), prior)
    np.testing.assert_array_equal(sure.mean, evidence.mean)


def test_ladder_sizes_sum_to_z_and_grow_downwards() -> None:
    def sizes(latent: int, depth: int, **given: Any) -> tuple[int, ...]:
        return level_sizes(LadderConfig.model_validate({"latent": latent, "depth": depth, **given}))

    assert sizes(32, 3) == (4, 9, 19) and sizes(124, 5) == (4, 8, 16, 32, 64) and sizes(8, 1) == (8,)
    assert sizes(6, 4) == (1, 1, 1, 3)
    local = {"encoder": "local", "decoder": "local"}
    assert sizes(144, 3, **local) == (12, 24, 108) and sizes(72, 2, **local) == (36, 36)
    assert sizes(176, 3, **local, global_latent=32) == (24, 48, 104)
    assert sizes(64, 3, encoder="grid", decoder="grid", global_latent=40) == (2, 6, 56)
    with pytest.raises(UserError, match=r"vae.latent 6: it is not enough for 7 levels; give more"):
        make("ladder", depth=7)


def test_ladder_kl_is_of_all_levels_and_warm_up_ends() -> None:
    """By quadrature, the top level's among them: (a sum without the half, or without the top, fails)."""
    vae, batch, key = (
        make("ladder", latent=8, depth=3, hidden=8, free_nats=0.0, beta=2.0, warm_up=10),
        frames(2),
        jax.random.key(1),
    )
    loss = jax.jit(lambda step: vae.loss(Batch(batch), Update(key, step))[1])
    metrics = loss(10)
    levels = vae.descend(to_float(batch), key)
    priors = [Gaussian(jnp.zeros((2, 1)), jnp.zeros((2, 1)))]
    priors += [down(z) for down, (_, _, z) in zip(vae.down, levels[:-1], strict=True)]
    parts = [nats(posterior, prior).mean() for (posterior, _, _), prior in zip(levels, priors, strict=True)]
    assert min(parts) > 0.01
    np.testing.assert_allclose(metrics["kl"], sum(parts), rtol=1e-3)
    np.testing.assert_allclose([metrics[f"kl_{i}"] for i in (3, 2, 1)], parts, rtol=1e-3)
    for step, share in ((0, 0.0), (5, 0.5), (10, 1.0), (1000, 1.0)):
        metrics = loss(step)
        cost = metrics["loss"] - metrics["reconstruction"]
        np.testing.assert_allclose(cost, 2 * share * sum(parts), rtol=1e-3, atol=1e-4)
    assert config("ladder").model_dump()["warm_up"] > 0


def test_ladder_of_one_level_is_the_paper_s() -> None:
    ladder, plain = make("ladder", depth=1, warm_up=0, free_nats=0.5), make("vanilla", seed=1)
    plain.encoder, plain.mean, plain.log_var, plain.decoder = (
        ladder.encoder,
        ladder.mean[0],
        ladder.log_var[0],
        ladder.decoder,
    )
    key, batch = jax.random.key(2), Batch(frames(3))
    ours, theirs = ladder.loss(batch, Update(key))[1], plain.loss(batch, Update(key))[1]
    for name in ("loss", "reconstruction", "kl"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


def test_ladder_draws_from_the_top_down_and_decodes_the_bottom() -> None:
    vae = make("ladder", depth=2)
    drawn = vae.prior(jax.random.key(0), MANY)
    np.testing.assert_allclose(np.cov(double(drawn[:, :2]).T), np.eye(2), atol=0.1)
    given = vae.down[0](drawn[:, :2])
    standard = double((drawn[:, 2:] - given.mean) / jnp.exp(given.log_var / 2))
    np.testing.assert_allclose(np.cov(standard.T), np.eye(4), atol=0.1)
    np.testing.assert_array_equal(vae.decode(drawn[:2]), vae.decode(drawn[:2].at[:, :2].set(7.0)))
    assert np.abs(vae.decode(drawn[:2]) - vae.decode(drawn[:2].at[:, -1].add(3.0))).max() > 1e-3


# -- two stages -----------------------------------------------------------------------------------------------------


def test_each_of_two_stages_learns_from_its_own_loss_alone() -> None:
    """The first one's codes lend the second no gradient, whatever it is asked of."""
    vae, batch = make("two_stage", hidden=8), Batch(frames(4))
    graphdef, variables = nnx.split(vae)

    def touched(name: str) -> set[str]:
        loss = lambda v: getattr(nnx.merge(graphdef, v), name)(batch, Update(jax.random.key(0)))[0]  # noqa: E731
        slopes = named(jax.jit(jax.grad(loss))(variables))
        return {path for path, leaf in slopes.items() if np.any(leaf != 0)}

    second = {path for path in named(variables) if path.startswith("second.")}
    assert second and touched("second_loss") == second and touched("loss") == named(variables).keys() - second
    learned = [named(partition(variables, each.learned)[0]).keys() for each in vae.objectives]
    assert learned == [touched("loss"), second]


def test_the_second_stage_s_bound_by_hand() -> None:
    second = make("two_stage", hidden=8).second
    second.log_variance[...] = jnp.log(jnp.float32(0.3))
    z, key = gaussian(5, 6, 0).mean, jax.random.key(3)
    error, kl = second.negative_elbo(z, key)
    posterior = second.encode(z)
    np.testing.assert_allclose(kl, nats(posterior, Gaussian(jnp.zeros((5, 6)), jnp.zeros((5, 6)))), rtol=1e-3)
    x = double(posterior.sample(key))
    *inner, last = [(double(layer.kernel[...]), double(layer.bias[...])) for layer in second.mean.layers]
    for kernel, bias in inner:
        x = np.tanh(x @ kernel + bias)
    expected = -norm.logpdf(double(z), x @ last[0] + last[1], np.sqrt(0.3 + 1e-6)).sum(axis=1)
    np.testing.assert_allclose(error, expected, rtol=1e-4)


def test_the_second_stage_learns_how_codes_are_distributed() -> None:
    """Codes at (2, 2) and (-2, -2): drawn ones lie there, too, as no single Gaussian's would."""
    vae = make("two_stage", latent=2, hidden=32)
    graphdef, variables = nnx.split(vae.second)
    adam = optax.adam(1e-2)

    def codes(key: jax.Array) -> jax.Array:
        side, noise = jax.random.split(key)
        sign = 2.0 * jax.random.bernoulli(side, shape=(128, 1)).astype(jnp.float32) - 1.0
        return 2 * sign + 0.2 * jax.random.normal(noise, (128, 2))

    @jax.jit
    def train(variables: Any) -> Any:
        def update(carry: Any, key: jax.Array) -> Any:
            variables, state = carry
            of = lambda v: jnp.mean(sum(nnx.merge(graphdef, v).negative_elbo(codes(key), key)))  # noqa: E731
            loss, slope = jax.value_and_grad(of)(variables)
            with jax.numpy_dtype_promotion("standard"):
                changes, state = adam.update(slope, state)
            return (optax.apply_updates(variables, changes), state), loss

        return jax.lax.scan(update, (variables, adam.init(variables)), jax.random.split(jax.random.key(0), 600))

    (variables, _), losses = train(variables)
    exact = np.log(2) + 2 * norm(0, 0.2).entropy()  # nats of the two heaps
    normal = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * (4 * np.ones((2, 2)) + 0.04 * np.eye(2))))  # of one Gaussian
    assert exact - 0.1 < double(losses[-100:]).mean() < normal - 0.3
    vae.second = nnx.merge(graphdef, variables)
    drawn = double(vae.prior(jax.random.key(1), MANY))
    near = np.minimum(np.abs(drawn - 2).max(axis=1), np.abs(drawn + 2).max(axis=1)) < 0.8
    assert near.mean() > 0.8 and 0.3 < (drawn[:, 0] > 0).mean() < 0.7
    assert config("two_stage").model_dump()["likelihood"] == "calibrated"


# -- rae ------------------------------------------------------------------------------------------------------------


def test_rae_sums_the_error_the_codes_and_the_weights() -> None:
    vae, batch = make("rae", beta=0.3, decoder_weight=0.01), frames(3)
    loss, metrics = vae.loss(Batch(batch), Update(jax.random.key(0)))
    again, _ = vae.loss(Batch(batch), Update(jax.random.key(1)))
    assert loss == again  # there is no noise
    z = double(vae.encode(to_float(batch)).mode())
    error = np.square(double(vae.decode(jnp.asarray(z, jnp.float32))) - double(batch) / 255).sum() / 3
    weights = sum(np.square(double(leaf)).sum() for leaf in jax.tree.leaves(nnx.state(vae.decoder)))
    size = np.square(z).sum() / 2 / 3
    np.testing.assert_allclose(metrics["reconstruction"], error, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], size, rtol=1e-5)
    np.testing.assert_allclose(loss, error + 0.3 * size + 0.01 * weights, rtol=1e-5)
    plain, _ = make("rae", beta=0.3, regulariser="none").loss(Batch(batch), Update(jax.random.key(0)))
    np.testing.assert_allclose(plain, error + 0.3 * size, rtol=1e-5)


def test_rae_s_gradient_penalty_is_the_squared_jacobian() -> None:
    """Against all derivatives of the plain decoder, one by one, at three codes."""
    vae = make("rae", latent=4, regulariser="gradient", fast_kernels=False)
    z = 0.5 * gaussian(3, 4, 0).mean
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda one: vae.decode(one[None])[0])))(z)
    decoded = vae.decode(z)
    found = jax.jit(jax.vmap(lambda key: vae._regulariser(z, decoded, Update(key))))(
        jax.random.split(jax.random.key(0), 400)
    )
    assert double(found).std() / np.sqrt(400) < 0.03 * double(found).mean()
    np.testing.assert_allclose(double(found).mean(), np.square(double(jacobian)).sum() / 3, rtol=0.15)


def test_rae_s_density_is_that_of_the_codes_it_was_trained_on() -> None:
    graphdef, variables = nnx.split(make("rae", decay=0.7))
    update = jax.jit(
        lambda v, batch, key, training: loss_and_grad(graphdef, v, batch, Update(key, training=training)),
        static_argnums=3,
    )
    batches = [frames(5, seed) for seed in range(12)]
    codes = [double(nnx.merge(graphdef, variables).encode(to_float(batch)).z) for batch in batches]
    for batch in batches:
        _, gradients, others = update(variables, Batch(batch), jax.random.key(0), True)
        variables = combine(partition(variables)[0], others)
        held_out = update(variables, Batch(batches[0]), jax.random.key(0), False)[2]
        jax.tree.map(np.testing.assert_array_equal, held_out, others)  # figures change nothing
    assert not {"first", "second"} & set(gradients)
    ages = 0.3 * 0.7 ** np.arange(12)[::-1]
    rest = 0.7**12  # of N(0, 1), from which the averages began
    mean = sum(age * z.mean(axis=0) for age, z in zip(ages, codes, strict=True))
    square = sum(age * np.einsum("bi,bj->ij", z, z) / 5 for age, z in zip(ages, codes, strict=True)) + rest * np.eye(6)
    covariance = square - np.outer(mean, mean)
    vae = nnx.merge(graphdef, variables)
    np.testing.assert_allclose(vae.first[...], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(vae.second[...], square, rtol=1e-4, atol=1e-6)
    drawn = double(vae.prior(jax.random.key(1), 20_000))
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((drawn.mean(axis=0) - mean) / deviation, 0, atol=0.04)
    correlation = covariance / np.outer(deviation, deviation)
    assert np.abs(correlation - np.eye(6)).max() > 0.2
    np.testing.assert_allclose(np.cov(drawn.T) / np.outer(deviation, deviation), correlation, atol=0.05)


# -- conditional ----------------------------------------------------------------------------------------------------


def actions(count: int, size: int = 3) -> jax.Array:
    return jax.nn.one_hot(jnp.arange(count) % size, size)


def test_the_decoder_is_told_the_condition_or_the_null_one() -> None:
    vae = make("conditional", condition=5, free_nats=0.0)
    vae.null[...] = jnp.asarray([0.5, -1.0, 2.0, 0.0, 1.0])
    batch, told, key = frames(4), actions(4), jax.random.key(0)
    z = vae.encode(to_float(batch)).sample(jax.random.split(key)[0])
    padded = np.zeros((4, 5), np.float32)
    padded[np.arange(4), [0, 1, 2, 0]] = 1
    null = np.tile(vae.null[...], (4, 1))
    for condition, inputs in ((told, padded), (None, null)):
        drawn = vae.decoder(jnp.concatenate([z, jnp.asarray(inputs)], axis=1))
        np.testing.assert_array_equal(vae.decode(z, condition), drawn)
        metrics = vae.loss(Batch(batch, condition=condition), Update(key, training=False))[1]
        error = np.square(double(drawn) - double(batch) / 255).sum() / 4
        np.testing.assert_allclose(metrics["reconstruction"], error, rtol=1e-5)
    assert np.abs(vae.decode(z, told) - vae.decode(z)).max() > 1e-3
    with pytest.raises(UserError, match=r"vae.condition 5: an action of this game is 6 numbers; give 6"):
        vae.decode(z, jnp.zeros((4, 6)))


def test_a_tenth_of_the_conditions_are_left_out_in_training_alone() -> None:
    """A frame whose condition was left out does not depend on it, and the null one learns from those."""
    vae, batch, told = make("conditional", condition=3), frames(20), actions(20)

    @jax.jit
    @jax.vmap
    def slopes(key: jax.Array) -> Any:
        def of(condition: jax.Array, null: jax.Array, training: bool) -> jax.Array:
            told = nnx.merge(*nnx.split(vae))
            told.null = nnx.Param(null)
            return told.loss(Batch(batch, condition=condition), Update(key, training=training))[0]

        given = told, vae.null[...]
        return jax.grad(of, (0, 1))(*given, True), jax.grad(of, (0, 1))(*given, False)

    (trained, null), (held_out, unused) = slopes(jax.random.split(jax.random.key(0), 20))
    left_out = np.all(np.asarray(trained) == 0, axis=-1)
    assert left_out.size == 400 and 20 <= left_out.sum() <= 64
    assert (np.any(np.asarray(null) != 0, axis=-1) == left_out.any(axis=-1)).all()
    assert np.any(np.asarray(held_out) != 0, axis=-1).all() and not np.any(unused)


SPACES = {
    "discrete": Discrete(("left", "stay", "right"), (0, 1, 2)),
    "continuous": Continuous(("wheel", "gas"), (-1.0, 0.0), (1.0, 1.0), ("tanh", "sigmoid")),
}


@pytest.fixture(params=SPACES)
def played(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ReplayStore, Any]:
    """Episodes whose frames show in their first pixel the action that led to them; 200 where there was none."""
    space = SPACES[request.param]
    store = ReplayStore.create(tmp_path, {"game": "test"})
    for shard in range(2):
        episodes, splits = [], []
        for seed, steps in enumerate((4, 1, 9), start=3 * shard):
            done = space.draw(np.random.default_rng(seed), steps)
            shown = np.full((steps + 1, *FRAME), 7, np.uint8)
            shown[0, 0, 0] = 200
            shown[1:, 0, 0, 0] = done if done.ndim == 1 else np.round(100 * done[:, 1])
            ended = np.zeros(steps, bool)
            whole = Whole(3, steps + 5, 0.0) if seed == 2 else None
            episodes.append(Episode(shown, done, np.zeros(steps, np.float32), ended, ended, seed, whole))
            splits.append("test" if seed % 3 == 1 else "train")
        store.append(episodes, splits)
    return store, space


def told_by(frames: np.ndarray, condition: np.ndarray) -> None:
    """See that each condition is what its frame shows."""
    shown = frames[:, 0, 0, 0].astype(int)
    first = shown == 200
    assert not condition[first].any()
    if condition.shape[1] == 3:
        np.testing.assert_array_equal(condition[~first], np.eye(3)[shown[~first]])
    else:
        np.testing.assert_array_equal(np.round(100 * condition[~first, 1]), shown[~first])


def test_a_frame_s_condition_is_the_action_before_it(played: tuple[ReplayStore, Any]) -> None:
    store, space = played
    counts: dict[Split, int] = {"train": 30, "test": 4}
    for split, count in counts.items():
        conditions = last_actions(store, split, space)
        told = np.asarray(conditions.read(conditions.at(np.arange(count))))
        assert told.shape == (count, space.size) and told.dtype == np.float32
        told_by(store.frames(split), told)


def test_resident_and_streamed_frames_come_with_the_same_conditions(played: tuple[ReplayStore, Any]) -> None:
    store, space = played
    conditions, shown = last_actions(store, "train", space), store.frames("train")
    seen = []
    for neighbours in (None, Neighbours(np.array([5, 10, 5, 10]))):
        resident = ResidentFrames(shown, 8, 0, neighbours, conditions=conditions)
        streamed = StreamedFrames(
            lambda i: store.read("train", i),
            30,
            8,
            0,
            lambda step: step + 3,
            slice(2, 6),
            neighbours,
            conditions=conditions,
        )
        data: Any = resident.data
        for row in range(3):
            whole, part = (
                batches.fetch(
                    data, jax.tree.map(lambda each, row=row: jnp.asarray(each)[row], batches.references(5, 3, 4))
                )
                for batches, data in ((resident, data), (streamed, ()))
            )
            for name in ("frames", "condition"):
                np.testing.assert_array_equal(part[name][2:6], whole[name][2:6])
            batch = Examples(moving_weight=1.0).batch(whole, jax.random.key(0))
            told_by(np.asarray(batch.frames), np.asarray(batch.condition))
            seen.append(np.asarray(batch.frames))
        streamed.close()
    np.testing.assert_array_equal(seen[:3], seen[3:])


def test_generated_frames_have_no_actions() -> None:
    """Whoever is told actions is refused, by what it says of itself."""
    for variant in ("conditional", "vanilla"):
        vae = {"variant": variant, "frames": "generated", "width": 0.125}
        asked = load("carracing", "carracing", "smoke", {"env": {"backend": "device"}, "vae": vae})
        if variant == "vanilla":
            train_vae.accept(asked)
        else:
            with pytest.raises(UsageError, match=r"--vae.variant conditional: it also learns from each frame's action"):
                train_vae.accept(asked)


def test_training_gives_conditions_to_whoever_asks_for_them(tmp_path: Path) -> None:
    store, random = ReplayStore.create(tmp_path, {"game": "carracing"}), np.random.default_rng(0)
    still, ended = np.zeros((7, *FRAME), np.uint8), np.zeros(6, bool)
    done = random.uniform(0, 1, (6, 3)).astype(np.float32)
    store.append([Episode(still, done, np.zeros(6, np.float32), ended, ended, 0)], ["train"])
    plain, conditional = make("vanilla"), make("conditional")
    for budget in (1.0, 1e-6):
        asked = load("carracing", "carracing", "smoke", {"vae": {"batch": 7}, "data": {"device_budget_gb": budget}})
        for vae in (plain, conditional):
            batches = train_vae._batches(asked, store, 0, vae)
            assert isinstance(batches, ResidentFrames if budget == 1.0 else StreamedFrames)
            references = jax.tree.map(lambda each: jnp.asarray(each)[0], batches.references(0, 1, 1))
            batch = batches.fetch(batches.data, references)
            batches.close()
            assert isinstance(batch, dict) == (vae is not plain)
        told = double(batch["condition"])
        np.testing.assert_array_equal(
            told[np.argsort(told[:, 0])], np.vstack([np.zeros((1, 3)), done[np.argsort(done[:, 0])]])
        )
