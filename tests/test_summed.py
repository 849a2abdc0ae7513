"""The sum whose gradient is made with its value: against the same sum differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.kernels.summed import summed


def term(params, x, constants):
    y = jnp.tanh(x["a"] @ params[0] + params[1][None, :]) * constants
    return (y * y).sum(), {"mean": y.mean()}


def plain(params, inputs, constants):
    parts = [term(params, jax.tree.map(lambda leaf, i=i: leaf[i], inputs), constants[i]) for i in range(len(constants))]
    return sum(part[0] for part in parts), {"mean": sum(part[1]["mean"] for part in parts)}


def problem():
    rng = np.random.default_rng(0)
    a, w, b, c = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((6, 3, 4), (4, 5), (5,), (6, 3, 5)))
    return (w, b), {"a": a}, c


def test_value_and_gradient_equal_those_of_the_plain_sum():
    params, inputs, constants = problem()

    def score(f, params, inputs):
        scalar, _ = f(params, inputs, constants)
        return jnp.sin(scalar) * 3  # a cotangent other than 1

    expected = jax.value_and_grad(lambda p, x: score(plain, p, x), (0, 1))(params, inputs)
    got = jax.jit(jax.value_and_grad(lambda p, x: score(lambda *a: summed(term, *a), p, x), (0, 1)))(params, inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), got, expected)


def test_figures_are_summed():
    params, inputs, constants = problem()
    got, expected = summed(term, params, inputs, constants), plain(params, inputs, constants)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, expected)


def test_figures_carry_no_gradient():
    params, inputs, constants = problem()

    def mean(params):
        _, figures = summed(term, params, inputs, constants)
        return figures["mean"]

    gradient = jax.grad(mean)(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
