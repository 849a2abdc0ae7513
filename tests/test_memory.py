"""M against other implementations, itself step by step, and the contract of its loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from wm_jax.config.schema import MemoryConfig
from wm_jax.models import memory
from wm_jax.models.heads import LOG_SQRT_TWO_PI
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.models.memory import GRU, LSTM, MDNRNN, Carry, Sequences, loss_and_grad
from wm_jax.models.variables import combine, partition

T, B, Z, A, H, K = 7, 3, 4, 2, 8, 3


def make(**settings: Any) -> MDNRNN:
    return MDNRNN(MemoryConfig.model_validate({"hidden": H, "mixtures": K, **settings}), LatentKind(Z), A, nnx.Rngs(0))


def make_batch(key: int = 1, time: int = T) -> Sequences:
    keys = jax.random.split(jax.random.key(key), 5)
    return Sequences(
        latent=Gaussian(
            jax.random.normal(keys[0], (time + 1, B, Z)), jax.random.normal(keys[1], (time + 1, B, Z)) - 3.0
        ),
        action=jax.random.normal(keys[2], (time, B, A)),
        reward=jax.random.normal(keys[3], (time, B)),
        done=jax.random.bernoulli(keys[4], 0.3, (time, B)).astype(jnp.float32),
        is_first=jnp.zeros((time, B), bool),
        weight=jnp.ones((time, B)),
    )


def sharp(batch: Sequences) -> Sequences:
    """The same, without any noise in V's latents."""
    return batch._replace(latent=batch.latent._replace(log_var=jnp.full_like(batch.latent.log_var, -jnp.inf)))


def random_carry(model: MDNRNN, key: int = 9) -> Carry:
    zeros = model.init_carry(B)
    keys = jax.random.split(jax.random.key(key), len(zeros))
    return tuple(0.5 * jax.random.normal(k, state.shape) for k, state in zip(keys, zeros, strict=True))


