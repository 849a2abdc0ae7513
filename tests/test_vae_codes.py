"""Auto-encoders of codes and classes: each loss by hand in float64, the codebook's upkeep, relaxed and real choices."""

import math
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from wm_jax.config.vaes import VARIANTS as SETTINGS
from wm_jax.config.vaes import CategoricalConfig, DreamerConfig, FsqConfig, JointConfig, KlConfig, VqConfig
from wm_jax.models.heads import CategoricalHead
from wm_jax.models.latents import Classes, Gaussian, Joint, from_named, named
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Update, gradient_of, make_vae
from wm_jax.models.vae.categorical import temperature
from wm_jax.models.vae.classes import relaxed
from wm_jax.models.vae.codebook import DEAD, Codebook
from wm_jax.models.vae.fsq import bounded, from_indices, to_indices, to_unit_range
from wm_jax.models.vae.losses import kl_term, kl_to_uniform
from wm_jax.models.vae.vq import batch_usage
from wm_jax.utils.errors import UserError

KEY = jax.random.key(5)
SMALL: dict[str, dict[str, Any]] = {
    "vq": {"latent": 8, "codes_per_frame": 4, "codes": 6},
    "fsq": {"latent": 8, "levels": (5, 4)},
    "categorical": {"latent": 8, "classes": 4},
    "joint": {"latent": 8, "classes": 3, "capacity": 5.0, "class_capacity": 0.5, "capacity_steps": 100},
    "dreamer": {"latent": 8, "groups": 2, "classes": 4},
}
EACH = pytest.mark.parametrize("variant", SMALL)


def small(variant: str, **settings: Any) -> Any:
    """Settings of a narrow one."""
    beside = {"width": 0.125, "bfloat16": False, "fast_kernels": False}
    return SETTINGS[variant].model_validate({"variant": variant, **beside, **SMALL[variant], **settings})


@cache
def made(variant: str) -> Any:
    """One with fresh weights; tests that change it make their own."""
    return make_vae(small(variant), nnx.Rngs(0))


def frames(count: int = 3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8))


def error_of(model: Any, z: jax.Array) -> float:
    """The summed squared error of what z decodes to, a mean over the batch."""
    decoded = np.asarray(model.decode(z), np.float64)
    return float(np.square(decoded - np.asarray(frames(), np.float64) / 255).sum() / len(decoded))


# --- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codebook", ["learned", "averages"])
def test_vq_loss_is_its_terms_summed_over_latents(codebook: str) -> None:
    model: Any = make_vae(small("vq", codebook=codebook), nnx.Rngs(0))
    output = model.output(model.encoder(to_float(frames())))
    parts = np.asarray(output, np.float64).reshape(3, 4, 2)
    book = np.asarray(model.codebook.vectors, np.float64)
    distance = np.linalg.norm(parts[:, :, None] - book, axis=-1)
    codes = model.encode(to_float(frames()))
    np.testing.assert_array_equal(codes.indices, distance.argmin(-1))
    np.testing.assert_allclose(codes.vectors, book[distance.argmin(-1)].reshape(3, 8), rtol=1e-6)
    loss, metrics = model.loss(Batch(frames()), Update(KEY, training=False))
    apart = float(np.square(distance.min(-1)).sum() / 3)
    error = error_of(model, codes.vectors)
    np.testing.assert_allclose(metrics["reconstruction"], error, rtol=1e-5)
    np.testing.assert_allclose(loss, error + (1.25 if codebook == "learned" else 0.25) * apart, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], 4 * math.log(6), rtol=1e-6)


