"""What is said of M's predictions, by an M and latents made by hand."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from wm_jax.data.sequences import FlatLatents
from wm_jax.evaluation.prediction import HORIZONS, WARM_UP, figures, stretches
from wm_jax.models.latents import Point
from wm_jax.models.memory import Prediction


class Same(nnx.Module):
    """A V whose codes are z."""

    def embed(self, target: Array) -> Array:
        return target


class Says(NamedTuple):
    best: Array

    def log_prob(self, target: Array) -> Array:
        raise NotImplementedError

    def best_guess(self) -> Array:
        return self.best

    def sample(self, key: Array, temperature: float | Array = 1.0) -> Array:
        return self.best + 1.0


class Counting(nnx.Module):
    """An M that knows the world of `counted`: z grows by the action, the reward is z's remainder by 3; it ends where it
    says. Its state is (z, action).
    """

    def __init__(self, ends: float = 40.0):
        self.ends = ends

    def init_carry(self, n: int) -> Any:
        return jnp.zeros((n, 1)), jnp.zeros((n, 1))

    def output(self, carry: Any) -> Array:
        return jnp.concatenate(carry, axis=-1)

    def step(self, carry: Any, z: Array, action: Array) -> Any:
        return z, action

    def unroll(self, carry: Any, z: Array, action: Array, is_first: Array) -> Any:
        return (z[-1], action[-1]), jnp.concatenate([z, action], axis=-1)

    def end_probability(self, done_logit: Array) -> Array:
        return jnp.where(done_logit > 0, 0.5, 0.0)

    def predict(self, h: Array) -> Prediction:
        z = h[..., :1] + h[..., 1:]
        return Prediction(Says(z), jnp.mod(z[..., 0], 3.0), z[..., 0] - self.ends + 0.5)


def counted(lengths: list[int]) -> FlatLatents:
    """Episodes in which z counts on from 0 by ones and twos."""
    rows = []
    for length in lengths:
        action = np.where(np.arange(length) % 2, 2.0, 1.0).astype(np.float32)
        z = np.concatenate([[0.0], np.cumsum(action)[:-1]]).astype(np.float32)
        done = np.zeros(length, np.float32)
        done[-2:-1] = 1
        rows.append((z, action, np.mod(z + action, 3).astype(np.float32), done))
    z, action, reward, done = (np.concatenate(each) for each in zip(*rows, strict=True))
    return FlatLatents(Point(z[:, None]), action[:, None], reward, done, np.cumsum([0, *lengths]))


def found(memory: Counting, latents: FlatLatents) -> dict[str, Any]:
    return figures(nnx.split(Same()), nnx.split(memory), latents)


def test_a_perfect_m_has_no_error() -> None:
    latents = counted([90, 120])
    told = found(Counting(), latents)
    assert all(told[f"error_{ahead}"] == 0 for ahead in HORIZONS)
    assert told["reward_correlation"] == 1 and told["reward_error"] == 0 and told["reward_spread"] > 0.4
    variance = float(np.var(latents.latent.z))
    # 1.5 a step on average; a draw is off by one, and by one more each step that it feeds itself.
    assert told["copied_error_50"] == pytest.approx(75**2 / variance, rel=0.01)
    assert told["sampled_error_1"] == pytest.approx(1 / variance, abs=1e-4)
    assert told["sampled_error_15"] == pytest.approx(15**2 / variance, rel=1e-3)


def test_ends_are_counted() -> None:
    latents = counted([41] * 6)  # the last frame has z 60, and all that say so are right
    told = found(Counting(ends=60.0), latents)
    assert told["end_precision"] == told["end_recall"] == 1.0 and told["ends"] == 6 and told["ends_expected"] == 0.5
    told = found(Counting(ends=57.0), latents)  # it says so of the two frames before, too
    assert told["end_recall"] == 1.0 and told["end_precision"] == pytest.approx(1 / 3, abs=0.05)
    told = found(Counting(ends=1000.0), latents)
    assert told["end_recall"] == 0.0 and told["end_precision"] is None


def test_stretches_stay_within_their_episodes() -> None:
    offsets = np.array([0, 30, 32, 33, 200])
    rows = stretches(offsets, 1000)
    at, here = rows.places[WARM_UP], rows.real
    assert len(at) == 29 + 1 + 0 + 166 and not {29, 31, 32, 199} & set(at.tolist())
    episode = np.searchsorted(offsets, at, "right") - 1
    assert ((rows.places >= offsets[episode]) & (rows.places < offsets[episode + 1])).all()
    assert here[WARM_UP : WARM_UP + 2].all()
    steps = np.diff(rows.places, axis=0)
    assert (steps[here[1:] & here[:-1]] == 1).all() and (steps[~(here[1:] & here[:-1])] == 0).all()
    begins = np.where(here[0], rows.is_first[0], False) | (rows.is_first & here)[1:].any(axis=0)
    assert begins.all(), "M begins anew before the first real frame"
    assert not (rows.is_first & here)[1:][:, here[0] & (rows.places[0] > offsets[episode])].any(), "and only there"


def test_what_there_is_nothing_of_is_none() -> None:
    told = found(Counting(), counted([3, 2]))
    assert told["error_1"] == 0 and told["error_50"] is None and told["copied_error_5"] is None