def parameters(model: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_parameter_count_is_the_papers() -> None:
    paper = MemoryConfig.model_validate({})
    assert parameters(MDNRNN(paper, LatentKind(32), 3, nnx.Rngs(0))) == 422_368
    both = paper.model_copy(update={"reward_head": True, "done_head": True})
    assert parameters(MDNRNN(both, LatentKind(32), 3, nnx.Rngs(0))) == 422_368 + 2 * 257


def test_lstm_agrees_with_flax() -> None:
    ours, theirs = LSTM(A, H, False, nnx.Rngs(0)), nnx.LSTMCell(A, H, rngs=nnx.Rngs(1))
    for i, gate in enumerate("ifgo"):
        part = slice(i * H, (i + 1) * H)
        getattr(theirs, "if_" if gate == "f" else f"i{gate}").kernel[...] = ours.wx[...][:, part]
        getattr(theirs, f"h{gate}").kernel[...] = ours.wh[...][:, part]
        getattr(theirs, f"h{gate}").bias[...] = ours.b[...][part]
    x, h, c = (jax.random.normal(jax.random.key(i), (B, n)) for i, n in enumerate((A, H, H)))
    with jax.numpy_rank_promotion("allow"):
        (their_c, their_h), _ = theirs((c, h), x)
    for mine, other in zip(ours.step((h, c), x), (their_h, their_c), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_gru_agrees_with_flax() -> None:
    ours, theirs = GRU(A, H, False, nnx.Rngs(0)), nnx.GRUCell(A, H, rngs=nnx.Rngs(1))
    ours.b[...] = jax.random.normal(jax.random.key(5), (3 * H,))
    assert theirs.dense_i.bias is not None
    theirs.dense_i.kernel[...], theirs.dense_i.bias[...] = ours.wx[...], ours.b[...]
    theirs.dense_h.kernel[...] = ours.wh[...]
    x, h = (jax.random.normal(jax.random.key(i), (B, n)) for i, n in enumerate((A, H)))
    with jax.numpy_rank_promotion("allow"):
        their_h, _ = theirs(h, x)
    np.testing.assert_allclose(ours.step((h,), x)[0], their_h, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("fast", [False, True])
def test_unroll_is_repeated_step(cell: str, fast: bool) -> None:
    model, batch = make(cell=cell, fast_kernels=fast), make_batch()
    first = jnp.zeros((T, B), bool).at[3, 1].set(True)
    carry = start = random_carry(model)
    states = []
    for t in range(T):
        if t == 3:
            carry = tuple(state.at[1].set(0.0) for state in carry)
        carry = model.step(carry, batch.latent.mean[t], batch.action[t])
        states.append(carry[0])
    last, h = model.unroll(start, batch.latent.mean[:-1], batch.action, first)
    np.testing.assert_allclose(h, jnp.stack(states), atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), last, carry)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_state_sees_the_past_of_its_own_row_and_nothing_else(cell: str) -> None:
    """By gradient: h[t, b] depends on every z[s, b] with s <= t since the episode began, on no other."""
    model, batch = make(cell=cell), make_batch()
    first = jnp.zeros((T, B), bool).at[2, 0].set(True)

    def states(z: jax.Array) -> jax.Array:
        return model.unroll(model.init_carry(B), z, batch.action, first)[1].sum(-1)

    influence = jnp.abs(jax.jacrev(states)(batch.latent.mean[:-1])).sum(-1) > 0  # [T, B] by [T, B]
    for t, b, s, other in np.ndindex(T, B, T, B):
        expected = b == other and s <= t and not (b == 0 and s < 2 <= t)
        assert bool(influence[t, b, s, other]) == expected


def test_loss_is_what_the_definition_says() -> None:
    """Terms in NumPy-like steps; V's noise is switched off so that the target is known."""
    model = make(reward_head=True, done_head=True, done_weight=10.0)
    batch = sharp(make_batch())
    batch = batch._replace(weight=jnp.ones((T, B)).at[4:, 2].set(0.0))
    loss, (metrics, _) = model.loss(batch, model.init_carry(B), jax.random.key(0))
    _, h = model.unroll(model.init_carry(B), batch.latent.mean[:-1], batch.action, batch.is_first)
    prediction = model.predict(h)
    assert prediction.reward is not None and prediction.done_logit is not None
    probability = np.asarray(jax.nn.sigmoid(prediction.done_logit), np.float64)
    done, mask = np.asarray(batch.done), np.asarray(batch.weight) > 0
    entropy = np.where(done > 0, -10.0 * np.log(probability), -np.log(1 - probability))
    expected = {
        # A frame behind an end is shown by no dream.
        "nll": -np.asarray(prediction.latent.log_prob(batch.latent.mean[1:]))[mask & (done == 0)].mean(),
        "reward": np.square(np.asarray(prediction.reward - batch.reward))[mask].mean()
        / np.square(np.asarray(batch.reward))[mask].mean(),
        "done": entropy[mask].mean(),
    }
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5), name
    assert float(loss) == pytest.approx(expected["nll"] / Z + expected["reward"] + expected["done"], rel=1e-5)
    assert float(metrics["loss"]) == float(loss)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_rewards_count_alike_whatever_they_are_measured_in(scale: float) -> None:
    """The loss and the gradient are the same; what is predicted is in the game's own measure."""
    found = []
    for factor in (1.0, scale):
        model, batch = make(reward_head=True), make_batch()
        batch = batch._replace(reward=batch.reward * factor)
        graphdef, variables = nnx.split(model)
        metrics, _, gradients, others = loss_and_grad(
            graphdef, variables, batch, model.init_carry(B), jax.random.key(0)
        )
        used = nnx.merge(graphdef, combine(partition(variables)[0], others))
        says = used.predict(jnp.ones((1, H))).reward
        assert says is not None
        found.append((metrics, gradients, says / factor))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), *found)


def test_the_unit_of_rewards_is_that_of_all_that_were_trained_on() -> None:
    model, batch = make(reward_head=True), make_batch()._replace(weight=jnp.ones((T, B)))
    assert float(model.reward_unit) == 1.0
    for reward in (0.0, 3.0, 4.0):
        model.loss(batch._replace(reward=jnp.full((T, B), reward)), model.init_carry(B), jax.random.key(0))
    assert float(model.reward_unit) == pytest.approx(np.sqrt((9 + 16) / 2)), "from the first reward on"
    model.loss(batch._replace(reward=jnp.zeros((T, B))), model.init_carry(B), jax.random.key(0))
    assert float(model.reward_unit) == pytest.approx(np.sqrt((9 + 16 + 0) / 3))
    model.loss(batch._replace(reward=jnp.full((T, B), 99.0)), model.init_carry(B), jax.random.key(0), training=False)
    assert float(model.reward_unit) == pytest.approx(np.sqrt((9 + 16 + 0) / 3)), "held-out rewards teach nothing"