def test_vq_gradients_go_where_the_paper_says() -> None:
    """To the book by its own term alone; to the encoder by commitment, and straight through from the decoder."""
    graphdef, params = nnx.split(make_vae(small("vq", restarts=False), nnx.Rngs(0)))
    model: Any = nnx.merge(graphdef, params)
    _, _, gradients, _ = gradient_of(graphdef)(params, frames(), (), KEY, jnp.int32(0))
    output = model.output(model.encoder(to_float(frames())))
    codes = model.encode(to_float(frames()))
    parts, book = np.asarray(output, np.float64).reshape(-1, 2), np.asarray(model.codebook.vectors, np.float64)
    chosen = np.asarray(codes.indices).reshape(-1)
    by_hand = np.zeros_like(book)
    for part, index in zip(parts, chosen, strict=True):
        by_hand[index] += 2 * (book[index] - part) / 3
    np.testing.assert_allclose(gradients.codebook.learned[...], by_hand, rtol=1e-4, atol=1e-6)
    decoder = jax.grad(lambda z: jnp.sum(jnp.square(model.decode(z) - to_float(frames()))) / 3)(codes.vectors)
    commitment = 0.25 * 2 * (parts - book[chosen]).reshape(3, 8) / 3
    wanted = (np.asarray(decoder, np.float64) + commitment).sum(0)
    np.testing.assert_allclose(gradients.output.bias[...], wanted, rtol=1e-3, atol=1e-4)


def book_of(vectors: np.ndarray, **settings: Any) -> Codebook:
    book = Codebook(small("vq", codes=len(vectors), **settings), vectors.shape[1], nnx.Rngs(0))
    book.placed[...] = book.placed[...] + jnp.asarray(vectors, jnp.float32) - book.vectors
    return book


def test_averages_are_those_of_the_appendix() -> None:
    """N and m of eq. 6 and 7 over several updates in float64, and e = m / N."""
    random, decay = np.random.default_rng(1), 0.9
    vectors = random.normal(size=(5, 3))
    book = book_of(vectors, codebook="averages", decay=decay, restarts=False)
    counts, sums = np.ones(5), vectors.copy()
    for step in range(6):
        parts = random.normal(size=(20, 3)) + step
        chosen = np.linalg.norm(parts[:, None] - (sums / counts[:, None])[None], axis=-1).argmin(1)
        found = book.nearest(jnp.asarray(parts, jnp.float32))
        np.testing.assert_array_equal(found, chosen)
        book.observe(jnp.asarray(parts, jnp.float32), found, KEY)
        for i in range(5):
            counts[i] = decay * counts[i] + (1 - decay) * (chosen == i).sum()
            sums[i] = decay * sums[i] + (1 - decay) * parts[chosen == i].sum(0)
    np.testing.assert_allclose(book.counts[...], counts, rtol=1e-5)
    np.testing.assert_allclose(book.vectors, sums / counts[:, None], rtol=1e-4)
    assert counts.min() < 0.6  # one has been left alone all the time, and has stayed
    np.testing.assert_allclose(book.vectors[counts.argmin()], vectors[counts.argmin()], rtol=1e-5)


def test_a_vector_that_nobody_chooses_stays_finite() -> None:
    """Its count sinks to 0 in float32: m / N would be 0 / 0."""
    book = book_of(np.array([[0.0], [50.0]]), codebook="averages", decay=0.0, restarts=False)
    for _ in range(2):
        book.observe(jnp.ones((4, 1)), jnp.zeros(4, jnp.int32), KEY)
    np.testing.assert_allclose(book.vectors, [[1.0], [50.0]])
    assert book.counts[...][1] == 0


@pytest.mark.parametrize("codebook", ["learned", "averages"])
def test_dead_vectors_are_put_where_the_batch_is(codebook: str) -> None:
    vectors = np.array([[0.0], [1.0], [50.0], [60.0]])
    parts = jnp.linspace(0.1, 0.9, 8)[:, None]
    for restarts in (True, False):
        book = book_of(vectors, codebook=codebook, decay=0.5, restarts=restarts)
        for step in range(12):
            book.observe(parts, book.nearest(parts), jax.random.key(step))
        far = np.asarray(book.vectors)[2:, 0]
        if restarts:
            assert (far > 0).all() and (far < 1).all() and book.in_use().tolist() == [1, 1, 1, 1]
            assert np.asarray(book.counts[...]).min() >= DEAD * np.asarray(book.counts[...]).mean()
        else:
            np.testing.assert_allclose(far, [50.0, 60.0])
            assert book.in_use().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("codebook", ["learned", "averages"])
