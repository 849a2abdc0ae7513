"""Auto-encoders that differ in what makes two pictures alike: likelihoods, MS-SSIM, features, and adversaries.

Everything is held against NumPy and SciPy in float64, written otherwise, or against what the paper says follows.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage
import scipy.special
from flax import nnx

from wm_jax.config import vaes as settings
from wm_jax.models.latents import Point
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Batch, Update, loss_and_grad, make_vae
from wm_jax.models.vae.aae import Aae
from wm_jax.models.vae.layers import LogOdds
from wm_jax.models.vae.losses import LEAST_PROBABILITY, frame_errors, kl_term, kl_to_standard_normal, log_cosh
from wm_jax.models.vae.ms_ssim import ms_ssim
from wm_jax.models.variables import partition

RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
TARGET = FRAMES.astype(np.float64) / 255
DECODED = RANDOM.random(TARGET.shape)
WEIGHTS = 1 + 30 * (RANDOM.random((3, 64, 64, 1)) < 0.1)
KEY = jax.random.key(5)
Z_KEY = jax.random.split(KEY)[0]
"""What draws z of an update with this key."""


def single(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def config(variant: str, **given: Any) -> Any:
    kind = settings.VARIANTS[variant]
    mine = {"width": 0.125, "latent": 4, "free_nats": 0.0, "discriminator_width": 16, "fast_kernels": False} | given
    return kind.model_validate({"variant": variant} | {k: v for k, v in mine.items() if k in kind.model_fields})


def model(variant: str, **given: Any) -> Any:
    return make_vae(config(variant, **given), nnx.Rngs(0))


LIKELIHOODS = {
    "gaussian": lambda d, t: (d - t) ** 2,
    "laplace": lambda d, t: abs(d - t),
    "logcosh": lambda d, t: np.log(np.cosh(7.0 * (d - t))) / 7.0,
    "cross_entropy": lambda d, t: -(t * np.log(d) + (1 - t) * np.log(1 - d)),
}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_each_likelihood_is_summed_over_pixels_by_their_weights(name: str, weights: np.ndarray | None) -> None:
    given = config("vanilla", likelihood=name, sharpness=7.0)
    found = frame_errors(single(DECODED), single(TARGET), None if weights is None else single(weights), given)
    each = LIKELIHOODS[name](DECODED, TARGET) * (1 if weights is None else weights)
    np.testing.assert_allclose(found, each.reshape(3, -1).sum(1), rtol=1e-5)


def test_cross_entropy_of_a_sigmoid_that_gave_0_or_1_is_finite_and_its_gradient_too() -> None:
    given = config("vanilla", likelihood="cross_entropy")
    zero, one = jnp.zeros((1, 64, 64, 3)), jnp.ones((1, 64, 64, 3))
    worst, slope = jax.value_and_grad(lambda d: frame_errors(d, one, None, given)[0])(zero)
    np.testing.assert_allclose(worst, -12288 * math.log(LEAST_PROBABILITY), rtol=1e-4)
    # Away from the wrong colour, however certain it is.
    np.testing.assert_allclose(slope, -1 / LEAST_PROBABILITY, rtol=1e-4)
    slope = jax.grad(lambda d: frame_errors(d, zero, None, given)[0])(one)
    assert np.isfinite(slope).all() and slope.min() > 0.5 / LEAST_PROBABILITY
    assert frame_errors(one, one, None, given)[0] < 0.1


def test_cross_entropy_reaches_the_logits_of_a_nearly_saturated_sigmoid() -> None:
    given, one = config("vanilla", likelihood="cross_entropy"), jnp.ones((1, 64, 64, 3))
    logits = jnp.full((1, 64, 64, 3), -20.0)  # a colour of 2e-9, below what the value is clipped to
    slope = jax.grad(lambda x: frame_errors(jax.nn.sigmoid(x), one, None, given)[0])(logits)
    assert np.isfinite(slope).all() and slope.max() < 0


def test_log_cosh_where_cosh_overflows_and_where_it_is_one() -> None:
    x = np.array([-1000.0, -30.0, -0.5, 0.0, 1e-3, 3.0, 300.0])
    np.testing.assert_allclose(log_cosh(single(x)), np.logaddexp(x, -x) - math.log(2), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(jax.grad(log_cosh))(single(x)), np.tanh(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_calibrated_is_the_likelihood_of_the_best_variance_of_the_batch(weights: np.ndarray | None) -> None:
    given = config("vanilla", likelihood="calibrated")
    as_given = None if weights is None else single(weights)
    squared = (DECODED - TARGET) ** 2 * (1 if weights is None else weights)

    def negative_log_likelihood(variance: float) -> float:
        return float(np.sum(squared / (2 * variance) + 0.5 * math.log(variance)) / 3)

    best = min(np.geomspace(0.1, 5, 4001), key=negative_log_likelihood)
    found = np.mean(frame_errors(single(DECODED), single(TARGET), as_given, given))
    np.testing.assert_allclose(found + 12288 / 2, negative_log_likelihood(best), rtol=1e-4)

    def logarithm(decoded: jax.Array) -> jax.Array:
        weigh = 1.0 if as_given is None else as_given
        return 12288 / 2 * jnp.log(jnp.mean(weigh * (decoded - single(TARGET)) ** 2))

    ours = jax.grad(lambda d: jnp.mean(frame_errors(d, single(TARGET), as_given, given)))(single(DECODED))
    np.testing.assert_allclose(ours, jax.grad(logarithm)(single(DECODED)), rtol=1e-4, atol=1e-6)


def test_the_kl_term_floors_each_frame_rises_and_aims_at_a_capacity() -> None:
    kl = single([1.0, 5.0, 9.0])
    cost = lambda step=0, **given: float(kl_term(kl, config("vanilla", **given), step))  # noqa: E731
    assert cost(beta=2.0) == pytest.approx(2 * 5)
    assert cost(free_nats=1.5) == pytest.approx((6 + 6 + 9) / 3)  # 1.5 * 4 latents
    assert [cost(step, warm_up=10, beta=3.0) for step in (0, 5, 10, 99)] == pytest.approx([0, 7.5, 15, 15])
    capacity = partial(cost, capacity=8.0, capacity_steps=4, beta=10.0)
    assert [capacity(step) for step in (0, 2, 4, 9)] == pytest.approx([10 * 5, 10 * 1, 10 * 3, 10 * 3])
    assert capacity(2, warm_up=4) == pytest.approx(5)
    pulled = jax.grad(lambda kl: kl_term(kl, config("vanilla", capacity=8.0), 10**6))(kl)
    np.testing.assert_allclose(pulled, [-1 / 3] * 3, rtol=1e-6)  # upwards, as far as it is below


@pytest.mark.parametrize("variant", ["logcosh", "ms_ssim", "dfc", "vae_gan"])
def test_without_its_own_terms_it_is_vanilla(variant: str) -> None:
    """The same networks from the same seed, the same error, the same KL."""
    own = {
        "structure_weight": 0.0,
        "feature_weight": 0.0,
        "adversary_weight": 0.0,
        "likelihood": "laplace",
        "beta": 0.3,
    }
    fields = settings.VARIANTS[variant].model_fields
    alike = model(variant, **{name: value for name, value in own.items() if name in fields})
    batch = Batch(jnp.asarray(FRAMES), weights=single(WEIGHTS))
    loss, metrics = alike.loss(batch, Update(KEY))
    vanilla, figures = model("vanilla", likelihood="laplace", beta=0.3).loss(batch, Update(KEY))
    np.testing.assert_allclose(loss, vanilla, rtol=1e-5)
    for name in figures:
        np.testing.assert_allclose(metrics[name], figures[name], rtol=1e-5)


def test_log_cosh_is_the_likelihood_of_its_own_variant() -> None:
    chosen = config("logcosh")
    assert (chosen.likelihood, chosen.sharpness) == ("logcosh", 10.0)
    loss, metrics = model("logcosh").loss(Batch(jnp.asarray(FRAMES)), Update(KEY))
    decoded = np.asarray(model("logcosh").decode(model("logcosh").encode(to_float(jnp.asarray(FRAMES))).sample(Z_KEY)))
    each = np.log(np.cosh(10.0 * (decoded.astype(np.float64) - TARGET))) / 10.0
    np.testing.assert_allclose(loss - metrics["kl"], each.sum() / 3, rtol=1e-4)


def independent_ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Of two grey pictures in [0, 1], by SciPy's Gaussian filter, from variances about the windows' means."""
    blur = lambda image: scipy.ndimage.gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]  # noqa: E731
    factors, exponents = [], np.array([0.0448, 0.2856, 0.3001])
    for scale in range(3):
        mean_x, mean_y = blur(x), blur(y)
        std_x, std_y = (np.sqrt(blur(image**2) - blur(image) ** 2) for image in (x, y))
        covariance = blur((x - x.mean()) * (y - y.mean())) - (mean_x - x.mean()) * (mean_y - y.mean())
        luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        contrast = (2 * std_x * std_y + 0.03**2) / (std_x**2 + std_y**2 + 0.03**2)
        structure = (covariance + 0.03**2 / 2) / (std_x * std_y + 0.03**2 / 2)
        factors.append(np.mean(contrast * structure * (luminance if scale == 2 else 1)))
        x, y = (scipy.ndimage.uniform_filter(image, 2, origin=-1)[::2, ::2] for image in (x, y))
    return float(np.prod(np.array(factors) ** (exponents / exponents.sum())))