def test_z_is_drawn_from_the_posterior_afresh() -> None:
    """With no memory and one wide component the expected NLL is known: it grows with V's variance."""
    model = make(mixtures=1)
    model.kernel[...] = jnp.zeros_like(model.kernel[...])
    batch = make_batch()._replace(latent=Gaussian(jnp.zeros((T + 1, B, Z)), jnp.full((T + 1, B, Z), np.log(4.0))))
    keys = jax.random.split(jax.random.key(0), 400)
    losses = jax.vmap(lambda key: model.loss(batch, model.init_carry(B), key)[1][0]["nll"])(keys)
    assert losses.std() > 0.1
    expected = Z * (LOG_SQRT_TWO_PI + 0.5 * 4.0)  # E[z^2] / 2 with z from N(0, 4), density N(0, 1)
    assert float(losses.mean()) == pytest.approx(expected, rel=0.02)


def test_dropout_leaves_out_the_same_outputs_at_all_times() -> None:
    """What an output that is left out is multiplied by learns nothing, from no step of its window."""
    whole, thinned, batch = make(), make(dropout=0.5), jax.tree.map(lambda leaf: leaf[:, :1], make_batch())
    graphdef, variables = nnx.split(thinned)
    learning = []
    for key in range(20):
        gradients = loss_and_grad(graphdef, variables, batch, thinned.init_carry(1), jax.random.key(key))[2]
        learning.append(np.abs(np.asarray(gradients["kernel"][...])).max(axis=1) > 0)
    assert 0.3 < np.mean(learning) < 0.7 and len({tuple(row) for row in np.array(learning)}) > 10
    of = {
        name: model.loss(batch, model.init_carry(1), jax.random.key(0), training=name == "training")[0]
        for name, model in {"training": thinned, "used": thinned, "without": whole}.items()
    }
    assert of["used"] == of["without"] != of["training"]


def test_outputs_that_dropout_leaves_are_as_much_larger() -> None:
    mask = make(dropout=0.25).mask(jax.random.key(0), 1000)
    assert mask is not None and mask.shape == (1000, H)
    np.testing.assert_allclose(np.unique(mask), [0, 4 / 3])
    assert float(mask.mean()) == pytest.approx(1, abs=0.02)
    assert make().mask(jax.random.key(0), 5) is None


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_masked_entries_cannot_leak(cell: str) -> None:
    """NaN in every entry that no real step uses changes neither loss nor state nor gradient."""
    model, clean = make(cell=cell, reward_head=True, done_head=True), make_batch()
    # Row 0: padded from step 4 on. Row 1: one episode ends with frame 3, the next begins with frame 4.
    mask = clean.weight.at[4:, 0].set(0.0).at[3, 1].set(0.0)
    clean = clean._replace(weight=mask, is_first=clean.is_first.at[4, 1].set(True))
    unused_step = mask == 0
    unused_frame = jnp.zeros((T + 1, B), bool).at[5:, 0].set(True)
    dirty = clean._replace(
        latent=jax.tree.map(lambda each: jnp.where(unused_frame[..., None], jnp.nan, each), clean.latent),
        action=jnp.where(unused_step[..., None], jnp.nan, clean.action),
        reward=jnp.where(unused_step, jnp.nan, clean.reward),
        done=jnp.where(unused_step, jnp.nan, clean.done),
    )
    graphdef, params = nnx.split(model)
    results = [
        loss_and_grad(graphdef, params, batch, model.init_carry(B), jax.random.key(3)) for batch in (clean, dirty)
    ]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results[1]))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_a_wholly_masked_batch_has_zero_loss() -> None:
    model, batch = make(), make_batch()
    loss, _ = model.loss(batch._replace(weight=jnp.zeros((T, B))), model.init_carry(B), jax.random.key(0))
    assert float(loss) == 0.0


def test_rows_do_not_see_each_other() -> None:
    """The gradient of the loss with only row 0 real is that of the same row among other neighbours."""
    model, batch = make(reward_head=True), make_batch()
    batch = batch._replace(weight=jnp.zeros((T, B)).at[:, 0].set(1.0))
    other = jax.tree.map(lambda a, b: jnp.concatenate([a[:, :1], b[:, 1:]], axis=1), batch, make_batch(2))
    other = other._replace(weight=batch.weight)
    graphdef, params = nnx.split(model)
    first, second = (
        loss_and_grad(graphdef, params, each, model.init_carry(B), jax.random.key(0)) for each in (batch, other)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), first[2], second[2])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_carried_state_makes_windows_one_sequence(cell: str) -> None:
    model = make(cell=cell)
    batch = sharp(make_batch(time=6))._replace(done=jnp.zeros((6, B)))  # so that each part has as many steps
    start, key = random_carry(model), jax.random.key(0)
    _, (whole, last) = model.loss(batch, start, key)
    parts, carry = [], start
    for begin in (0, 3):
        part = jax.tree.map(lambda x, begin=begin: x[begin : begin + 3 + (x.shape[0] == 7)], batch)
        _, (metrics, carry) = model.loss(part, carry, key)
        parts.append(metrics["nll"])
    assert float(sum(parts)) / 2 == pytest.approx(float(whole["nll"]), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carry, last)


