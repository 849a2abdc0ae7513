"""Stride-2 convolutions without padding, one after another, as the paper's V uses them: XLA's, or ours in C for CPU.

XLA:CPU takes several times as long as the arithmetic needs. Ours, and XLA's in other types than float32, are made of
three maps between a large image and a small one, half its size (`native/conv.c`):

  down   large -> small: a convolution;
  up     small -> large: a transposed convolution;
  outer  (large, small) -> weights.

A convolution is down, with gradients by up and outer; a transposed convolution is up, with gradients by down and
outer. Bias, ReLU and the ReLU's mask in the gradient are applied as results are stored. Values and gradients equal the
plain ones up to rounding, and those of an image don't depend on its neighbours in the batch, bit for bit. There is no
forward-mode derivative, and kernels have sides of 2 to 16.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from wm_jax.kernels import native
from wm_jax.kernels.narrow import SUMS, Bilinear, product

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_COLUMNS = 16
"""Numbers in the widest vector that a kernel reads at once: weights are filled up to a multiple."""
_LARGEST_KERNEL = 16
"""What `MAX_SPANS` in native/conv.c has room for: a quarter of a kernel's square reaches one pixel."""


class Layer(NamedTuple):
    """Weights and biases of one layer, in float32.

    w: of a convolution from `large` to `small` channels, [a, b] for the pixel (2i+a, 2j+b) of window (i, j); a
      transposed convolution goes the other way by the same weights.
    b: of the channels that the layer makes.
    """

    w: Float[Array, "k k large small"]
    b: Float[Array, "channels"]


def convolutions(
    x: Float[Array, "B h w C"], layers: Sequence[Layer], *, fast: bool = False, dtype: Any = jnp.float32
) -> Float[Array, "B _h _w _C"]:
    """Convolutions, each followed by a ReLU; an image of side s becomes one of (s - k) // 2 + 1.

    Args:
      fast: ours, which needs `native.available()`; in bfloat16, `native.narrow()` and even numbers of channels, but for
        those of the first image.
      dtype: what products are made in, those of the gradients too. They are added up in float32.
    """
    if fast:
        _require(x, layers, dtype, transposed=False)
        return _fast_convolutions(x, tuple(layers), dtype)
    for w, b in layers:
        x = jax.nn.relu(_convolution(x, w, dtype) + b[None, None, None, :])
    return x


def transposed_convolutions(
    x: Float[Array, "B h w C"], layers: Sequence[Layer], *, fast: bool = False, dtype: Any = jnp.float32
) -> Float[Array, "B _h _w _C"]:
    """Transposed convolutions with ReLUs between them; an image of side s becomes one of 2 * s - 2 + k.

    Args:
      fast, dtype: see `convolutions`.
    """
    if fast:
        _require(x, layers, dtype, transposed=True)
        return _fast_transposed(x, tuple(layers), dtype)
    for place, (w, b) in enumerate(layers):
        y = _transposed(x, w, dtype) + b[None, None, None, :]
        x = jax.nn.relu(y) if place < len(layers) - 1 else y
    return x


def _convolution(x: Array, w: Array, dtype: Any) -> Array:
    """By XLA."""
    if dtype == jnp.float32:
        return lax.conv_general_dilated(x, w, (2, 2), "VALID", dimension_numbers=_LAYOUT)
    k, side = w.shape[0], x.shape[1:3]
    return product(Bilinear(_plain_down, partial(_plain_up, side=side), partial(_plain_outer, k=k)), dtype, x, w)


def _transposed(x: Array, w: Array, dtype: Any) -> Array:
    """By XLA."""
    if dtype == jnp.float32:
        return lax.conv_transpose(x, w, (2, 2), "VALID", dimension_numbers=_LAYOUT, transpose_kernel=True)
    k, (height, width) = w.shape[0], x.shape[1:3]
    up = partial(_plain_up, side=(2 * height - 2 + k, 2 * width - 2 + k))
    return product(Bilinear(up, _plain_down, lambda dy, x: _plain_outer(x, dy, k)), dtype, x, w)


def _plain_down(large: Array, w: Array) -> Array:
    """[B, h, w, Cl], [k, k, Cl, Cs] -> [B, (h-k)//2+1, (w-k)//2+1, Cs]."""
    return lax.conv_general_dilated(large, w, (2, 2), "VALID", dimension_numbers=_LAYOUT, preferred_element_type=SUMS)


