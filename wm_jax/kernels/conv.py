"""Stride-2 convolutions without padding, as the paper's V uses them: plain, or fast on CPU.

XLA:CPU takes six times as long as two matrix multiplications need for a convolution's gradients. The fast formulation
is made of three linear maps between a large image and a small one, half its size:

  `_down`   large -> small: the windows of the large image, gathered into rows, times the weights;
  up        small -> large: the small image times the weights gives windows (`_to_windows`), which are added up where
            they overlap (`_overlap_add`);
  `_outer`  (large, small) -> weights: the windows of the large image times the small image.

A convolution is `_down`, with gradients by up and `_outer`; a transposed convolution is up, with gradients by
`_down` and `_outer`. Values and gradients equal the plain ones up to rounding; there is no forward-mode derivative.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from wm_jax.kernels.barrier import apart

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(
    x: Float[Array, "B h w Ci"],
    w: Float[Array, "k k Ci Co"],
    b: Float[Array, "Co"],
    *,
    relu: bool = False,
    fast: bool = False,
) -> Float[Array, "B (h-k)//2+1 (w-k)//2+1 Co"]:
    """Stride-2 VALID convolution.

    Args:
      x: float32 if fast.
      w: out[i, j] = sum over a, b of x[2i+a, 2j+b] @ w[a, b].
      relu: apply it.
      fast: the formulation for CPU; the same values and gradients up to rounding.
    """
    if fast:
        return _fast_conv2d(relu, x, w, b)
    y = lax.conv_general_dilated(x, w, (2, 2), "VALID", dimension_numbers=_LAYOUT)
    return _finish(y, b, relu)


def conv2d_transpose(
    x: Float[Array, "B h w Ci"],
    w: Float[Array, "k k Co Ci"],
    b: Float[Array, "Co"],
    *,
    relu: bool = False,
    fast: bool = False,
) -> Float[Array, "B 2*h-2+k 2*w-2+k Co"]:
    """Stride-2 VALID transposed convolution.

    Args:
      x: float32 if fast.
      w: the weights of the convolution that leads back; out[2i+a, 2j+b] += w[a, b] @ x[i, j].
      relu: apply it.
      fast: the formulation for CPU; the same values and gradients up to rounding.
    """
    if fast:
        return _fast_conv2d_transpose(relu, x, w, b)
    y = lax.conv_transpose(x, w, (2, 2), "VALID", dimension_numbers=_LAYOUT, transpose_kernel=True)
    return _finish(y, b, relu)


def _finish(y: Array, b: Array, relu: bool) -> Array:
    y = y + b[None, None, None, :]
    return jnp.maximum(y, 0) if relu else y


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fast_conv2d(relu: bool, x: Array, w: Array, b: Array) -> Array:
    return apart(lambda y, b: _finish(y, b, relu), _down(x, w), b)


def _conv2d_forward(relu, x, w, b):
    y = _fast_conv2d(relu, x, w, b)
    return y, (x, w, y)


def _conv2d_backward(relu, saved, dy):
    x, w, y = saved
    dy, db = _through_relu(relu, y, dy)
    dx = apart(partial(_overlap_add, side=x.shape[1:3]), _to_windows(dy, w))
    return dx, _outer(x, dy, w.shape[0]), db


_fast_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fast_conv2d_transpose(relu: bool, x: Array, w: Array, b: Array) -> Array:
    k, (h, width) = w.shape[0], x.shape[1:3]
    side = (2 * h - 2 + k, 2 * width - 2 + k)
    return apart(lambda rows, b: _finish(_overlap_add(rows, side), b, relu), _to_windows(x, w), b)


def _conv2d_transpose_forward(relu, x, w, b):
    y = _fast_conv2d_transpose(relu, x, w, b)
    return y, (x, w, y)


def _conv2d_transpose_backward(relu, saved, dy):
    x, w, y = saved
    dy, db = _through_relu(relu, y, dy)
    return _down(dy, w), _outer(dy, x, w.shape[0]), db


_fast_conv2d_transpose.defvjp(_conv2d_transpose_forward, _conv2d_transpose_backward)


def _through_relu(relu: bool, y: Array, dy: Array) -> tuple[Array, Array]:
    """Gradients before the ReLU, and of the bias."""

    def masked(dy: Array, y: Array) -> tuple[Array, Array]:
        dy = jnp.where(y > 0, dy, 0) if relu else dy
        return dy, dy.sum((0, 1, 2))

    return apart(masked, dy, y)


def _windows(large: Array, k: int) -> Array:
    """The k x k stride-2 windows of [B, h, w, C] as rows: [B * small h * small w, k * k * C].

    One gather of runs of k * C neighbouring numbers: several times faster than slicing and concatenating.
    """
    batch, h, w, c = large.shape
    rows, columns, run = np.ix_(2 * np.arange((h - k) // 2 + 1), 2 * np.arange((w - k) // 2 + 1), np.arange(k))
    starts = (((rows + run) * w + columns) * c).astype(np.int32)
    dimensions = lax.GatherDimensionNumbers(offset_dims=(0, 2), collapsed_slice_dims=(), start_index_map=(1,))
    runs = lax.gather(
        large.reshape(batch, -1),
        starts.reshape(-1, 1),
        dimensions,
        slice_sizes=(batch, k * c),
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )
    return runs.reshape(batch * starts.shape[0] * starts.shape[1], k * k * c)


def _down(large: Array, w: Array) -> Array:
    """[B, h, w, Cl], [k, k, Cl, Cs] -> [B, (h-k)//2+1, (w-k)//2+1, Cs]."""
    k, _, inner, outer = w.shape
    batch, h, width, _ = large.shape
    small = _windows(large, k) @ w.reshape(k * k * inner, outer)
    return small.reshape(batch, (h - k) // 2 + 1, (width - k) // 2 + 1, outer)


def _outer(large: Array, small: Array, k: int) -> Array:
    """[B, h, w, Cl], [B, (h-k)//2+1, (w-k)//2+1, Cs] -> [k, k, Cl, Cs]."""
    rows = small.reshape(-1, small.shape[-1])
    # Transposed on purpose: this way round the product of two tall matrices is about twice as fast.
    product = lax.optimization_barrier(lax.dot_general(rows, _windows(large, k), (((0,), (0,)), ((), ()))))
    return product.T.reshape(k, k, large.shape[-1], small.shape[-1])


def _to_windows(small: Array, w: Array) -> Array:
    """The products that `_overlap_add` sums: [B, h, w, Cs], [k, k, Cl, Cs] -> [B, h, w, m, 2, m, 2 * Cl].

    A window is m x m blocks of 2 x 2 pixels, m = ceil(k/2), and axes (m, 2) count its rows: block (i+a, j+b) of the
    large image receives block (a, b) of window (i, j). The two pixels of a block's row are neighbours in memory.
    """
    k, _, outer, inner = w.shape
    m = (k + 1) // 2
    even = jnp.pad(w, ((0, 2 * m - k), (0, 2 * m - k), (0, 0), (0, 0))).reshape(-1, inner)
    rows = lax.dot_general(small.reshape(-1, inner), even, (((1,), (1,)), ((), ())))
    return rows.reshape(*small.shape[:3], m, 2, m, 2 * outer)


def _overlap_add(windows: Array, side: tuple[int, int]) -> Array:
    """The result of `_to_windows` -> [B, *side, Cl]: pixels that no window reaches are 0."""
    batch, h, w, m, _, _, pair = windows.shape
    grown = [
        jnp.pad(windows[:, :, :, a, :, b], ((0, 0), (a, m - 1 - a), (b, m - 1 - b), (0, 0), (0, 0)))
        for a in range(m)
        for b in range(m)
    ]
    blocks = sum(grown[1:], grown[0])
    rows, columns = 2 * (h + m - 1), 2 * (w + m - 1)
    image = blocks.transpose(0, 1, 3, 2, 4).reshape(batch, rows, columns, pair // 2)
    # An odd kernel leaves one row and column too many, an image of odd side one too few.
    image = image[:, : side[0], : side[1]]
    return jnp.pad(image, ((0, 0), (0, side[0] - image.shape[1]), (0, side[1] - image.shape[2]), (0, 0)))