def test_chunks_of_the_loss_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(reward_head=True, done_head=True), make_batch(time=6)
    graphdef, params = nnx.split(model)
    whole = loss_and_grad(graphdef, params, batch, model.init_carry(B), jax.random.key(0))
    monkeypatch.setattr("wm_jax.models.memory.HEAD_ROWS", 2 * B)
    chunked = loss_and_grad(graphdef, params, batch, model.init_carry(B), jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), chunked, whole)


@pytest.mark.parametrize(
    ("time", "most", "size"), [(1000, 20, 20), (1000, 16, 10), (5, 20, 5), (997, 20, 20), (14, 4, 4)]
)
def test_chunks_are_long_whatever_the_sequence(time: int, most: int, size: int) -> None:
    assert memory._chunk(time, most) == size


def test_a_sequence_of_prime_length_is_padded_and_not_cut_into_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(reward_head=True, done_head=True), make_batch(time=7)
    graphdef, params = nnx.split(model)
    whole = loss_and_grad(graphdef, params, batch, model.init_carry(B), jax.random.key(0))
    monkeypatch.setattr(memory, "HEAD_ROWS", 4 * B)

    def padded(params: Any) -> Any:
        return loss_and_grad(graphdef, params, batch, model.init_carry(B), jax.random.key(0))

    scans = [line for line in str(jax.make_jaxpr(padded)(params)).splitlines() if "length=" in line]
    assert any("length=2" in line for line in scans), scans
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), padded(params), whole)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (3, 2, 2)])
def test_rows_are_zeroed_whatever_axes_follow(shape: tuple[int, ...]) -> None:
    """Also where an axis is as long as the batch, or where the batch is one row."""
    for fresh in ([True, False], [False, True], [True]):
        state = jnp.ones((len(fresh), *shape))
        (left,) = memory.restart((state,), jnp.array(fresh), (jnp.zeros((1, *shape)),))
        for row, new in zip(left, fresh, strict=True):
            np.testing.assert_array_equal(row, np.full(shape, 0.0 if new else 1.0))


def learn(model: MDNRNN, batch: Sequences, rate: float) -> jax.Array:
    """M's negative log likelihoods in 150 updates on one batch."""
    graphdef, params = nnx.split(model)
    optimizer, carry = optax.adam(rate), model.init_carry(batch.weight.shape[1])

    @jax.jit
    def train(params: Any) -> jax.Array:
        def update(loop: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            params, state = loop
            metrics, _, gradients, _ = loss_and_grad(graphdef, params, batch, carry, key)
            updates, state = optimizer.update(gradients, state)
            return (optax.apply_updates(params, updates), state), metrics["nll"]

        keys = jax.random.split(jax.random.key(1), 150)
        return jax.lax.scan(update, (params, optimizer.init(params)), keys)[1]

    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam relies on it.
        return train(params)


def test_training_learns_a_rule_that_needs_memory() -> None:
    """z_{t+1} repeats the action of two steps ago: from z_t and a_t alone it cannot be told."""
    model = make(hidden=16)
    actions = jax.random.bernoulli(jax.random.key(0), 0.5, (41, 32, 1)).astype(jnp.float32) * 2.0 - 1.0
    z = jnp.repeat(jnp.roll(actions, 2, axis=0), Z, axis=-1)
    blank = jnp.zeros((40, 32))
    batch = Sequences(
        latent=Gaussian(z, jnp.full(z.shape, -6.0)),
        action=jnp.repeat(actions[:-1], A, axis=-1),
        reward=blank,
        done=blank,
        is_first=jnp.zeros((40, 32), bool),
        weight=jnp.ones((40, 32)).at[:2].set(0.0),
    )
    losses = learn(model, batch, 0.02)
    # Guessing the sign costs log 2 nats more per dimension than knowing it.
    entropy = Z * (LOG_SQRT_TWO_PI + 0.5 - 3.0)
    assert float(losses[-1]) < entropy + 0.5 * Z * np.log(2.0)
