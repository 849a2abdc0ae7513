"""Products in a narrower type, against those in float32 of rounded operands. Convolutions are in `test_conv.py`."""

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.kernels.narrow import matmul


def test_operands_are_rounded_and_sums_are_not():
    random = np.random.default_rng(0)
    x, w, slope = (jnp.asarray(random.standard_normal(size), jnp.float32) for size in ((7, 50), (50, 9), (7, 9)))

    def rounded(array: jax.Array) -> jax.Array:
        return array.astype(jnp.bfloat16).astype(jnp.float32)

    y, gradients = jax.vjp(lambda x, w: matmul(x, w, jnp.bfloat16), x, w)
    exact, expected = jax.vjp(lambda x, w: matmul(x, w, jnp.float32), rounded(x), rounded(w))
    assert not np.allclose(y, x @ w, rtol=1e-5)
    pairs = zip([y, *gradients(slope)], [exact, *expected(rounded(slope))], strict=True)
    for got, reference in pairs:
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, reference, rtol=1e-5, atol=1e-5)