def test_only_training_changes_the_codebook_s_statistics(codebook: str) -> None:
    model: Any = make_vae(small("vq", codebook=codebook), nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(model))
    model.loss(Batch(frames()), Update(KEY, training=False))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), before)
    model.encode(to_float(frames()))
    graphdef, variables = nnx.split(model)
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    others = gradient_of(graphdef)(variables, frames(), (), KEY, jnp.int32(0))[3]
    assert not np.array_equal(others.codebook.counts[...], before.codebook.counts[...])
    assert np.array_equal(others.codebook.placed[...], before.codebook.placed[...]) == (codebook == "learned")


def test_the_prior_draws_codes_that_are_in_use() -> None:
    model: Any = make_vae(small("vq"), nnx.Rngs(0))
    model.codebook.counts[...] = jnp.asarray([1.0, 0.0, 2.0, 0.0, 0.0, 3.0])
    drawn = np.asarray(model.prior(KEY, 3000)).reshape(-1, 2)
    book = np.asarray(model.codebook.vectors)
    shares = [np.isclose(drawn, each).all(1).mean() for each in book]
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 0, 0, 1 / 3], atol=0.02)


def test_usage_of_codes() -> None:
    found = batch_usage(jnp.asarray([[0, 0], [3, 3], [5, 0]]), 9)
    entropy = stats.entropy([3, 2, 1])
    np.testing.assert_allclose(found["perplexity"], np.exp(entropy), rtol=1e-5)
    assert found["codes_in_use"] == 3
    assert batch_usage(jnp.arange(8)[None], 8)["perplexity"] == pytest.approx(8, rel=1e-5)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 3), (2, 7, 6)])