def _plain_up(small: Array, w: Array, side: tuple[int, ...]) -> Array:
    """[B, h, w, Cs], [k, k, Cl, Cs] -> [B, *side, Cl]: what each pixel gives to all of its window."""
    k = w.shape[0]
    padding = [(k - 1, size - 2 * count + 1) for size, count in zip(side, small.shape[1:3], strict=True)]
    return lax.conv_general_dilated(
        small,
        lax.rev(w, (0, 1)),
        (1, 1),
        padding,
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
        preferred_element_type=SUMS,
    )


def _plain_outer(small: Array, large: Array, k: int) -> Array:
    """[B, (h-k)//2+1, (w-k)//2+1, Cs], [B, h, w, Cl] -> [k, k, Cl, Cs], summed over images and windows."""
    # Negative where the last row or column of the large image belongs to no window.
    padding = [(0, k - 2 + 2 * count - size) for size, count in zip(large.shape[1:3], small.shape[1:3], strict=True)]
    return lax.conv_general_dilated(
        large,
        small,
        (1, 1),
        padding,
        rhs_dilation=(2, 2),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=SUMS,
    )


def _require(x: Array, layers: Sequence[Layer], dtype: Any, *, transposed: bool) -> None:
    """Refuse what the kernels in C can't compute.

    Raises:
      ValueError, TypeError: see `native.require`; another type than float32; or a kernel's side that is out of range,
        or too large for the image.
    """
    if dtype != jnp.float32 and not (dtype == jnp.bfloat16 and native.narrow()):
        raise TypeError(f"convolutions: the kernels in C do not multiply in {jnp.dtype(dtype)} here")
    _, height, width, channels = x.shape
    arrays: dict[str, Array] = {"x": x}
    shapes: dict[str, tuple[int, ...]] = {"x": x.shape}
    for place, (w, b) in enumerate(layers):
        k = w.shape[0]
        if not 2 <= k <= _LARGEST_KERNEL:
            raise ValueError(f"layers[{place}].w: a kernel of side {k}; ours in C take 2 to {_LARGEST_KERNEL}")
        if not transposed and min(height, width) < k:
            raise ValueError(f"layers[{place}].w: a kernel of side {k} on images of {height} x {width}")
        large, small = w.shape[-2:]
        arrays |= {f"layers[{place}].w": w, f"layers[{place}].b": b}
        inner, outer = (large, channels) if transposed else (channels, small)
        wide = 2 * width - 2 + k if transposed else width
        if dtype != jnp.float32 and (outer % 2 or inner * k % 2 or inner * wide % 2):
            raise ValueError(
                f"layers[{place}].w: in {jnp.dtype(dtype)} lines, windows and small pixels hold even numbers"
            )
        shapes |= {f"layers[{place}].w": (k, k, inner, outer), f"layers[{place}].b": (large if transposed else small,)}
        channels = large if transposed else small
        height, width = (2 * side - 2 + k if transposed else (side - k) // 2 + 1 for side in (height, width))
    native.require("convolutions", arrays, shapes)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fast_convolutions(x: Array, layers: Sequence[Layer], dtype: Any) -> Array:
    return _convolutions_forward(x, layers, dtype)[0]


def _convolutions_forward(x, layers, dtype):
    images = [x.astype(dtype)]
    for place, (w, b) in enumerate(layers):
        images.append(_down(images[-1], w, b, relu=True, out=dtype if place < len(layers) - 1 else SUMS))
    return images[-1], (images, layers)


def _convolutions_backward(dtype, saved, dy):
    images, layers = saved
    d = jnp.where(images[-1] > 0, dy, 0).astype(dtype)
    gradients = []
    for place in reversed(range(len(layers))):
        x, w = images[place], layers[place].w
        gradients.append(Layer(*_outer(x, d, w.shape[0], sum_large=False)))
        d = _up(d, w, x.shape[1:3], mask=x if place else None, out=dtype if place else SUMS)
    return d, tuple(reversed(gradients))


_fast_convolutions.defvjp(_convolutions_forward, _convolutions_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fast_transposed(x: Array, layers: Sequence[Layer], dtype: Any) -> Array:
    return _transposed_forward(x, layers, dtype)[0]


def _transposed_forward(x, layers, dtype):
    images = [x.astype(dtype)]
    for place, (w, b) in enumerate(layers):
        h, width = images[-1].shape[1:3]
        side = (2 * h - 2 + w.shape[0], 2 * width - 2 + w.shape[0])
        last = place == len(layers) - 1
        images.append(_up(images[-1], w, side, b, relu=not last, out=SUMS if last else dtype))
    return images[-1], (images[:-1], layers)


def _transposed_backward(dtype, saved, d):
    images, layers = saved
    d = d.astype(dtype)
    gradients = []
    for place in reversed(range(len(layers))):
        x, w = images[place], layers[place].w
        gradients.append(Layer(*_outer(d, x, w.shape[0], sum_large=True)))
        d = _down(d, w, mask=x if place else None, out=dtype if place else SUMS)
    return d, tuple(reversed(gradients))


_fast_transposed.defvjp(_transposed_forward, _transposed_backward)


def fast_matmul(x: Float[Array, "B I"], w: Float[Array, "I O"]) -> Float[Array, "B O"]:
    """The matrix product in bfloat16, as a convolution of images of one pixel. It needs `native.narrow()`, and even
    I and O.
    """
    maps = Bilinear(
        lambda x, w: _down(x, w.astype(SUMS), out=SUMS),
        lambda dy, w: _up(dy, w.astype(SUMS), (1, 1), out=SUMS),
        lambda dy, x: _outer(x, dy, 1, sum_large=False)[0],
    )
    y: Any = product(maps, jnp.bfloat16, x[:, None, None], w[None, None])
    return y[:, 0, 0]


def _down(
    large: Array,
    w: Array,
    b: Array | None = None,
    *,
    out: Any,
    relu: bool = False,
    mask: Array | None = None,
) -> Array:
    """[B, h, w, Cl], [k, k, Cl, Cs] -> [B, (h-k)//2+1, (w-k)//2+1, Cs] in the type `out`; 0 where the mask is not
    positive. Products are made in the type of the image.
    """
    k, _, _, outer = w.shape
    batch, h, width, _ = large.shape
    shape = jax.ShapeDtypeStruct((batch, (h - k) // 2 + 1, (width - k) // 2 + 1, outer), out)
    return _called("down", shape, large, w, b, relu, mask)


def _up(
    small: Array,
    w: Array,
    side: tuple[int, ...],
    b: Array | None = None,
    *,
    out: Any,
    relu: bool = False,
    mask: Array | None = None,
) -> Array:
    """[B, h, w, Cs], [k, k, Cl, Cs] -> [B, *side, Cl]; pixels that no window reaches are only the bias. See `_down`."""
    k, _, inner, outer = w.shape
    shape = jax.ShapeDtypeStruct((small.shape[0], *side, inner), out)
    # Narrow pixels would leave most of a vector empty: then it makes 2 x 2 of them at once.
    blocks = k % 2 == 0 and 4 * inner <= _COLUMNS and mask is None and out == SUMS
    if blocks:
        m = k // 2
        w = w.reshape(m, 2, m, 2, inner, outer).transpose(0, 2, 5, 1, 3, 4).reshape(m, m, outer, 4 * inner)
        b = None if b is None else jnp.pad(jnp.tile(b, 4), (0, _COLUMNS - 4 * inner))
    elif small.dtype == jnp.float32:
        w = w.transpose(0, 1, 3, 2)
    return _called("up", shape, small, w, b, relu, mask, blocks=blocks)


def _outer(large: Array, small: Array, k: int, *, sum_large: bool) -> tuple[Array, Array]:
    """[B, h, w, Cl], [B, (h-k)//2+1, (w-k)//2+1, Cs] -> [k, k, Cl, Cs], and the sum over pixels of either image."""
    inner, outer = large.shape[-1], small.shape[-1]
    shapes = ((k, k, inner, outer), (inner if sum_large else outer,))
    results = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return native.call(_kernel("outer", large), results, large, small, sum_large=sum_large)


def _called(
    name: str,
    shape: jax.ShapeDtypeStruct,
    image: Array,
    w: Array,
    b: Array | None,
    relu: bool,
    mask: Array | None,
    **attributes: int,
) -> Array:
    optional = [part for part in (b, mask) if part is not None]
    flags = {"bias": b is not None, "relu": relu, "mask": mask is not None}
    w = _filled(w) if image.dtype == jnp.float32 else w
    return native.call(_kernel(name, image), shape, image, w, *optional, **flags, **attributes)


def _kernel(name: str, image: Array) -> str:
    return name if image.dtype == jnp.float32 else f"narrow_{name}"


def _filled(w: Array) -> Array:
    """With zeros up to a multiple of `_COLUMNS` columns."""
    lacking = -w.shape[-1] % _COLUMNS
    return jnp.pad(w, ((0, 0), (0, 0), (0, 0), (0, lacking))) if lacking else w
