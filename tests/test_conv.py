"""The convolutions: the plain ones against a loop in NumPy, the fast ones against the plain ones and their autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.kernels.barrier import apart
from wm_jax.kernels.chunk import in_chunks
from wm_jax.kernels.conv import conv2d, conv2d_transpose

# kernel, height, width, inputs, outputs: even and odd kernels, odd and unequal sides, pixels that no window reaches.
CONV_CASES = [(4, 7, 10, 3, 5), (4, 8, 6, 2, 4), (2, 5, 5, 3, 1), (6, 11, 8, 1, 3), (4, 4, 4, 4, 2), (3, 8, 7, 2, 3)]
TRANSPOSE_CASES = [(5, 1, 1, 6, 4), (5, 3, 4, 2, 3), (6, 4, 2, 3, 2), (2, 3, 3, 1, 3), (4, 2, 5, 4, 1), (3, 3, 2, 2, 2)]


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def conv_case(k, height, width, inputs, outputs):
    return arrays((3, height, width, inputs), (k, k, inputs, outputs), (outputs,), seed=k + height)


def transpose_case(k, height, width, inputs, outputs):
    return arrays((3, height, width, inputs), (k, k, outputs, inputs), (outputs,), seed=k + height)


@pytest.mark.parametrize("fast", [False, True])
def test_conv_equals_its_definition(fast):
    x, w, b = conv_case(4, 7, 10, 3, 5)
    expected = np.zeros((3, 2, 4, 5))
    for i, j in np.ndindex(2, 4):
        window = np.asarray(x, np.float64)[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        expected[:, i, j] = np.einsum("nabc,abco->no", window, w) + np.asarray(b)
    np.testing.assert_allclose(conv2d(x, w, b, fast=fast), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fast", [False, True])
def test_transpose_equals_its_definition(fast):
    x, w, b = transpose_case(5, 3, 4, 2, 3)
    expected = np.zeros((3, 9, 11, 3)) + np.asarray(b)
    for i, j in np.ndindex(3, 4):
        window = np.einsum("nc,aboc->nabo", np.asarray(x, np.float64)[:, i, j], w)
        expected[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5] += window
    np.testing.assert_allclose(conv2d_transpose(x, w, b, fast=fast), expected, rtol=1e-4, atol=1e-5)


def assert_same_value_and_gradients(op, x, w, b, *, relu):
    weights = arrays(jax.eval_shape(op, x, w, b).shape, seed=99)[0]

    def score(fast, *args):
        return jnp.sum(weights * jnp.sin(op(*args, relu=relu, fast=fast)))

    plain, fast = (
        jax.jit(jax.value_and_grad(score, argnums=(1, 2, 3)), static_argnums=0)(mode, x, w, b) for mode in (False, True)
    )
    for expected, got in zip(jax.tree.leaves(plain), jax.tree.leaves(fast), strict=True):
        assert got.shape == expected.shape
        assert np.linalg.norm(got - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(("case", "relu"), list(zip(CONV_CASES, [True, False] * 3, strict=True)))
def test_fast_conv_equals_plain(case, relu):
    assert_same_value_and_gradients(conv2d, *conv_case(*case), relu=relu)


@pytest.mark.parametrize(("case", "relu"), list(zip(TRANSPOSE_CASES, [True, False] * 3, strict=True)))
def test_fast_transpose_equals_plain(case, relu):
    assert_same_value_and_gradients(conv2d_transpose, *transpose_case(*case), relu=relu)


def test_nan_stays_nan():
    x, w, b = conv_case(4, 6, 6, 2, 2)
    for bits in (np.uint32(0x7FC00000), np.uint32(0x7FC0BEEF)):
        poisoned = x.at[0, 0, 0, 0].set(jax.lax.bitcast_convert_type(jnp.uint32(bits), jnp.float32))
        assert np.isnan(conv2d(poisoned, w, b, fast=True)[0, 0, 0]).all()
        assert np.isnan(apart(lambda a: a + 1, poisoned)[0, 0, 0, 0])


def test_barrier_survives_compilation():
    text = jax.jit(lambda x: apart(lambda a: a * 2, x)).lower(jnp.ones(8)).compile().as_text() or ""
    assert "conditional(" in text


@pytest.mark.parametrize("batch", [1, 4, 7, 12])
def test_chunks_change_nothing(batch):
    x, w = arrays((batch, 3), (3, 2), seed=batch)

    def score(x, w, most):
        return jnp.sum(jnp.sin(in_chunks(lambda rows: jnp.tanh(rows @ w), x, most)))

    whole, chunked = (jax.value_and_grad(score, (0, 1))(x, w, most) for most in (100, 4))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, chunked)