def test_codes_and_indices_are_one_to_one(levels: tuple[int, ...]) -> None:
    size = math.prod(levels)
    indices = jnp.arange(size, dtype=jnp.int32)[None]
    rounded = from_indices(indices, levels)
    np.testing.assert_array_equal(to_indices(rounded, levels), indices)
    assert len({tuple(each) for each in np.asarray(rounded)[0].tolist()}) == size
    for i, count in enumerate(levels):
        assert sorted(set(np.asarray(rounded)[0, :, i].tolist())) == list(range(-(count // 2), (count + 1) // 2))
    assert jnp.abs(to_unit_range(rounded, levels)).max() == 1


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 3), (2, 7, 6)])
def test_rounding_reaches_every_level_and_no_other(levels: tuple[int, ...]) -> None:
    line = jnp.concatenate([jnp.linspace(-12, 12, 4001), jnp.asarray([-1e6, 1e6])])
    z = jnp.broadcast_to(line[None, :, None], (1, len(line), len(levels)))
    rounded = np.asarray(jnp.round(bounded(z, levels)))[0]
    for i, count in enumerate(levels):
        assert sorted(set(rounded[:, i].tolist())) == list(range(-(count // 2), (count + 1) // 2))
        assert (np.diff(rounded[:-2, i]) >= 0).all()
    # 0 lies in the middle of a level, not between two (but for two levels, which have no middle).
    middle = np.asarray(bounded(jnp.zeros((1, 1, len(levels))), levels))[0, 0]
    assert all(abs(x) < 1e-3 for x, count in zip(middle, levels, strict=True) if count > 2)


def test_fsq_loss_is_the_error_alone_and_its_gradient_goes_straight_through() -> None:
    graphdef, params = nnx.split(made("fsq"))
    model: Any = nnx.merge(graphdef, params)
    loss, metrics = model.loss(Batch(frames()), Update(KEY))
    codes = model.encode(to_float(frames()))
    np.testing.assert_allclose(loss, error_of(model, codes.vectors), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], 4 * math.log(20), rtol=1e-6)
    assert model.latent_kind.classes == (4, 20)
    _, _, gradients, _ = gradient_of(graphdef)(params, frames(), (), KEY, jnp.int32(0))
    output = np.asarray(model.output(model.encoder(to_float(frames()))), np.float64).reshape(3, 4, 2)
    decoder = jax.grad(lambda z: jnp.sum(jnp.square(model.decode(z) - to_float(frames()))) / 3)(codes.vectors)
    # d/dz of half * tanh(z + shift), over L // 2, for 5 and 4 levels
    half, shift = np.array([2.0, 1.5]) * 0.999, np.array([0.0, np.tan(0.5 / (1.5 * 0.999))])
    slope = half / np.cosh(output + shift) ** 2 / np.array([2.0, 2.0])
    wanted = (np.asarray(decoder, np.float64) * slope.reshape(3, 8)).sum(0)
    np.testing.assert_allclose(gradients.output.bias[...], wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(wanted).min() > 0


# --- classes ----------------------------------------------------------------------------------------------------------

LOGITS = jnp.asarray(np.random.default_rng(2).normal(0, 2, (3, 2, 4)), jnp.float32)


def test_classes_are_drawn_by_their_odds_and_m_is_to_predict_what_was_drawn() -> None:
    latent = Classes(jnp.repeat(LOGITS[:1], 20_000, 0))
    z, target = latent.sample(KEY), latent.target(KEY)
    np.testing.assert_array_equal(z.reshape(-1, 2, 4).argmax(-1), target)
    np.testing.assert_array_equal(np.sort(z.reshape(-1, 4), -1)[:, -2:], np.tile([0.0, 1.0], (40_000, 1)))
    odds = np.exp(np.asarray(LOGITS[0], np.float64))
    np.testing.assert_allclose(z.mean(0).reshape(2, 4), odds / odds.sum(-1, keepdims=True), atol=0.015)
    np.testing.assert_array_equal(Classes(LOGITS).mode().reshape(3, 2, 4).argmax(-1), LOGITS.argmax(-1))
    # The head of M that these classes call for can be asked for them.
    assert CategoricalHead(2, 4).read(jnp.zeros((3, 8))).log_prob(Classes(LOGITS).target(KEY)).shape == (3,)
    assert Classes(LOGITS.reshape(3, 1, 2, 4)).sample(KEY).shape == (3, 1, 8)


def test_a_sample_s_gradient_is_that_of_the_probabilities() -> None:
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(3, 8)), jnp.float32)
    found = jax.grad(lambda logits: jnp.sum(weights * Classes(logits).sample(KEY)))(LOGITS)
    p = np.exp(np.asarray(LOGITS, np.float64))
    p /= p.sum(-1, keepdims=True)
    w = np.asarray(weights, np.float64).reshape(3, 2, 4)
    np.testing.assert_allclose(found, p * (w - (p * w).sum(-1, keepdims=True)), rtol=1e-4, atol=1e-6)


def test_kl_to_uniform_is_scipy_s() -> None:
    p = np.exp(np.asarray(LOGITS, np.float64))
    wanted = stats.entropy(p, np.ones_like(p), axis=-1).sum(-1)
    np.testing.assert_allclose(kl_to_uniform(Classes(LOGITS)), wanted, rtol=1e-5)
    sure = Classes(jnp.asarray([[[1e6, 0.0, -1e6]]]))
    np.testing.assert_allclose(kl_to_uniform(sure), [math.log(3)], rtol=1e-6)
    slope = jax.grad(lambda logits: kl_to_uniform(Classes(logits)).sum())(sure.logits)
    assert np.isfinite(slope).all()


def test_relaxed_choices_have_the_concrete_density_s_moments_and_sharpen() -> None:
    """Towards 0 they are one-hot draws by the odds; the likeliest entry is so at every temperature (Gumbel-max)."""
    latent = Classes(jnp.repeat(LOGITS[:1], 20_000, 0))
    odds = np.exp(np.asarray(LOGITS[0], np.float64))
    odds /= odds.sum(-1, keepdims=True)
    spread = []
    for tau in (0.05, 0.5, 2.0):
        z = relaxed(latent, tau, KEY).reshape(-1, 2, 4)
        np.testing.assert_allclose(z.sum(-1), 1.0, rtol=1e-5)
        largest = np.asarray(z).argmax(-1)
        shares = np.stack([(largest == c).mean(0) for c in range(4)], -1)
        np.testing.assert_allclose(shares, odds, atol=0.015)
        spread.append(float(z.max(-1).mean()))
    assert spread[0] > 0.97 and spread[0] > spread[1] > spread[2]
    # Two classes: the log odds of a relaxed choice are logistic (Maddison et al. 2017), times 1 / temperature.
    pair = relaxed(Classes(jnp.tile(jnp.asarray([[[0.7, 0.0]]]), (20_000, 1, 1))), 2.0, KEY)
    difference = np.log(np.asarray(pair[:, 0], np.float64)) - np.log(np.asarray(pair[:, 1], np.float64))
    assert stats.kstest(difference, stats.logistic(0.7 / 2, 1 / 2).cdf).pvalue > 0.001


def test_the_temperature_falls_with_the_updates_to_its_floor() -> None:
    config = small("categorical", temperature=2.0, final_temperature=0.5, anneal_rate=0.01)
    found = [float(temperature(config, step)) for step in (0, 50, 100, 10_000)]
    np.testing.assert_allclose(found, [2.0, 2 * math.exp(-0.5), 2 * math.exp(-1), 0.5], rtol=1e-5)


def test_the_loss_is_annealed_by_the_update_s_step() -> None:
    """What it decodes is relaxed at the temperature of this very update."""
    model: Any = make_vae(small("categorical", anneal_rate=0.01, final_temperature=0.1), nnx.Rngs(0))
    posterior = model.encode(to_float(frames()))
    for step in (0, 150):
        _, metrics = model.loss(Batch(frames()), Update(KEY, jnp.int32(step)))
        z = relaxed(posterior, math.exp(-0.01 * step), KEY)
        np.testing.assert_allclose(metrics["reconstruction"], error_of(model, z), rtol=1e-4)
    _, metrics = model.loss(Batch(frames()), Update(KEY, 150, training=False))
    np.testing.assert_allclose(metrics["reconstruction"], error_of(model, posterior.sample(KEY)), rtol=1e-5)
    hard: Any = make_vae(small("categorical", straight_through=True), nnx.Rngs(0))
    z = Classes(relaxed(posterior, 1.0, KEY).reshape(3, 2, 4)).mode()
    np.testing.assert_allclose(
        hard.loss(Batch(frames()), Update(KEY))[1]["reconstruction"], error_of(hard, z), rtol=1e-5
    )


@pytest.mark.parametrize("variant", ["categorical", "dreamer"])
@pytest.mark.parametrize("training", [True, False])
def test_losses_of_classes_weigh_the_kl_alike_in_training_and_on_held_out_frames(variant: str, training: bool) -> None:
    model: Any = make_vae(small(variant, beta=3.0, free_nats=0.0, warm_up=4), nnx.Rngs(0))
    loss, metrics = model.loss(Batch(frames()), Update(KEY, 2, training=training))
    p = np.asarray(jax.nn.softmax(model.encode(to_float(frames())).logits, axis=-1), np.float64)
    kl = float((p * np.log(4 * p)).sum() / 3)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(loss, metrics["reconstruction"] + 3 * 0.5 * kl, rtol=1e-5)


@pytest.mark.parametrize(("variant", "floors"), [("categorical", 2), ("dreamer", 1)])
def test_free_nats_are_per_choice_or_per_frame(variant: str, floors: int) -> None:
    model: Any = make_vae(small(variant, beta=1.0, free_nats=7.0), nnx.Rngs(0))
    loss, metrics = model.loss(Batch(frames()), Update(KEY))
    np.testing.assert_allclose(loss - metrics["reconstruction"], 7.0 * floors, rtol=1e-4)


def test_nothing_is_impossible_with_a_little_of_the_uniform() -> None:
    model: Any = make_vae(small("dreamer", unimix=0.2), nnx.Rngs(0))
    plain: Any = make_vae(small("dreamer", unimix=0.0), nnx.Rngs(0))
    for each in (model, plain):
        each.logits.kernel[...] = 1e4 * each.logits.kernel[...]
    p = np.exp(np.asarray(plain.encode(to_float(frames())).logits, np.float64))
    assert p.min() < 1e-3
    found = np.exp(np.asarray(model.encode(to_float(frames())).logits, np.float64))
    np.testing.assert_allclose(found, 0.8 * p + 0.2 / 4, rtol=1e-4)
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-5)