def smooth(count: int) -> np.ndarray:
    """Pictures whose neighbouring pixels are alike."""
    rough = scipy.ndimage.gaussian_filter(RANDOM.random((count, 64, 64, 3)), (0, 3, 3, 0))
    return (rough - rough.min()) / np.ptp(rough)


def test_ms_ssim_equals_an_independent_one_and_is_one_for_equal_pictures() -> None:
    x = smooth(3)
    y = np.clip(0.8 * x + 0.1 * smooth(3) + 0.05 * RANDOM.random(x.shape), 0, 1)
    expected = [np.mean([independent_ms_ssim(a[..., c], b[..., c]) for c in range(3)]) for a, b in zip(x, y)]  # noqa: B905
    assert min(expected) > 0.3 and max(expected) < 0.98
    np.testing.assert_allclose(ms_ssim(single(x), single(y)), expected, rtol=1e-4)
    np.testing.assert_allclose(ms_ssim(single(x), single(x)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(ms_ssim(single(x), single(y), jnp.full((3, 64, 64, 1), 7.0)), expected, rtol=1e-4)


def test_ms_ssim_looks_where_the_weights_are() -> None:
    x = smooth(1)
    spoilt = x.copy()
    spoilt[:, :32] = RANDOM.random(spoilt[:, :32].shape)
    upper = np.ones((1, 64, 64, 1))
    upper[:, :32] = 100.0
    everywhere, above, below = (
        ms_ssim(single(x), single(spoilt), w)[0] for w in (None, single(upper), single(1 / upper))
    )
    assert above < everywhere - 0.1 and below > everywhere + 0.1


def test_ms_ssim_of_what_is_the_other_way_round_has_a_gradient_that_mends_it() -> None:
    x = smooth(1)
    value, slope = jax.value_and_grad(lambda y: ms_ssim(single(x), y)[0])(single(1 - x))
    assert 0 < value < 0.1 and np.isfinite(slope).all()
    nearer = single(1 - x) + 0.3 * slope / jnp.max(jnp.abs(slope))
    covariance = lambda y: float(np.sum((x - x.mean()) * np.asarray(y - y.mean())))  # noqa: E731
    assert covariance(nearer) > covariance(single(1 - x))


def test_ms_ssim_s_loss_is_its_weight_for_each_frame_and_not_for_each_pixel() -> None:
    apart = model("ms_ssim", pixel_weight=0.0, structure_weight=200.0)
    batch = Batch(jnp.asarray((255 * smooth(3)).astype(np.uint8)))
    loss, metrics = apart.loss(batch, Update(KEY))
    decoded = apart.decode(apart.encode(batch.target).sample(Z_KEY))
    alike = np.mean(ms_ssim(decoded, batch.target))
    assert 0.05 < alike < 0.95
    np.testing.assert_allclose(metrics["ms_ssim"], alike, rtol=1e-4)
    np.testing.assert_allclose(loss - metrics["kl"], 200 * (1 - alike), rtol=1e-3)


def test_dfc_s_feature_error_is_by_hand_and_its_random_network_never_learns() -> None:
    vae = model("dfc", pixel_weight=0.0, feature_weight=0.7)
    batch = Batch(jnp.asarray(FRAMES))
    graphdef, variables = nnx.split(vae)
    metrics, gradients, others = jax.jit(lambda v: loss_and_grad(graphdef, v, batch, Update(KEY)))(variables)
    named = {str(path) for path, _ in jax.tree.leaves_with_path(gradients)}
    assert named and not any("random_features" in name for name in named)
    jax.tree.map(np.testing.assert_array_equal, others, partition(variables)[1])
    kernels = [np.asarray(kernel[...], np.float64) for kernel in vae.random_features.kernels]
    assert len(jax.tree.leaves(others)) == 2 * len(kernels)  # with biases of 0

    def layers(x: np.ndarray) -> list[np.ndarray]:
        found = []
        for kernel in kernels:
            windows = np.lib.stride_tricks.sliding_window_view(x, (4, 4), axis=(1, 2))[:, ::2, ::2]
            x = np.maximum(np.einsum("bijcxy,xyco->bijo", windows, kernel), 0)
            found.append(x)
        return found

    decoded = np.asarray(vae.decode(vae.encode(batch.target).sample(Z_KEY)), np.float64)
    features = 12288 * sum(np.mean((a - b) ** 2) for a, b in zip(layers(decoded), layers(TARGET), strict=True))
    np.testing.assert_allclose(metrics["features"], features, rtol=1e-3)
    np.testing.assert_allclose(metrics["loss"] - metrics["kl"], 0.7 * features, rtol=1e-3)


ADVERSARIAL = ("aae", "vae_gan")


@pytest.mark.parametrize("variant", ADVERSARIAL)
def test_each_side_s_loss_moves_its_own_part_alone(variant: str) -> None:
    """Between them they move everything, and every gradient arrives."""
    graphdef, variables = nnx.split(model(variant, adversary_weight=1.0))
    both = nnx.merge(graphdef, variables).objectives
    batch, update = Batch(jnp.asarray(FRAMES)), Update(KEY)
    slopes = [jax.jit(lambda v, o=each: loss_and_grad(graphdef, v, batch, update, o)[1])(variables) for each in both]
    first, second = ([str(path) for path, _ in jax.tree.leaves_with_path(each)] for each in slopes)
    assert not any("discriminator" in path for path in first) and all("discriminator" in path for path in second)
    assert len(first) + len(second) == len(jax.tree.leaves(variables))
    for path, leaf in jax.tree.leaves_with_path(slopes):
        assert np.any(leaf != 0), path


@pytest.mark.parametrize("variant", ADVERSARIAL)
def test_an_adversary_s_loss_is_the_cross_entropy_of_what_is_real_and_what_is_not(variant: str) -> None:
    """A discriminator that knows nothing pays log 2 for each of what it is shown; and by hand."""
    vae = model(variant)
    shown = 2 if variant == "aae" else 3
    batch = Batch(jnp.asarray(FRAMES))
    loss, metrics = vae.discriminator_loss(batch, Update(KEY))
    if variant == "aae":
        real, drawn = vae.prior(KEY, 3), [vae.encode(batch.target).z]
    else:
        prior_key = jax.random.split(KEY)[1]
        z, of_prior = vae.encode(batch.target).sample(Z_KEY), vae.prior(prior_key, 3)
        real, drawn = batch.target, [vae.decode(z), vae.decode(of_prior)]
    sure = lambda x: scipy.special.expit(np.asarray(vae.discriminator(x), np.float64))  # noqa: E731
    expected = -np.mean(np.log(sure(real)) + sum(np.log(1 - sure(x)) for x in drawn))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert metrics == {"discriminator_loss": loss}
    judge = vae.discriminator
    last = judge.layers[-1] if isinstance(judge, LogOdds) else judge.last
    last.kernel[...] *= 0
    np.testing.assert_allclose(vae.discriminator_loss(batch, Update(KEY))[0], shown * math.log(2), rtol=1e-5)


def test_vae_gan_s_decoder_alone_learns_to_deceive() -> None:
    """Larsen et al. 2016, 2.3: the encoder sees the KL and the features' error, and nothing of the GAN's."""
    batch = Batch(jnp.asarray(FRAMES))

    def slopes(adversary: float) -> Any:
        graphdef, variables = nnx.split(model("vae_gan", adversary_weight=adversary))
        objective = nnx.merge(graphdef, variables).objectives[0]
        return jax.jit(lambda v: loss_and_grad(graphdef, v, batch, Update(KEY), objective)[1])(variables)

    without, much = slopes(0.0), slopes(50.0)
    for part in ("encoder", "mean", "log_var"):
        for a, b in zip(jax.tree.leaves(without[part]), jax.tree.leaves(much[part]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), without["decoder"], much["decoder"])
    assert min(jax.tree.leaves(apart)) > 0


def test_vae_gan_s_features_have_one_size_however_sure_the_discriminator_is() -> None:
    vae = model("vae_gan")
    before = vae.discriminator.features(single(TARGET))
    for kernel in vae.discriminator.convolutions.kernels:
        kernel[...] = kernel[...] * 10
    np.testing.assert_allclose(vae.discriminator.features(single(TARGET)), before, rtol=1e-4, atol=1e-5)
    batch = Batch(jnp.asarray(FRAMES))
    decoded = vae.decode(vae.encode(batch.target).sample(Z_KEY))
    apart = np.asarray(vae.discriminator.features(decoded) - before, np.float64)
    found = vae.loss(batch, Update(KEY))[1]["features"]
    np.testing.assert_allclose(found, 0.5 * np.square(apart).sum() / 3, rtol=1e-3)


def test_aae_has_no_noise_and_its_kl_is_what_the_discriminator_says() -> None:
    vae = model("aae", adversary_weight=3.0)
    batch = Batch(jnp.asarray(FRAMES))
    latent = vae.encode(batch.target)
    assert isinstance(latent, Point)
    np.testing.assert_array_equal(latent.sample(KEY), latent.mode())
    loss, metrics = vae.loss(batch, Update(KEY))
    odds = np.asarray(vae.discriminator(latent.z), np.float64)
    squared = np.sum((np.asarray(vae.decode(latent.z), np.float64) - TARGET) ** 2) / 3
    np.testing.assert_allclose(metrics["kl"], -odds.mean(), rtol=1e-4)
    np.testing.assert_allclose(loss, squared + 3 * np.mean(np.log1p(np.exp(-odds))), rtol=1e-4)


def test_a_trained_discriminator_estimates_the_kl_of_all_codes() -> None:
    """Between N(0.8, 0.6) and N(0, 1) in both of two dimensions, against the closed form."""
    discriminator = LogOdds(2, 32, 2, nnx.Rngs(0))
    graphdef, params = nnx.split(discriminator)
    adam = optax.adam(3e-3)

    def codes(key: jax.Array, count: int) -> jax.Array:
        return 0.8 + 0.6 * jax.random.normal(key, (count, 2))

    def step(carry: Any, key: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            judge = nnx.merge(graphdef, params)
            of_prior, of_codes = jax.random.split(key)
            real, drawn = jax.random.normal(of_prior, (512, 2)), codes(of_codes, 512)
            return -jnp.mean(jax.nn.log_sigmoid(judge(real)) + jax.nn.log_sigmoid(-judge(drawn)))

        params, state = carry
        with jax.numpy_dtype_promotion("standard"):
            changes, state = adam.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, changes), state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, jax.random.split(KEY, 1000)))((params, adam.init(params)))
    estimate = -float(jnp.mean(nnx.merge(graphdef, params)(codes(jax.random.key(9), 20_000))))
    exact = 2 * (0.5 * (0.8**2 + 0.6**2 - 1) - math.log(0.6))
    assert estimate == pytest.approx(exact, rel=0.15)


