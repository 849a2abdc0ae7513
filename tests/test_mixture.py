"""The kernel for mixture densities in C: against JAX's operations, on what is far, narrow or not finite."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.kernels import native
from wm_jax.kernels.mixture import mixture_nll
from wm_jax.models.heads import MIN_LOG_STD, MixtureHead

H = 6


def test_the_kernel_is_there() -> None:
    assert native.available()


def problem(rows: int, latents: int, mixtures: int, narrow: bool = False, seed: int = 0) -> dict[str, jax.Array]:
    """A layer and targets.

    Args:
      narrow: all deviations lie near the floor, above and below, and half of the targets nearly at a component's mean.
    """
    rng = np.random.default_rng(seed)
    shape = (3, mixtures, latents)
    kernel, bias = 0.5 * rng.normal(size=(H, *shape)), rng.normal(size=shape)
    h, target = rng.normal(size=(rows, H)), rng.normal(size=(rows, latents))
    if narrow:
        kernel[:, 2] *= 0.1
        bias[2] += MIN_LOG_STD
        means = np.einsum("nh,hkz->nkz", h, kernel[:, 1]) + bias[1]
        near = means[:, -1] + 0.0005 * rng.normal(size=target.shape)
        target = np.where(rng.random(target.shape) < 0.5, near, means[:, 0] + 0.01 * target)
    given = {"h": h, "kernel": kernel.reshape(H, -1), "bias": bias.reshape(-1), "target": target}
    return {name: jnp.asarray(value, jnp.float32) for name, value in given.items()}


def both(given: dict[str, jax.Array], mixtures: int) -> list[Any]:
    """(nll, gradients of a weighted sum by h, kernel and bias), of JAX's operations and of the kernel."""
    latents = given["target"].shape[1]
    weights = jnp.linspace(-1.0, 2.0, len(given["h"]))

    def of(fast: bool) -> Any:
        head = MixtureHead(latents, mixtures, fast)

        def loss(h: jax.Array, kernel: jax.Array, bias: jax.Array) -> Any:
            nll = head.nll(h, kernel, bias, given["target"])
            return (nll * weights).sum(), nll

        (_, nll), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(
            *(given[name] for name in ("h", "kernel", "bias"))
        )
        return nll, gradients

    return [of(False), of(True)]


def assert_close(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6 * float(jnp.abs(a).max()))


SIZES = [(1, 1, 1), (3, 5, 2), (33, 16, 5), (20, 37, 3), (17, 144, 1)]


@pytest.mark.parametrize("rows, latents, mixtures", SIZES)
def test_values_and_gradients_are_those_of_jax(rows: int, latents: int, mixtures: int) -> None:
    assert_close(*both(problem(rows, latents, mixtures), mixtures))


@pytest.mark.parametrize("rows, latents, mixtures", SIZES)
def test_at_the_floor_every_number_s_gradient_is_that_of_jax(rows: int, latents: int, mixtures: int) -> None:
    """Each beside its own size: these gradients differ by orders of magnitude."""
    given = problem(rows, latents, mixtures, narrow=True)
    raw = given["h"] @ given["kernel"]
    nll, gradient = jax.jit(lambda: native.call("mixture", *arguments(raw, given)))()
    head = MixtureHead(latents, mixtures)

    def by_jax(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
        each = -head.read(raw + given["bias"][None, :]).log_prob(given["target"])
        return each.sum(), each

    (_, expected), expected_gradient = jax.jit(jax.value_and_grad(by_jax, has_aux=True))(raw)
    np.testing.assert_allclose(nll, expected, rtol=2e-5, atol=1e-4)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-4)
    deviations = np.asarray(expected_gradient)[:, 2 * mixtures * latents :]
    if rows > 1:
        assert (deviations == 0).any() and (deviations < -1).any(), "some are held, and some widen"


def test_far_targets_and_wide_mixtures_are_finite() -> None:
    given = problem(4, 3, 2)
    given["target"] = given["target"].at[:, 0].set(1e4)
    given["bias"] = given["bias"].at[:2].set(jnp.array([80.0, -80.0])).at[-1].set(30.0)
    results = both(given, 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))
    assert_close(*results)


@pytest.mark.parametrize("below", [0.5, 20.0])
@pytest.mark.parametrize("target, moves", [(0.0, False), (1.0, True)])
def test_a_deviation_below_the_floor_widens_where_that_helps_and_never_narrows(
    below: float, target: float, moves: bool
) -> None:
    given = {
        "h": jnp.zeros((1, H)),
        "kernel": jnp.zeros((H, 3)),
        "bias": jnp.array([0.0, 0.0, MIN_LOG_STD - below]),
        "target": jnp.full((1, 1), target),
    }
    expected, found = both(given, 1)
    assert_close(expected, found)
    widening = float(found[1][2][2]) / -1.0  # the row's weight
    assert widening < 0 if moves else widening == 0, "minus the gradient of the nll: the deviation grows"


@pytest.mark.parametrize("name", ["h", "kernel", "bias", "target"])
def test_what_is_not_a_number_stays_so(name: str) -> None:
    """So training stops, instead of going on with a loss that looks like one."""
    for place in (-1, 0, 40, 80):  # of the bias: a deviation, a logit, a mean and a deviation
        given = problem(3, 18, 2)
        flat = given[name].reshape(-1)
        given[name] = flat.at[place % flat.size].set(jnp.nan).reshape(given[name].shape)
        for nll, gradients in both(given, 2):
            assert np.isnan(nll).any() and np.isnan(gradients[2]).any()


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    given = problem(40, 21, 4)
    whole = native.call("mixture", *arguments(given["h"] @ given["kernel"], given))
    for part in (slice(0, 1), slice(7, 9), slice(30, 40)):
        raw, target = (given["h"] @ given["kernel"])[part], given["target"][part]
        some = native.call("mixture", *arguments(raw, given | {"target": target}))
        jax.tree.map(lambda all_rows, rows, part=part: np.testing.assert_array_equal(all_rows[part], rows), whole, some)


def arguments(raw: jax.Array, given: dict[str, jax.Array]) -> tuple[Any, ...]:
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (raw.shape[:1], raw.shape)]
    return results, raw, given["bias"], given["target"], jnp.full(1, MIN_LOG_STD)


@pytest.mark.parametrize(
    "changes, error, named",
    [
        ({"bias": jnp.zeros(29)}, ValueError, "bias is"),
        ({"target": jnp.zeros((2, 5))}, ValueError, "target is"),
        ({"kernel": jnp.zeros((H, 31)), "bias": jnp.zeros(31)}, ValueError, "31 numbers, no multiple of three"),
        ({"h": jnp.zeros((3, H), jnp.bfloat16)}, TypeError, "h holds bfloat16"),
    ],
)
def test_arrays_that_the_kernel_was_not_written_for_are_refused(
    changes: dict[str, Any], error: type[Exception], named: str
) -> None:
    given = problem(3, 5, 2) | changes
    with pytest.raises(error, match=named):
        inspect.unwrap(mixture_nll)(*given.values(), MIN_LOG_STD)  # as outside of pytest: without jaxtyping's check