def test_the_dreamer_s_defaults_are_the_paper_s() -> None:
    config = DreamerConfig()
    assert (config.groups, config.classes, config.latent) == (32, 32, 1024)
    assert (config.unimix, config.free_nats, config.beta) == (0.01, 1.0, 0.1)


# --- both -------------------------------------------------------------------------------------------------------------


def test_joint_holds_each_part_to_its_own_capacity() -> None:
    model: Any = make_vae(small("joint", beta=2.0, capacity=5.0, class_capacity=0.5, capacity_steps=100), nnx.Rngs(0))
    posterior = model.encode(to_float(frames()))
    mean, log_var = (np.asarray(each, np.float64) for each in posterior.numbers)
    numbers = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum() / 3
    p = np.asarray(jax.nn.softmax(posterior.classes.logits, axis=-1), np.float64)
    choices = (p * np.log(3 * p)).sum() / 3
    for step, share in ((0, 0.0), (40, 0.4), (1000, 1.0)):
        loss, metrics = model.loss(Batch(frames()), Update(KEY, step))
        penalty = 2 * abs(numbers - 5 * share) + 2 * abs(choices - 0.5 * share)
        np.testing.assert_allclose(loss - metrics["reconstruction"], penalty, rtol=2e-3)
        np.testing.assert_allclose(metrics["kl"], numbers + choices, rtol=1e-4)
        np.testing.assert_allclose(metrics["kl_classes"], choices, rtol=1e-4)


