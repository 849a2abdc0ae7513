"""The LSTM: against a loop in NumPy, its hand-derived gradient against automatic differentiation."""

import inspect
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.kernels import native
from wm_jax.kernels.lstm import Formulation, LstmParams, _groups, lstm, lstm_step

ours = pytest.mark.parametrize("formulation", ["derived", "native"])


def test_the_kernels_are_there():
    assert native.available()


def problem(seed, steps, batch, inputs, hidden, first_probability):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    scale = np.sqrt(inputs + hidden)  # larger weights would make it chaotic: every rounding would count
    params = LstmParams(normal(inputs, 4 * hidden) / scale, normal(hidden, 4 * hidden) / scale, normal(4 * hidden))
    carry = (normal(batch, hidden), normal(batch, hidden))
    is_first = jnp.asarray(rng.random((steps, batch)) < first_probability)
    return params, carry, normal(steps, batch, inputs), is_first


def by_hand(params, carry, x, is_first):
    """The textbook's equations in float64, one sample and one step at a time."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    wx, wh, b, h0, c0, x = (np.asarray(a, np.float64) for a in (*params, *carry, x))
    out = np.zeros((*x.shape[:2], h0.shape[1]))
    final = [np.array(h0), np.array(c0)]
    for n in range(x.shape[1]):
        h, c = h0[n], c0[n]
        for t in range(x.shape[0]):
            if is_first[t, n]:
                h, c = np.zeros_like(h), np.zeros_like(c)
            i, f, g, o = np.split(x[t, n] @ wx + h @ wh + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out[t, n] = h
        final[0][n], final[1][n] = h, c
    return tuple(final), out


@pytest.mark.parametrize("formulation", get_args(Formulation))
def test_equals_the_textbook(formulation):
    case = problem(0, 7, 3, 4, 5, 0.3)
    carry, h = lstm(*case, formulation)
    expected_carry, expected_h = by_hand(*case)
    np.testing.assert_allclose(h, expected_h, rtol=1e-5, atol=1e-6)
    for got, expected in zip(carry, expected_carry, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@ours
@pytest.mark.parametrize(
    ("seed", "steps", "batch", "inputs", "hidden", "is_first"),
    [
        (1, 1, 1, 3, 6, 0.0),
        (2, 9, 4, 1, 5, 0.0),
        (3, 12, 5, 3, 16, 0.3),
        (4, 6, 2, 7, 33, 1.0),
        (5, 20, 31, 35, 48, 0.1),  # a batch of several tiles for each of the threads
        (6, 40, 3, 20, 256, 0.05),
    ],
)
def test_hand_derived_gradient_equals_autodiff(formulation, seed, steps, batch, inputs, hidden, is_first):
    params, carry, x, flags = problem(seed, steps, batch, inputs, hidden, is_first)
    weights = problem(seed + 100, steps, batch, hidden, hidden, 0.0)

    def score(params, carry, x, formulation):
        (h, c), outputs = lstm(params, carry, x, flags, formulation)
        return jnp.sum(outputs * weights[2]) + jnp.sum(h * weights[1][0]) + jnp.sum(jnp.sin(c) * weights[1][1])

    slow, fast = (
        jax.jit(jax.value_and_grad(score, argnums=(0, 1, 2)), static_argnums=3)(params, carry, x, mode)
        for mode in ("plain", formulation)
    )
    for expected, got in zip(jax.tree.leaves(slow), jax.tree.leaves(fast), strict=True):
        assert np.linalg.norm(got - expected) <= 1e-4 * np.linalg.norm(expected)


@ours
def test_no_gradient_crosses_an_episode_start(formulation):
    params, carry, x, _ = problem(5, 6, 2, 3, 4, 0.0)
    is_first = jnp.zeros((6, 2), bool).at[3, 0].set(True)
    d_carry, dx = jax.grad(lambda carry, x: lstm(params, carry, x, is_first, formulation)[1][-1].sum(), (0, 1))(
        carry, x
    )
    assert not np.any(dx[:3, 0])
    assert not np.any(d_carry[0][0])
    assert np.all(dx[3:, 0] != 0)
    assert np.all(dx[:, 1] != 0)
    assert np.all(d_carry[1][1] != 0)


@ours
def test_sequence_equals_repeated_steps(formulation):
    params, carry, x, _ = problem(6, 5, 3, 4, 4, 0.0)
    _, h = lstm(params, carry, x, jnp.zeros((5, 3), bool), formulation)
    for t in range(5):
        carry = lstm_step(params, carry, x[t])
        np.testing.assert_allclose(h[t], carry[0], rtol=1e-5, atol=1e-6)


def test_native_elementary_functions_keep_their_precision_everywhere():
    """Gates far out and near zero: sigmoid and tanh through one step with weights that pass x on."""
    x = jnp.concatenate([jnp.linspace(-120, 120, 4001), jnp.logspace(-12, 0, 200), -jnp.logspace(-12, 0, 200)])[:, None]
    # i and o open, f shut: h = tanh(tanh(x)) up to sigmoid(40), and c = tanh(x).
    params = LstmParams(jnp.array([[0.0, 0, 1, 0]]), jnp.zeros((1, 4)), jnp.array([40.0, -80, 0, 40]))
    carry = (jnp.zeros(x.shape), jnp.zeros(x.shape))
    (h, c), _ = lstm(params, carry, x[None], jnp.zeros((1, len(x)), bool), "native")
    exact = np.tanh(np.asarray(x, np.float64))
    np.testing.assert_allclose(c, exact, rtol=5e-7)
    np.testing.assert_allclose(h, np.tanh(exact), rtol=1e-6)
    through = LstmParams(jnp.array([[1.0, 0, 0, 0]]), jnp.zeros((1, 4)), jnp.array([0.0, -80, 40, 40]))
    (_, c), _ = lstm(through, carry, x[None], jnp.zeros((1, len(x)), bool), "native")
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    np.testing.assert_allclose(c, expected, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("wrong", ["b", "gates", "is_first", "flags", "carry", "steps"])
def test_what_does_not_fit_is_refused_before_c_reads_it(wrong):
    """All but the last would broadcast, or be read as something else, without a word."""
    params, carry, x, is_first = problem(7, 3, 5, 2, 8, 0.0)
    if wrong == "b":
        params = params._replace(b=params.b[:1])
    elif wrong == "gates":
        params = LstmParams(params.wx[:, :4], params.wh[:, :4], params.b[:4])
    elif wrong == "is_first":
        is_first = is_first[:, :1]
    elif wrong == "flags":
        is_first = is_first.astype(jnp.float32)
    elif wrong == "carry":
        x, is_first = x[:, :1], is_first[:, :1]
    else:
        x, is_first = x[:0], is_first[:0]
    with pytest.raises((ValueError, TypeError), match="lstm: "):
        inspect.unwrap(lstm)(params, carry, x, is_first, "native")  # as outside of pytest: without jaxtyping's check


def test_the_bits_do_not_depend_on_the_number_of_cores():
    """The groups that the weights' gradient is summed in follow from the batch alone."""
    assert [_groups(batch) for batch in (1, 15, 32, 64, 100, 256, 10_000)] == [1, 1, 2, 4, 4, 16, 16]