class SumsOfPixels(Aae):
    """Codes are two sums of a few pixels, begun far from the prior; pictures do not depend on them."""

    def __init__(self, config: Any, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.code = nnx.Linear(12, 2, rngs=rngs, bias_init=nnx.initializers.constant(3.0))

    def encode(self, frames: jax.Array) -> Point:
        return Point(self.code(frames[:, :4, 0].reshape(len(frames), 12)))

    def decode(self, z: jax.Array) -> jax.Array:
        return jnp.zeros((len(z), 64, 64, 3)) + 0 * z[:, 0, None, None, None]


def test_an_adversary_brings_codes_to_the_prior() -> None:
    vae = SumsOfPixels(config("aae", latent=2, discriminator_width=32, adversary_weight=10.0), nnx.Rngs(0))
    graphdef, variables = nnx.split(vae)
    frames = jnp.asarray(RANDOM.integers(0, 256, (128, 64, 64, 3), np.uint8))

    def codes(variables: Any) -> np.ndarray:
        return np.asarray(nnx.merge(graphdef, variables).encode(to_float(frames)).z)

    @jax.jit
    def update(variables: Any, frames: jax.Array, key: jax.Array) -> Any:
        for objective, rate in zip(vae.objectives, (2e-3, 1e-1), strict=True):
            _, slopes, others = loss_and_grad(graphdef, variables, Batch(frames), Update(key), objective)
            learned, _ = nnx.split_state(variables, objective.learned, ...)
            learned = jax.tree.map(lambda p, g, rate=rate: p - rate * g, learned, slopes)
            variables = nnx.merge_state(learned, others)
        return variables

    assert codes(variables).mean(0).min() > 1.5 and codes(variables).std(0).max() < 0.4
    for step in range(400):
        variables = update(variables, frames, jax.random.key(step))
    mean, std = codes(variables).mean(0), codes(variables).std(0)
    assert np.abs(mean).max() < 0.3 and std.min() > 0.6 and std.max() < 1.2


def test_kl_is_never_weighted_in_the_figures() -> None:
    for variant in ("logcosh", "ms_ssim", "dfc", "vae_gan"):
        vae = model(variant, beta=0.01, free_nats=50.0)
        batch = Batch(jnp.asarray(FRAMES))
        expected = np.mean(kl_to_standard_normal(vae.encode(batch.target)))
        np.testing.assert_allclose(vae.loss(batch, Update(KEY))[1]["kl"], expected, rtol=1e-5)