def test_joint_s_class_capacity_rises_at_its_own_rate_to_what_the_classes_can_hold() -> None:
    """As in the paper: min(C_c t, G log C), so the bound does not slow the rise."""
    model: Any = make_vae(small("joint", class_capacity=50.0, capacity_steps=100), nnx.Rngs(0))
    found = [float(model.class_capacity(step)) for step in (0, 1, 2, 3, 100)]
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0, math.log(3), math.log(3)], rtol=1e-6)


def test_joint_s_capacities_rise_as_fast_as_others_do() -> None:
    assert JointConfig().capacity_steps == KlConfig().capacity_steps


def test_joint_without_capacities_is_the_elbo() -> None:
    model: Any = make_vae(small("joint", beta=1.0, capacity=None), nnx.Rngs(0))
    loss, metrics = model.loss(Batch(frames()), Update(KEY))
    np.testing.assert_allclose(loss, metrics["reconstruction"] + metrics["kl"], rtol=1e-5)


def test_joint_latents_are_both_parts_one_after_the_other() -> None:
    latent = Joint(Gaussian(jnp.full((3, 5), 2.0), jnp.full((3, 5), -100.0)), Classes(1e6 * LOGITS[:, :1, :3]))
    sure = np.concatenate([np.full((3, 5), 2.0), np.eye(3)[np.asarray(LOGITS[:, 0, :3]).argmax(-1)]], 1)
    for z in (latent.mode(), latent.sample(KEY), latent.target(KEY)):
        np.testing.assert_allclose(z, sure)
    assert list(named(latent)) == ["numbers.mean", "numbers.log_var", "classes.logits"]
    again = from_named(latent, named(latent))
    assert jax.tree.structure(again) == jax.tree.structure(latent)
    unsure = Joint(Gaussian(jnp.zeros((3, 5)), jnp.zeros((3, 5))), Classes(LOGITS[:, :1, :3]))
    np.testing.assert_array_equal(unsure.sample(KEY), unsure.target(KEY))
    model: Any = made("joint")
    assert model.latent_kind == (8, None)


