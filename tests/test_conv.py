"""The convolutions: the plain ones against a loop in NumPy, ours in C against the plain ones and their autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.kernels import native
from wm_jax.kernels.conv import Layer, convolutions, fast_matmul, transposed_convolutions
from wm_jax.kernels.narrow import matmul

fast_too = pytest.mark.parametrize("fast", [False, True])


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def conv_layer(k, inputs, outputs, seed=0):
    w, b = arrays((k, k, inputs, outputs), (outputs,), seed=seed)
    return Layer(w / np.sqrt(k * k * inputs), b)


def transposed_layer(k, inputs, outputs, seed=0):
    w, b = arrays((k, k, outputs, inputs), (outputs,), seed=seed)
    return Layer(w / np.sqrt(k * k * inputs / 4), b)


def test_the_kernels_are_there():
    """Without them the tests below would compare the plain formulation with itself."""
    assert native.available()


@fast_too
def test_conv_equals_its_definition(fast):
    (x,), (w, b) = arrays((3, 7, 10, 3)), conv_layer(4, 3, 5)
    expected = np.zeros((3, 2, 4, 5))
    for i, j in np.ndindex(2, 4):
        window = np.asarray(x, np.float64)[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        expected[:, i, j] = np.maximum(np.einsum("nabc,abco->no", window, w) + np.asarray(b), 0)
    np.testing.assert_allclose(convolutions(x, [Layer(w, b)], fast=fast), expected, rtol=1e-4, atol=1e-5)


@fast_too
def test_transpose_equals_its_definition(fast):
    (x,), (w, b) = arrays((3, 3, 4, 3)), transposed_layer(5, 3, 2)
    expected = np.zeros((3, 9, 11, 2)) + np.asarray(b)
    for i, j in np.ndindex(3, 4):
        window = np.einsum("nc,aboc->nabo", np.asarray(x, np.float64)[:, i, j], w)
        expected[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5] += window
    np.testing.assert_allclose(transposed_convolutions(x, [Layer(w, b)], fast=fast), expected, rtol=1e-4, atol=1e-5)


def whole_layer(k, large, small, seed, biases=None):
    w, b = arrays((k, k, large, small), (biases or small,), seed=seed)
    return Layer(jnp.round(w), jnp.round(3 * b))


def assert_equal(op, x, layers):
    """Small whole numbers, whose sums are exact in whatever order: nothing is left to rounding, or to a ReLU near 0."""
    x = jnp.round(x)
    weights = jnp.round(arrays(jax.eval_shape(op, x, layers).shape, seed=99)[0])

    def score(fast, x, layers):
        return jnp.vdot(weights, op(x, layers, fast=fast)), op(x, layers, fast=fast)

    plain, fast = (
        jax.jit(jax.value_and_grad(score, argnums=(1, 2), has_aux=True), static_argnums=0)(mode, x, layers)
        for mode in (False, True)
    )
    assert max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(plain[1])) < 2**24
    for expected, got in zip(
        jax.tree.leaves((plain[0][1], plain[1])), jax.tree.leaves((fast[0][1], fast[1])), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def random_case(seed):
    """Batch, sides, kernels and channels of a stack of two layers, across the kernels' tiles and vectors."""
    rng = np.random.default_rng(seed)
    batch = int(rng.choice([1, 2, 5, 13, 30]))
    kernels = rng.integers(2, 7, 2).tolist()
    channels = rng.choice([1, 2, 3, 4, 7, 16, 20, 32, 48, 70], 3).tolist()
    return batch, kernels, channels, rng


@pytest.mark.parametrize("seed", range(12))
def test_ours_equals_plain_on_random_shapes(seed):
    batch, kernels, channels, rng = random_case(seed)
    # Sides that leave at least one window for the second layer; unequal, odd and even.
    height, width = (int(side) for side in rng.integers(2 * kernels[1] + kernels[0] - 2, 34, 2))
    (x,) = arrays((batch, height, width, channels[0]), seed=seed)
    layers = [whole_layer(kernels[i], channels[i], channels[i + 1], seed + i) for i in range(2)]
    assert_equal(convolutions, x, layers)


@pytest.mark.parametrize("seed", range(12))
def test_ours_transposed_equals_plain_on_random_shapes(seed):
    batch, kernels, channels, rng = random_case(100 + seed)
    height, width = (int(side) for side in rng.integers(1, 9, 2))
    (x,) = arrays((batch, height, width, channels[0]), seed=seed)
    layers = [whole_layer(kernels[i], channels[i + 1], channels[i], seed + i, channels[i + 1]) for i in range(2)]
    assert_equal(transposed_convolutions, x, layers)


