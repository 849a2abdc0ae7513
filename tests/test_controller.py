"""C against a NumPy reference; actions at their bounds."""

import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.envs.spaces import ActionSpace, Continuous, Discrete, Thresholds
from wm_jax.models.controller import Controller, rounded, with_gas
from wm_jax.utils.errors import UsageError, UserError

CAR = Continuous(("steer", "gas", "brake"), (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0), ("tanh", "sigmoid", "positive_tanh"))
MOVES = Discrete(("noop", "fire", "left"), (0, 1, 4))


def test_parameter_counts() -> None:
    assert Controller("zh", 0, 32, 256, CAR).n_params == 867  # the paper's CarRacing controller
    assert Controller("z", 0, 32, 256, CAR).n_params == 99
    assert Controller("zhc", 0, 64, 512, Discrete(("left",), (0,))).n_params == 1_089  # the paper's Doom controller
    assert Controller("z", 40, 32, 256, CAR).n_params == 32 * 40 + 40 + 40 * 3 + 3


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("inputs", ["z", "zh", "zhc"])
def test_apply_agrees_with_numpy(inputs: str, hidden: int) -> None:
    controller = Controller(inputs, hidden, 4, 6, CAR)  # pyright: ignore[reportArgumentType]
    rng = np.random.default_rng(0)
    params = rng.standard_normal(controller.n_params).astype(np.float32)
    features = rng.standard_normal(controller.n_features).astype(np.float32)
    x, rest = features, params
    for layer, outputs in enumerate([hidden, 3] if hidden else [3]):
        x = np.tanh(x) if layer else x
        weights, bias, rest = np.split(rest, [outputs * x.size, outputs * x.size + outputs])
        x = weights.reshape(outputs, x.size) @ x + bias
    assert rest.size == 0
    np.testing.assert_allclose(controller.apply(jnp.asarray(params), jnp.asarray(features)), x, rtol=1e-5, atol=1e-6)


def test_features_come_in_the_order_z_h_c() -> None:
    z, h, c = (jnp.full((2, n), float(n)) for n in (4, 6, 6))
    c = c + 1.0
    for inputs, parts in (("z", (z,)), ("zh", (z, h)), ("zhc", (z, h, c))):
        controller = Controller(inputs, 0, 4, 6, CAR)  # pyright: ignore[reportArgumentType]
        features = controller.features(z, (h, c))
        np.testing.assert_array_equal(features, np.concatenate(parts, axis=-1))
        assert features.shape[-1] == controller.n_features


def test_a_gru_has_no_c() -> None:
    with pytest.raises(UserError, match=r"controller\.inputs zhc"):
        Controller("zhc", 0, 4, 6, CAR).features(jnp.zeros((1, 4)), (jnp.zeros((1, 6)),))


def test_continuous_actions() -> None:
    raw = jnp.asarray([[0.0, 0.0, 0.0], [50.0, 50.0, 50.0], [-50.0, -50.0, -50.0], [0.5, 0.5, 0.5]])
    expected = [[0, 0.5, 0], [1, 1, 1], [-1, 0, 0], [np.tanh(0.5), 1 / (1 + np.exp(-0.5)), np.tanh(0.5)]]
    np.testing.assert_allclose(CAR.choose(raw), expected, atol=1e-6)


def test_gas_as_in_the_papers_code() -> None:
    """Steering tanh x, gas (tanh x + 1) / 2, brake tanh x cut to [0, 1]; by default the gas alone is another."""
    raw = np.random.default_rng(0).normal(0.0, 2.0, (50, 3)).astype(np.float32)
    tanh = np.tanh(raw.astype(np.float64))
    expected = np.stack([tanh[:, 0], (tanh[:, 1] + 1) / 2, np.clip(tanh[:, 2], 0, 1)], 1)
    np.testing.assert_allclose(with_gas(CAR, "tanh").choose(jnp.asarray(raw)), expected, atol=1e-6)
    assert with_gas(CAR, "sigmoid") is CAR and with_gas(MOVES, "sigmoid") is MOVES


@pytest.mark.parametrize("space", [MOVES, Continuous(("x",), (0.0,), (1.0,), ("tanh",))])
def test_without_a_pedal_there_is_no_gas(space: ActionSpace) -> None:
    with pytest.raises(UsageError, match=r"controller\.gas tanh: only carracing has a gas pedal"):
        with_gas(space, "tanh")


def test_rounded_weights_are_those_of_the_papers_packets() -> None:
    """Whole numbers of ten-thousandths, as its worker processes were sent them."""
    params = jnp.asarray(np.random.default_rng(0).normal(0.0, 0.5, (3, 867)).astype(np.float32))
    sent = np.round(np.asarray(params, np.float64) * 10_000, 0).astype(np.int32)
    found = rounded(params, 1e-4)
    np.testing.assert_array_equal(found, (sent / 10_000).astype(np.float32))
    assert found.dtype == jnp.float32 and not np.array_equal(found, params)
    assert rounded(params, 0.0) is params


def test_tanh_fills_any_bounds() -> None:
    space = Continuous(("x",), (-3.0,), (5.0,), ("tanh",))
    np.testing.assert_allclose(space.choose(jnp.asarray([[-50.0], [0.0], [50.0]]))[:, 0], [-3.0, 1.0, 5.0])


def test_discrete_actions_and_ties() -> None:
    raw = jnp.asarray([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 3.0, 3.0]])
    action = MOVES.choose(raw)
    assert action.dtype == jnp.int32
    np.testing.assert_array_equal(action, [1, 0, 1])


def test_encoded_actions() -> None:
    np.testing.assert_array_equal(MOVES.encode(jnp.asarray([[2], [0]])), [[[0, 0, 1]], [[1, 0, 0]]])
    vector = jnp.asarray([[0.1, 0.2, 0.3]])
    np.testing.assert_array_equal(CAR.encode(vector), vector)


def test_one_output_chooses_between_three_actions() -> None:
    """As in the paper's DoomTakeCover: beyond a third of tanh's range it moves, else it stays."""
    doom = Thresholds(("left", "stay", "right"), (0, 1, 2))
    raw = jnp.asarray([[-2.0], [-0.35], [-0.34], [0.0], [0.34], [0.35], [2.0]])
    np.testing.assert_array_equal(doom.choose(raw), [0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(doom.encode(doom.choose(raw[:1])), [[1, 0, 0]])
    assert Controller("zhc", 0, 64, 512, doom).n_params == 1_089 and doom.size == 3
    with pytest.raises(ValueError, match="two thresholds part three actions"):
        Thresholds(("left", "right"), (0, 1))
