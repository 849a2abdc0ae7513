"""An LSTM over time: a plain scan, one with a hand-derived gradient, or ours in C for CPU.

Differentiating a scan adds every step's share to the weights' gradients: T small matrix products and T sums over the
whole matrix. The hand-derived gradient keeps the scan for what is sequential, the gradients before the gates, and
makes the weights' gradients from all steps at once. In C (`native/lstm.c`) the rows of the batch are shared by the
processor's cores, and the gradients before the gates never leave its cache.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from wm_jax.kernels import native

Formulation = Literal["plain", "derived", "native"]
"""A scan; with the hand-derived gradient; ours in C, which needs `native.available()` and float32."""

Carry = tuple[Float[Array, "B H"], Float[Array, "B H"]]
"""(h, c)."""


class LstmParams(NamedTuple):
    """Weights of one LSTM with I inputs; the G = 4H gates stand in the order input, forget, candidate, output."""

    wx: Float[Array, "I G"]
    wh: Float[Array, "H G"]
    b: Float[Array, "G"]


class _Saved(NamedTuple):
    """What the backward pass needs of the forward pass: [B, H] in a step, [T, B, H] once stacked.

    Separate arrays, because writing four slices of one array costs XLA:CPU a copy.
    """

    h: Array
    """h before the step, zeroed at an episode's start; c likewise."""
    c: Array
    i: Array
    f: Array
    g: Array
    o: Array


def lstm(
    params: LstmParams,
    carry: Carry,
    x: Float[Array, "T B I"],
    is_first: Bool[Array, "T B"],
    formulation: Formulation = "plain",
) -> tuple[Carry, Float[Array, "T B H"]]:
    """A sequence.

    Args:
      params: weights.
      carry: the state before the first step.
      is_first: where true the state is zeroed before that step.
      formulation: all give the same values and gradients up to rounding; only the plain one has a forward-mode
        derivative.

    Returns:
      The state after the last step, and h after every step.
    """
    if formulation == "native":
        (steps, batch, inputs), hidden = x.shape, params.wh.shape[0]
        gates, state = 4 * hidden, (batch, hidden)
        native.require(
            "lstm",
            {**params._asdict(), "h": carry[0], "c": carry[1], "x": x, "is_first": is_first},
            {"wx": (inputs, gates), "wh": (hidden, gates), "b": (gates,), "h": state, "c": state}
            | {"x": x.shape, "is_first": (steps, batch)},
            {"is_first": bool},
        )
    return {"plain": _scan, "derived": _derived_lstm, "native": _native_lstm}[formulation](params, carry, x, is_first)


def lstm_step(params: LstmParams, carry: Carry, x: Float[Array, "B I"]) -> Carry:
    """One step (Hochreiter & Schmidhuber 1997, with the forget gate of Gers 1999)."""
    return _gated(params, carry, x)[0]


def _gated(params: LstmParams, carry: Carry, x: Array) -> tuple[Carry, _Saved]:
    h, c = carry
    i, f, g, o = jnp.split(x @ params.wx + h @ params.wh + params.b[None, :], 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    saved = _Saved(h, c, i, f, g, o)
    c = f * c + i * g  # Graves 2013, eq. 7 to 11, without peepholes
    return (o * jnp.tanh(c), c), saved


def _unless(is_first: Array, state: Carry) -> Carry:
    """The state [B, H], zero where is_first [B]."""
    h, c = (jnp.where(is_first[:, None], jnp.zeros_like(part), part) for part in state)
    return h, c


def _scan(params: LstmParams, carry: Carry, x: Array, is_first: Array) -> tuple[Carry, Array]:
    def step(carry: Carry, now: tuple[Array, Array]) -> tuple[Carry, Array]:
        x, is_first = now
        carry = lstm_step(params, _unless(is_first, carry), x)
        return carry, carry[0]

    return lax.scan(step, carry, (x, is_first))


_derived_lstm = jax.custom_vjp(_scan)


def _derived_forward(params, carry, x, is_first):
    def step(carry, now):
        x, is_first = now
        carry, saved = _gated(params, _unless(is_first, carry), x)
        return carry, (carry[0], saved)

    carry, (h, saved) = lax.scan(step, carry, (x, is_first))
    return (carry, h), (params, x, is_first, saved)


def _derived_backward(residuals, cotangents):
    params, x, is_first, saved = residuals
    d_carry, d_outputs = cotangents
    to_h = params.wh.T

    def step(d_carry, now):
        dh, dc = d_carry
        d_output, is_first, (_, c, i, f, g, o) = now
        dh = dh + d_output
        tanh_c = jnp.tanh(f * c + i * g)
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        d_gates = jnp.concatenate(
            [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * tanh_c * o * (1 - o)], axis=-1
        )
        return _unless(is_first, (d_gates @ to_h, dc * f)), d_gates

    d_carry, d_gates = lax.scan(step, d_carry, (d_outputs, is_first, saved), reverse=True)
    flat = d_gates.reshape(-1, d_gates.shape[-1])
    d_params = LstmParams(
        wx=x.reshape(-1, x.shape[-1]).T @ flat,
        wh=saved.h.reshape(-1, saved.h.shape[-1]).T @ flat,
        b=flat.sum(0),
    )
    return d_params, d_carry, (flat @ params.wx.T).reshape(x.shape), None


_derived_lstm.defvjp(_derived_forward, _derived_backward)


@jax.custom_vjp
def _native_lstm(params: LstmParams, carry: Carry, x: Array, is_first: Array) -> tuple[Carry, Array]:
    return _native_forward(params, carry, x, is_first)[0]


def _native_forward(params, carry, x, is_first):
    steps, batch, _ = x.shape
    hidden = params.wh.shape[0]
    states, gates = (jax.ShapeDtypeStruct((steps, batch, *size), x.dtype) for size in ((hidden,), (4, hidden)))
    h, gates, c = native.call("lstm_forward", (states, gates, states), x, *params, is_first, *carry)
    return ((h[-1], c[-1]), h), (params, carry, x, is_first, h, gates, c)


def _native_backward(saved, cotangents):
    params, carry, x, is_first, *states = saved
    (d_last_h, d_last_c), d_h = cotangents
    inputs, gates = params.wx.shape
    groups = _groups(x.shape[1])
    shapes = ((groups, inputs + params.wh.shape[0], gates), (groups, gates), d_last_h.shape, d_last_c.shape, x.shape)
    dw, db, d_h0, d_c0, dx = native.call(
        "lstm_backward",
        tuple(jax.ShapeDtypeStruct(shape, x.dtype) for shape in shapes),
        *(x, params.wx, params.wh, is_first, *carry, *states, d_h, d_last_h, d_last_c),
        input=True,
    )
    dw = dw.sum(0)
    return LstmParams(dw[:inputs], dw[inputs:], db.sum(0)), (d_h0, d_c0), dx, None


_native_lstm.defvjp(_native_forward, _native_backward)


def _groups(batch: int) -> int:
    """How many groups of rows each make their share of the weights' gradient, which are then added up.

    By the batch alone, so that the bits don't depend on the machine's cores: a power of two, which most numbers of
    cores share evenly, of at least 16 rows each, because every group reads all weights.
    """
    return min(1 << max(batch // 16, 1).bit_length() - 1, 16)