# --- all --------------------------------------------------------------------------------------------------------------


@EACH
def test_what_is_seen_is_encoded_and_weights_count(variant: str) -> None:
    """Noise goes into what is encoded alone, weights into the error alone."""
    model: Any = make_vae(small(variant), nnx.Rngs(0))
    loss = partial(model.loss, update=Update(KEY, training=False))
    plain, metrics = loss(Batch(frames()))
    doubled, same = loss(Batch(frames(), weights=jnp.full((3, 64, 64, 1), 2.0)))
    np.testing.assert_allclose(doubled - plain, metrics["reconstruction"], rtol=1e-4)
    np.testing.assert_allclose(same["reconstruction"], metrics["reconstruction"], rtol=1e-6)
    for head in {"output", "logits", "mean"} & vars(model).keys():  # so that z differs from frame to frame
        getattr(model, head).kernel[...] = 30 * getattr(model, head).kernel[...]
    other = jnp.broadcast_to(jnp.asarray([0.0, 0.4, 1.0])[:, None, None, None], (3, 64, 64, 3))
    noised = loss(Batch(frames(), noisy_input=other))[1]["reconstruction"]
    of_other, of_own = (error_of(model, model.encode(seen).sample(KEY)) for seen in (other, to_float(frames())))
    assert abs(of_other - of_own) > 1e-3 * of_own
    np.testing.assert_allclose(noised, of_other, rtol=1e-4)


@EACH
def test_priors_draw_what_latents_look_like(variant: str) -> None:
    """Codes or classes, all of them alike."""
    drawn = np.asarray(made(variant).prior(KEY, 4000))
    if variant == "fsq":
        for i, values in enumerate(([-1, -0.5, 0, 0.5, 1], [-1, -0.5, 0, 0.5])):
            shares = [(drawn[:, i::2] == value).mean() for value in values]
            np.testing.assert_allclose(shares, 1 / len(values), atol=0.02)
    elif variant == "joint":
        np.testing.assert_allclose(drawn[:, :5].std(0), 1.0, atol=0.05)
        np.testing.assert_allclose(drawn[:, 5:].mean(0), 1 / 3, atol=0.03)
        np.testing.assert_array_equal(drawn[:, 5:].sum(1), 1.0)
    elif variant == "vq":
        assert len(np.unique(drawn.reshape(-1, 2), axis=0)) == 6
    else:
        np.testing.assert_allclose(drawn.mean(0), 1 / 4, atol=0.03)
        np.testing.assert_array_equal(drawn.reshape(-1, 2, 4).sum(-1), 1.0)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (VqConfig(variant="vq", latent=30), r"vae.latent 30: it cannot be divided into 32 codes"),
        (FsqConfig(variant="fsq", latent=30), r"vae.latent 30: it cannot be divided into codes of 4 numbers"),
        (CategoricalConfig(variant="categorical", latent=30), r"vae.latent 30: .* groups of 16 classes"),
        (JointConfig(variant="joint", latent=10), r"vae.latent 10: .* leave nothing"),
        (DreamerConfig(variant="dreamer", latent=32), r"vae.latent 32: .* make 1024"),
    ],
)
def test_sizes_that_do_not_fit_are_named(config: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_vae(config, nnx.Rngs(0))


def test_free_nats_count_latents_unless_told_otherwise() -> None:
    config = small("categorical", free_nats=3.0, beta=1.0)
    assert float(kl_term(jnp.zeros(2), config, 0)) == 3.0 * 8
    assert float(kl_term(jnp.zeros(2), config, 0, 5)) == 3.0 * 5
