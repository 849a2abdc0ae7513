"""The measures of auto-encoders: against SciPy, closed forms, cases by hand, and sets whose order is known."""

from functools import cache

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.special
import scipy.stats

from wm_jax.evaluation.vae_measures import agreement, disentanglement, latents, pictures, probes, samples
from wm_jax.utils.rare_pixels import Palette


def noise(count: int, seed: int = 0, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def film(count: int = 60) -> np.ndarray:
    """A square that goes from left to right over black."""
    frames = np.zeros((count, 64, 64, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[30:34, i % 60 : i % 60 + 4] = (255, 102, 0)
    return frames


# --- pictures


def test_errors_are_summed_per_frame_whatever_the_reconstruction_is_stored_as() -> None:
    frames, decoded = noise(70), noise(70, 1)
    expected = ((frames / 255.0 - decoded / 255.0) ** 2).reshape(70, -1).sum(1)
    np.testing.assert_allclose(pictures.squared_error(frames, decoded), expected, rtol=1e-5)
    as_floats = (decoded / 255.0).astype(np.float32)
    np.testing.assert_allclose(pictures.squared_error(frames, as_floats), expected, rtol=1e-5)


def test_psnr_of_a_fifth_is_14_decibels_and_of_no_error_that_of_rounding() -> None:
    black = np.zeros((2, 64, 64, 3), np.uint8)
    np.testing.assert_allclose(pictures.psnr(black, np.full_like(black, 51)), 13.9794, atol=1e-3)
    np.testing.assert_allclose(pictures.psnr(black, black), 58.92, atol=1e-2)


def filtered_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al.'s equations 9 to 13 with SciPy's Gaussian, cut off at 5 pixels, as in common libraries."""

    def blur(image: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    mu_x, mu_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mu_x**2, blur(y * y) - mu_y**2, blur(x * y) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4)
    return float((luminance * (2 * cov + 9e-4) / (var_x + var_y + 9e-4)).mean())


def test_ssim_is_that_of_common_libraries() -> None:
    frames = noise(3)
    decoded = (0.6 * frames + 0.4 * noise(3, 1)).astype(np.uint8)
    expected = [
        np.mean([filtered_ssim(x[..., c] / 255.0, y[..., c] / 255.0) for c in range(3)])
        for x, y in zip(frames, decoded, strict=True)
    ]
    np.testing.assert_allclose(pictures.ssim(frames, decoded), expected, rtol=1e-5)
    np.testing.assert_allclose(pictures.ssim(frames, frames), 1.0)


def test_ssim_of_even_frames_compares_their_brightness() -> None:
    a, b = np.full((1, 64, 64, 3), 51, np.uint8), np.full((1, 64, 64, 3), 102, np.uint8)
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    np.testing.assert_allclose(pictures.ssim(a, b), expected, rtol=1e-5)


def test_ssim_of_frames_smaller_than_its_window_is_none() -> None:
    assert np.isnan(pictures.ssim(noise(2, side=8), noise(2, side=8))).all()


def test_the_error_of_what_moves_is_that_of_its_pixels_alone() -> None:
    frames, places = film(), np.array([10, 30, 45])
    lost = pictures.moving_error(frames, np.zeros_like(frames), places)
    assert lost.pixels.tolist() == [16, 16, 16]
    assert lost.mean == pytest.approx(1 + 0.4**2)  # (255, 102, 0) of 255, summed over channels
    elsewhere = frames.copy()
    elsewhere[:, :20] = 200
    assert pictures.moving_error(frames, elsewhere, places).mean == 0.0


def test_small_differences_from_the_background_are_no_motion() -> None:
    frames = film() // 10  # 25 of 255 is no more than a tenth
    still = pictures.moving_error(frames, np.zeros_like(frames), np.array([30]))
    assert still.pixels.tolist() == [0] and np.isnan(still.mean)
    assert pictures.moving_error(film(), film(), np.zeros(0, np.int64)).pixels.shape == (0,)


def test_the_error_of_rare_colours_is_that_of_their_pixels_alone() -> None:
    frames = np.zeros((70, 64, 64, 3), np.uint8)
    frames[:, 32:] = 128
    frames[3, 5, 7] = frames[69, 9, 9] = (255, 0, 0)
    palette = Palette.of(frames)
    lost = frames.copy()
    lost[69, 9, 9] = 0
    found = pictures.rare_error(frames, lost, palette)
    assert found.pixels.sum() == 2 and found.pixels[[3, 69]].tolist() == [1, 1]
    assert found.squared[69] == pytest.approx(1.0) and found.mean == pytest.approx(0.5)
    assert pictures.rare_error(frames, np.where(frames == 128, 0, frames).astype(np.uint8), palette).mean == 0.0


def test_every_pixel_counts_alike_however_frames_are_put_together() -> None:
    few = pictures.PixelError(np.array([1.0]), np.array([3.0]))
    many = pictures.PixelError(np.array([9.0]), np.array([1.0]))
    assert pictures.PixelError.concatenate([few, many]).mean == pytest.approx(0.4)


# --- latents


def test_kl_is_the_integral_it_stands_for() -> None:
    mean, log_var = np.array([[0.0, 1.5], [0.5, -1.0]]), np.array([[0.0, -2.0], [1.0, -0.5]])
    z = np.linspace(-20, 20, 400_001)[:, None, None]
    log_q, log_p = scipy.stats.norm.logpdf(z, mean[None], np.exp(log_var / 2)[None]), scipy.stats.norm.logpdf(z)
    integral = (np.exp(log_q) * (log_q - log_p)).sum(0) * 1e-4
    np.testing.assert_allclose(latents.kl_per_dimension(mean, log_var), integral.mean(0), rtol=1e-6)


def test_a_kl_is_spread_over_as_many_dimensions_as_share_it() -> None:
    assert latents.effective_dimensions(np.full(8, 0.3)) == pytest.approx(8)
    assert latents.effective_dimensions(np.array([0.0, 2.0, 0.0])) == pytest.approx(1)
    assert latents.effective_dimensions(np.array([2.0, 1.0, 1.0])) == pytest.approx(2**1.5)
    assert np.isnan(latents.effective_dimensions(np.zeros(3)))


def test_units_are_active_whose_means_vary() -> None:
    swing = np.array([1.0, -1.0] * 10)
    mean = np.stack([np.full(20, 5.0), np.sqrt(0.009) * swing, np.sqrt(0.011) * swing, 3 * swing], axis=1)
    assert latents.active_units(mean) == 2.0
    assert np.isnan(latents.active_units(mean[:1]))


def test_mutual_information_of_a_gaussian_channel_is_its_capacity() -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(0, 1.5, (2000, 2))
    log_var = np.full((2000, 2), np.log(0.5))
    found = latents.mutual_information(mean, log_var, rng)
    assert found == pytest.approx(2 * 0.5 * np.log(1 + 1.5**2 / 0.5), abs=0.06)


def test_mutual_information_is_that_of_the_densities() -> None:
    rng = np.random.default_rng(1)
    mean, log_var = rng.normal(0, 1, (300, 3)), rng.normal(-1, 1, (300, 3))
    z = mean + np.exp(log_var / 2) * np.random.default_rng(7).standard_normal((300, 3))
    density = scipy.stats.norm.logpdf(z[:, None], mean[None], np.exp(log_var / 2)[None]).sum(2)
    expected = np.mean(np.diag(density) - scipy.special.logsumexp(density, axis=1) + np.log(300))
    assert latents.mutual_information(mean, log_var, np.random.default_rng(7)) == pytest.approx(expected, rel=1e-9)


def test_mutual_information_lies_between_nothing_and_the_number_of_frames() -> None:
    rng = np.random.default_rng(2)
    mean = rng.normal(0, 100, (500, 8))
    for log_var in (-5.0, -40.0):  # so narrow that none overlap, and no more can be known
        found = latents.mutual_information(mean, np.full((500, 8), log_var), rng)
        assert found == pytest.approx(np.log(500), rel=1e-6)
    assert latents.mutual_information(np.zeros((500, 8)), np.zeros((500, 8)), rng) == pytest.approx(0, abs=1e-9)


def test_total_correlation_of_a_gaussian_pair() -> None:
    both = np.random.default_rng(3).normal(0, 1, (100, 2))
    a, b = scipy.linalg.orth(both - both.mean(0)).T  # still centred, and at right angles
    pair = np.stack([a, 0.8 * a + 0.6 * b], axis=1)
    assert latents.total_correlation(pair) == pytest.approx(-0.5 * np.log(1 - 0.8**2))
    still = np.concatenate([pair, np.ones((100, 1))], axis=1)
    assert latents.total_correlation(still) == pytest.approx(-0.5 * np.log(1 - 0.8**2))
    assert latents.total_correlation(np.stack([a, b], axis=1)) == pytest.approx(0, abs=1e-9)
    assert latents.total_correlation(np.stack([a, -a], axis=1)) > 15  # as far as rounding goes


def test_codes_in_use() -> None:
    indices = np.array([[0, 5], [0, 5], [1, 5], [2, 5]])
    own = latents.usage(indices, 8, shared=False)
    assert own.used == 2.0 and own.perplexity == pytest.approx((2**1.5 + 1) / 2)
    shared = latents.usage(indices, 8, shared=True)
    assert shared.used == 4.0
    assert shared.perplexity == pytest.approx(np.exp(scipy.stats.entropy([2, 1, 1, 4])))
    assert latents.usage(np.arange(8)[:, None], 8, shared=True) == pytest.approx((8.0, 8.0))


# --- samples


def scenes(count: int, seed: int) -> np.ndarray:
    """Dark sky and coloured ground whose border varies, with a bright square anywhere."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, 64, 64, 3), (20, 20, 60), np.uint8)
    for frame in frames:
        frame[rng.integers(30, 50) :] = (40, 120, 40)
        row, column = rng.integers(0, 56, 2)
        frame[row : row + 8, column : column + 8] = (220, 200, 40)
    return frames


def test_the_frechet_distance_is_that_of_its_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (50, 6)), rng.normal(0.5, 2, (80, 6)) @ rng.normal(0, 1, (6, 6))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * np.real(root))
    assert samples.frechet(a, b) == pytest.approx(float(expected), rel=1e-6)
    line, other = a[:, :1], b[:, :1]
    by_hand = (line.mean() - other.mean()) ** 2 + (line.std(ddof=1) - other.std(ddof=1)) ** 2
    assert samples.frechet(line, other) == pytest.approx(float(by_hand))
    assert samples.frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_the_discrepancy_is_that_of_all_pairs_and_has_no_bias() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (7, 3)), rng.normal(1, 1, (5, 3))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((np.dot(x, y) / 3 + 1) ** 3)

    aa = np.mean([kernel(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
    bb = np.mean([kernel(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
    ab = np.mean([kernel(x, y) for x in a for y in b])
    assert samples.cubic_mmd(a, b) == pytest.approx(aa + bb - 2 * ab)
    same = [samples.cubic_mmd(*rng.normal(0, 1, (2, 20, 3))) for _ in range(2000)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(2000)


def test_even_frames_are_as_far_apart_as_their_colours() -> None:
    """A constant c projects on a random direction of length 1 as c times its sum, which is near N(0, 1)."""
    black, grey = np.zeros((4, 64, 64, 3), np.uint8), np.full((6, 64, 64, 3), 51, np.uint8)
    assert samples.sliced_wasserstein(black, grey) == pytest.approx(0.2 * np.sqrt(2 / np.pi), rel=0.1)
    assert samples.sliced_wasserstein(black, black) == 0.0


def test_patches_are_those_of_the_smaller_frames() -> None:
    frames = noise(70)
    corners = np.stack([np.full((70, 1), 2), np.full((70, 1), 5)])
    found = samples._patches(frames, 2, corners)[66].reshape(7, 7, 3)
    expected = frames[66, 4 + 2 * 3 : 4 + 2 * 3 + 2, 10:12].mean((0, 1)) / 255  # the fourth row, first column
    np.testing.assert_allclose(found[3, 0], expected, rtol=1e-5)


def test_features_are_of_each_frame_alone_and_always_the_same() -> None:
    frames = scenes(70, 0)
    found = samples.features(frames)
    assert found.shape == (70, 128) and np.isfinite(found).all() and (found.std(0) > 0).mean() > 0.9
    np.testing.assert_array_equal(samples.features(frames[64:]), found[64:])
    assert samples._weights()[0].sum() == pytest.approx(-0.6252427, abs=1e-4), "other weights: old figures are void"


@cache
def halves() -> tuple[np.ndarray, np.ndarray, samples.Distances]:
    real, others = scenes(300, 0), scenes(300, 1)
    return real, others, samples.distances(real, others)


@pytest.mark.parametrize("change", ["noised", "paler", "blurred", "one for all", "without the square"])
def test_two_halves_are_near_and_everything_else_is_farther(change: str) -> None:
    real, others, near = halves()
    rng = np.random.default_rng(2)
    match change:
        case "noised":
            far = np.clip(others + rng.normal(0, 25, others.shape), 0, 255)
        case "paler":
            far = others * 0.7 + 60
        case "blurred":
            far = scipy.ndimage.gaussian_filter(others.astype(float), (0, 2, 2, 0))
        case "one for all":
            far = np.repeat(others[:1], 300, axis=0)
        case _:
            far = others.copy()
            far[(others == (220, 200, 40)).all(-1)] = (20, 20, 60)
    away = samples.distances(real, far.astype(np.uint8))
    for name, less, more in zip(near._fields, near, away, strict=True):
        assert abs(less) < 0.4 * more, (name, less, more)


# --- probes


def state(count: int = 2000, factors: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Independent numbers in [-1, 1], ten episodes of them, of which the last are held out."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, factors)), probes.held_out(np.arange(count) * 10 // count), rng


def test_whole_episodes_are_held_out() -> None:
    episode = np.array([3, 3, 1, 1, 1, 2, 7, 7])
    assert probes.held_out(episode).tolist() == [False] * 6 + [True] * 2
    assert not probes.held_out(np.zeros(5, int)).any()


@pytest.mark.parametrize("penalty", range(0, len(probes.PENALTIES), 3))
def test_ridge_regression_solves_its_equations(penalty: int) -> None:
    factors, _, rng = state(50)
    z = rng.normal(0, 1, (50, 6))
    expected = np.linalg.solve(z.T @ z + 50 * probes.PENALTIES[penalty] * np.eye(6), z.T @ factors)
    np.testing.assert_allclose(probes._ridges(z, factors)[penalty], expected, rtol=1e-8)


def test_what_is_learned_from_is_the_scale_of_what_is_held_out() -> None:
    z = np.array([[0.0], [2.0], [5.0]])
    data = probes.standardised(z, 10 * z, np.array([False, False, True]))
    assert data is not None
    assert data.z.ravel().tolist() == data.factors.ravel().tolist() == [-1.0, 1.0]
    assert data.test_z.item() == data.test_factors.item() == 4.0


def test_a_linear_probe_reads_what_lies_in_z_linearly() -> None:
    factors, held_out, rng = state()
    turned = factors @ np.linalg.qr(rng.normal(0, 1, (4, 4)))[0]
    z = np.concatenate([5 + 100 * turned, np.full((2000, 1), 3.0)], axis=1).astype(np.float32)
    np.testing.assert_allclose(probes.linear_probe(z, factors, held_out), 1.0, atol=1e-4)
    noisy = factors[:, :1] + rng.normal(0, factors.std(), (2000, 1))  # as much noise as there is to be read
    assert probes.linear_probe(noisy, factors[:, :1], held_out)[0] == pytest.approx(0.5, abs=0.06)


def test_probes_read_nothing_where_nothing_is_and_do_not_judge_by_what_they_learned_from() -> None:
    factors, held_out, rng = state(400)
    for probe in (probes.linear_probe, probes.mlp_probe):
        found = probe(rng.normal(0, 1, (400, 64)), factors, held_out)
        assert (found < 0.03).all() and (found > -0.15).all(), found


def test_a_small_network_reads_what_a_linear_probe_does_not() -> None:
    factors, held_out, _ = state()
    z, read = factors, np.stack([factors[:, 0] * factors[:, 1], np.abs(factors[:, 2]), factors[:, 3]], axis=1)
    linear, network = probes.linear_probe(z, read, held_out), probes.mlp_probe(z, read, held_out)
    assert (linear[:2] < 0.05).all() and (network[:2] > 0.85).all()
    assert linear[2] > 0.999 and network[2] > 0.999
    np.testing.assert_array_equal(network, probes.mlp_probe(z, read, held_out))


def test_a_share_of_variance() -> None:
    real = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    found = probes.r_squared(real, np.array([[0.0, 1.0], [2.0, 1.0], [2.0, 1.0]]))
    assert found[0] == pytest.approx(0.5) and np.isnan(found[1])


def test_where_nothing_can_be_read_there_is_no_figure() -> None:
    factors, held_out, rng = state(40)
    z = rng.normal(0, 1, (40, 3))
    constant = np.concatenate([factors[:, :1], np.full((40, 1), 0.1)], axis=1)
    for probe in (probes.linear_probe, probes.mlp_probe):
        assert np.isfinite(probe(z, constant, held_out)).tolist() == [True, False]
        assert np.isnan(probe(z, factors, np.zeros(40, bool))).all()
        assert np.isnan(probe(z, factors, np.ones(40, bool))).all()
        assert np.isnan(probe(np.full((40, 3), np.nan), factors, held_out)).all()
        assert np.isfinite(probe(z[:2], factors[:2], np.array([False, True]))).sum() == 0
    for score in (disentanglement.mig, disentanglement.sap):
        assert np.isnan(score(z, constant[:, 1:])) and np.isnan(score(z * np.nan, factors))
        assert np.isnan(score(z[:0], factors[:0]))
        assert score(z, constant) == pytest.approx(score(z, constant[:, :1])), (
            "a factor that does not vary counts in none"
        )
    assert np.isnan(disentanglement.dci(z, constant[:, 1:], held_out)).all()
    assert np.isnan(disentanglement.dci(z, factors, np.zeros(40, bool))).all()
    assert np.isnan(disentanglement.dci(z, factors, np.ones(40, bool))).all()
    assert np.isnan(disentanglement.dci(z, factors[:, :1], held_out)).tolist() == [True, False, False]
    assert np.isnan(disentanglement.dci(z[:, :1], factors, held_out)).tolist() == [False, True, False]


# --- disentanglement


def test_factors_in_dimensions_of_their_own_are_disentangled() -> None:
    factors, held_out, rng = state()
    factors[:, 0] = rng.integers(0, 3, 2000)
    z = np.concatenate([3 - 2 * factors[:, ::-1], rng.normal(0, 1, (2000, 2))], axis=1)
    assert disentanglement.mig(z, factors) == pytest.approx(1, abs=0.05)
    assert disentanglement.sap(z, factors) == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(disentanglement.dci(z, factors, held_out), 1.0, atol=0.01)


def test_dimensions_that_say_nothing_are_not() -> None:
    factors, held_out, rng = state()
    z = rng.normal(0, 1, (2000, 8))
    assert 0 <= disentanglement.mig(z, factors) < 0.02 and 0 <= disentanglement.sap(z, factors) < 0.01
    found = disentanglement.dci(z, factors, held_out)
    assert found.disentanglement < 0.3 and found.completeness < 0.3 and abs(found.informativeness) < 0.03


def test_dimensions_that_share_their_factors_are_known_by_nothing_but_what_they_say() -> None:
    factors, held_out, _ = state(factors=2)
    z = factors @ np.array([[1.0, 1.0], [1.0, -1.0]])
    found = disentanglement.dci(z, factors, held_out)
    assert disentanglement.mig(z, factors) < 0.02 and disentanglement.sap(z, factors) < 0.05
    assert found.disentanglement < 0.01 and found.completeness < 0.01 and found.informativeness > 0.999


def test_the_gaps_of_a_second_dimension_that_is_right_three_times_of_four() -> None:
    factor = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    z = np.stack([factor, [0, 0, 0, 1, 1, 1, 1, 0]], axis=1)
    unknown = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))  # bits, of the one bit that the factor has
    assert disentanglement.mig(z, factor[:, None]) == pytest.approx(unknown)
    assert disentanglement.sap(z, factor[:, None]) == pytest.approx(1 - 0.5**2)  # their correlation is 1/2
    assert disentanglement.mig(z[:, :1], factor[:, None]) == pytest.approx(1.0)


def test_information_of_numbers_is_that_of_twenty_bins() -> None:
    rng = np.random.default_rng(4)
    factor = rng.normal(0, 1, 500)
    z = np.stack([factor + rng.normal(0, 0.3, 500), factor + rng.normal(0, 1, 500)], axis=1)

    def information(a: np.ndarray, b: np.ndarray) -> float:
        table = np.histogram2d(a, b, bins=20)[0] / len(a)
        return float(scipy.special.rel_entr(table, table.sum(1)[:, None] * table.sum(0)[None]).sum())

    own = scipy.stats.entropy(np.histogram(factor, 20)[0])
    expected = (information(z[:, 0], factor) - information(z[:, 1], factor)) / own
    assert disentanglement.mig(z, factor[:, None]) == pytest.approx(float(expected))
    first, second = (np.corrcoef(each, factor)[0, 1] ** 2 for each in z.T)
    assert disentanglement.sap(z, factor[:, None]) == pytest.approx(first - second)


def test_disentanglement_and_completeness_by_hand() -> None:
    """Of three dimensions, one serves one factor, one serves both alike with the same weight in all, and one none."""
    found = disentanglement._dci(np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    spread = -((2 / 3) * np.log(2 / 3) + (1 / 3) * np.log(1 / 3)) / np.log(3)
    assert found == pytest.approx((0.5, (1 - spread + 1) / 2))


def test_importances_are_the_weights_of_the_regression() -> None:
    z, held_out, _ = state(factors=2)
    z -= z.mean(0)
    factors = np.stack([2 * z[:, 0] + z[:, 1], z[:, 1]], axis=1)
    found = disentanglement.dci(z, factors, held_out)
    weights = np.array([[2 / 5**0.5, 0.0], [1 / 5**0.5, 1.0]])
    rows = [1 - scipy.stats.entropy(row, base=2) for row in weights]
    columns = [1 - scipy.stats.entropy(column, base=2) for column in weights.T]
    assert found.disentanglement == pytest.approx(np.average(rows, weights=weights.sum(1)), abs=0.01)
    assert found.completeness == pytest.approx(np.mean(columns), abs=0.01)


# --- agreement


def test_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, 30)  # with ties
    b = a + rng.normal(0, 3, 30)
    expected = scipy.stats.spearmanr(a, b)[0]
    assert agreement.agreement(a, b, rng).correlation == pytest.approx(expected)
    assert agreement.agreement(np.exp(b), -b, rng) == pytest.approx((-1.0, -1.0, -1.0))


def test_the_interval_of_many_models_is_that_of_theory() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0, 1, 300)
    found = agreement.agreement(a, a + rng.normal(0, 4, 300), np.random.default_rng(2))
    half = 1.96 * np.sqrt((1 + found.correlation**2 / 2) / (300 - 3))  # Bonett & Wright 2000
    ends = np.tanh(np.arctanh(found.correlation) + np.array([-half, half]))
    np.testing.assert_allclose([found.low, found.high], ends, atol=0.01)


def test_a_model_without_a_figure_is_left_out() -> None:
    a, b = np.array([1.0, 2.0, np.nan, 3.0, 4.0]), np.array([1.0, 2.0, 0.0, 4.0, 3.0])
    found = agreement.agreement(a, b, np.random.default_rng(0))
    assert found.correlation == pytest.approx(0.8) and found.low <= 0.8 <= found.high
    for few in (agreement.agreement(each, b, np.random.default_rng(0)) for each in (np.ones(5), a * np.nan)):
        assert np.isnan(few).all()
    assert np.isnan(agreement.agreement(a[:3], b[:3], np.random.default_rng(0))).all()


# --- figures that there are none of


def test_of_one_frame_or_none_there_is_no_distance_and_no_information() -> None:
    one, rng = noise(1), np.random.default_rng(0)
    assert np.isnan(samples.distances(one, noise(5))).all() and np.isnan(samples.distances(one[:0], noise(5))).all()
    assert np.isnan(samples.sliced_wasserstein(noise(5, side=4), noise(5, side=4)))
    assert np.isnan(samples.frechet(np.full((5, 3), np.nan), np.zeros((5, 3))))
    flat = np.zeros((1, 3))
    assert np.isnan(latents.mutual_information(flat, flat, rng)) and np.isnan(latents.total_correlation(flat))
    assert np.isnan(latents.mutual_information(np.full((9, 3), np.nan), np.zeros((9, 3)), rng))
    assert np.isnan(latents.kl_per_dimension(flat[:0], flat[:0])).all()
    assert np.isnan(latents.usage(np.zeros((0, 4), int), 8, shared=True)).all()
    for measure in (pictures.squared_error, pictures.psnr, pictures.ssim):
        assert measure(one[:0], one[:0]).shape == (0,) and measure(one, one).shape == (1,)
