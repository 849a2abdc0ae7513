"""A dense layer to mixtures of Gaussians and their negative log likelihood, with its gradient, for CPU.

Of the millions of numbers between the layer and the likelihood, XLA makes a dozen arrays, and as many going back. In C
(`native/mixture.c`) each comes from memory once, and the gradient is there when the value is.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wm_jax.kernels import native


def mixture_nll(
    h: Float[Array, "N H"],
    kernel: Float[Array, "H W"],
    bias: Float[Array, "W"],
    target: Float[Array, "N Z"],
    floor: float,
) -> Float[Array, "N"]:
    """Negative log likelihood of the targets in nats, summed over Z.

    Args:
      kernel, bias: of the layer, whose W = 3KZ outputs are the logits, the means and the log deviations [3, K, Z].
      target: it has no gradient.
      floor: the least log deviation; its gradient is that of `models.heads.log_density`.
    """
    (rows, inputs), width, latents = h.shape, kernel.shape[1], target.shape[1]
    native.require(
        "mixture",
        {"h": h, "kernel": kernel, "bias": bias, "target": target},
        {"h": h.shape, "kernel": (inputs, width), "bias": (width,), "target": (rows, latents)},
    )
    if width % (3 * latents):
        raise ValueError(f"mixture: kernel makes {width} numbers, no multiple of three for each of {latents} targets")
    return _nll(floor, h, kernel, bias, jax.lax.stop_gradient(target))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _nll(floor: float, h: Array, kernel: Array, bias: Array, target: Array) -> Array:
    return _forward(floor, h, kernel, bias, target)[0]


def _forward(floor, h, kernel, bias, target):
    raw = h @ kernel
    results = (jax.ShapeDtypeStruct(raw.shape[:1], raw.dtype), jax.ShapeDtypeStruct(raw.shape, raw.dtype))
    nll, d_raw = native.call("mixture", results, raw, bias, target, jnp.full(1, floor, raw.dtype))
    return nll, (h, kernel, d_raw)


def _backward(floor, saved, d_nll):
    del floor
    h, kernel, d_raw = saved
    # The rows' factors go to the narrow side of each product.
    weighted = jnp.concatenate([h, jnp.ones_like(h[:, :1])], axis=1) * d_nll[:, None]
    d_layer = weighted.T @ d_raw
    return (d_raw @ kernel.T) * d_nll[:, None], d_layer[:-1], d_layer[-1], None


_nll.defvjp(_forward, _backward)