def test_neighbours_in_the_batch_do_not_matter_to_the_bit():
    (x,) = arrays((29, 14, 14, 8))
    layers = [conv_layer(4, 8, 20), conv_layer(4, 20, 40)]
    together = convolutions(x, layers, fast=True)
    up = [transposed_layer(5, 40, 16), transposed_layer(6, 16, 3)]
    grown = transposed_convolutions(together, up, fast=True)
    for count in (1, 2, 7, 28):
        alone = convolutions(x[:count], layers, fast=True)
        assert np.array_equal(alone, together[:count])
        assert np.array_equal(transposed_convolutions(alone, up, fast=True), grown[:count])


@fast_too
def test_nan_stays_nan(fast):
    (x,) = arrays((3, 6, 6, 2))
    poisoned = x.at[0, 0, 0, 0].set(jnp.nan)
    assert np.isnan(convolutions(poisoned, [conv_layer(4, 2, 2)], fast=fast)[0, 0, 0]).all()
    assert np.isnan(transposed_convolutions(poisoned, [transposed_layer(4, 2, 2)], fast=fast)[0, :4, :4]).all()


@pytest.mark.parametrize(
    ("channels", "w", "b", "complaint"),
    [
        (4, (4, 4, 4, 2), (2,), None),
        (4, (4, 4, 4, 2), (1,), "b is"),  # what broadcasts in the plain formulation would be read past its end
        (4, (4, 4, 3, 2), (2,), "w is"),
        (4, (4, 2, 4, 2), (2,), "w is"),
        (4, (1, 1, 4, 2), (2,), "side 1"),
        (4, (17, 17, 4, 2), (2,), "side 17"),
        (4, (8, 8, 4, 2), (2,), "7 x 9"),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_what_does_not_fit_is_refused_before_c_reads_it(transposed, channels, w, b, complaint):
    op = transposed_convolutions if transposed else convolutions
    (x,) = arrays((1, 7, 9, channels))
    layer = Layer(jnp.zeros((*w[:2], w[3], w[2]) if transposed else w), jnp.zeros(b))
    if complaint is None or (transposed and complaint == "7 x 9"):
        op(x, [layer], fast=True)
    else:
        with pytest.raises(ValueError, match=complaint):
            op(x, [layer], fast=True)


def test_other_numbers_and_none_at_all_are_refused():
    (x,), layer = arrays((1, 6, 6, 4)), conv_layer(4, 4, 4)
    with pytest.raises(ValueError, match="not empty"):
        convolutions(x[:0], [layer], fast=True)
    with pytest.raises(TypeError, match="bfloat16"):
        convolutions(x, [layer._replace(w=layer.w.astype(jnp.bfloat16))], fast=True)
    with pytest.raises(TypeError, match="float16"):
        convolutions(x, [layer], fast=True, dtype=jnp.float16)


# ---- In bfloat16 ----

narrow_only = pytest.mark.skipif(not native.narrow(), reason="this processor does not multiply bfloat16")


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("transposed", [False, True])
def test_in_bfloat16_only_operands_are_rounded(transposed, side):
    """Values and gradients are those in float32 of rounded operands: nothing that was added up is rounded."""
    (x,), layer = arrays((3, side, 8, 16)), transposed_layer(4, 16, 5) if transposed else conv_layer(4, 16, 5)
    op = transposed_convolutions if transposed else convolutions
    (slope,) = arrays(op(x, [layer]).shape, seed=9)

    def score(x, layer, dtype):
        y = op(x, [layer], dtype=dtype)
        return jnp.vdot(rounded(slope), y), y

    rounded_too = rounded(x), layer._replace(w=rounded(layer.w))
    gradient = jax.value_and_grad(score, argnums=(0, 1), has_aux=True)
    exact, ours = gradient(*rounded_too, jnp.float32), gradient(x, layer, jnp.bfloat16)
    for expected, got in zip(jax.tree.leaves(exact), jax.tree.leaves(ours), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
        assert not np.array_equal(got, rounded(got))


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def narrow_case(seed):
    """As `random_case`, with even channels between the images, and what pairs of numbers need of the first."""
    rng = np.random.default_rng(1000 + seed)
    batch = int(rng.choice([1, 2, 7, 16, 33, 70]))
    kernels = (2 * rng.integers(1, 4, 2)).tolist() if seed % 2 else rng.integers(2, 7, 2).tolist()
    channels = [int(rng.choice([3, 4, 16, 34])) if seed % 2 else int(rng.choice([2, 6, 32])), 0, 0]
    channels[1:] = rng.choice([2, 4, 16, 20, 32, 48, 70], 2).tolist()
    return batch, kernels, channels, rng


def assert_equal_narrow(op, x, layers):
    """Of whole numbers every sum is exact in float32, so rounding to bfloat16 between the layers is the same, too. Of
    biases' gradients ours add up what has been rounded.
    """
    x = jnp.round(x)
    weights = jnp.round(arrays(jax.eval_shape(op, x, layers).shape, seed=99)[0])

    def score(fast, x, layers):
        y = op(x, layers, fast=fast, dtype=jnp.bfloat16)
        return jnp.vdot(weights, y), y

    gradient = jax.jit(jax.value_and_grad(score, argnums=(1, 2), has_aux=True), static_argnums=0)
    (_, expected), (dx, dlayers) = gradient(False, x, layers)
    (_, got), (our_dx, our_dlayers) = gradient(True, x, layers)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(our_dx, dx)
    for ours, theirs in zip(our_dlayers, dlayers, strict=True):
        np.testing.assert_array_equal(ours.w, theirs.w)
        np.testing.assert_allclose(ours.b, theirs.b, rtol=2**-7, atol=2**-7 * np.abs(theirs.b).max())


@narrow_only
@pytest.mark.parametrize("seed", range(8))
def test_ours_in_bfloat16_equals_plain(seed):
    batch, kernels, channels, rng = narrow_case(seed)
    height, width = (2 * int(side) for side in rng.integers(kernels[1] + kernels[0] // 2, 17, 2))
    (x,) = arrays((batch, height, width, channels[0]), seed=seed)
    layers = [whole_layer(kernels[i], channels[i], channels[i + 1], seed + i) for i in range(2)]
    assert_equal_narrow(convolutions, x, layers)


@narrow_only
@pytest.mark.parametrize("seed", range(8))
def test_ours_transposed_in_bfloat16_equals_plain(seed):
    batch, kernels, channels, rng = narrow_case(100 + seed)
    channels, kernels = channels[::-1], [2 * (k // 2 + 1) for k in kernels]
    height, width = (int(side) for side in rng.integers(1, 9, 2))
    (x,) = arrays((batch, height, width, channels[0]), seed=seed)
    layers = [whole_layer(kernels[i], channels[i + 1], channels[i], seed + i, channels[i + 1]) for i in range(2)]
    assert_equal_narrow(transposed_convolutions, x, layers)


@narrow_only
def test_neighbours_do_not_matter_in_bfloat16():
    (x,) = arrays((40, 14, 14, 8))
    layers, up = (
        [conv_layer(4, 8, 20), conv_layer(4, 20, 40)],
        [transposed_layer(5, 40, 16), transposed_layer(6, 16, 3)],
    )

    def both(x):
        y = convolutions(x, layers, fast=True, dtype=jnp.bfloat16)
        return y, transposed_convolutions(y, up, fast=True, dtype=jnp.bfloat16)

    together = both(x)
    for count in (1, 2, 7, 28):
        for alone, among in zip(both(x[:count]), together, strict=True):
            np.testing.assert_array_equal(alone, among[:count])


@narrow_only
def test_pairs_that_are_none_are_refused():
    (x,) = arrays((2, 7, 7, 3))
    with pytest.raises(ValueError, match="even"):
        convolutions(x, [conv_layer(4, 3, 4)], fast=True, dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match="even"):
        convolutions(arrays((2, 8, 8, 4))[0], [conv_layer(4, 4, 5)], fast=True, dtype=jnp.bfloat16)


@narrow_only
def test_a_matrix_product_is_a_convolution_of_single_pixels():
    x, w, slope = arrays((37, 70), (70, 34), (37, 34))
    ours, gradients = jax.vjp(fast_matmul, x, w)
    plain, expected = jax.vjp(lambda x, w: matmul(x, w, jnp.bfloat16), x, w)
    for got, reference in zip([ours, *gradients(slope)], [plain, *expected(slope)], strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-5, atol=1e-5)
