"""M, the memory: a recurrent network that predicts the next latent as a mixture density (Ha & Schmidhuber 2018, A.2).

The state *before* frame t is what the controller sees beside z_t; the state after (z_t, a_t) predicts z_{t+1}, and
with the optional heads the reward of step t and whether the episode ends there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from wm_jax.config.schema import CustomMemoryConfig, MemoryConfig
from wm_jax.kernels import native
from wm_jax.kernels.lstm import Formulation, LstmParams, lstm, lstm_step
from wm_jax.kernels.summed import summed
from wm_jax.models.heads import CategoricalHead, Distribution, Head, MixtureHead, dense
from wm_jax.models.latents import LatentKind
from wm_jax.models.variables import Buffer, value_and_grad
from wm_jax.utils.arrays import choose_rows
from wm_jax.utils.errors import UserError
from wm_jax.utils.user_classes import make_custom

Carry = Any
"""The state of B episodes: any pytree of arrays [B, ...], such as (h, c) [B, H] of an LSTM."""

DROPOUT = 2**32 - 1
"""Which of an update's random streams dropout has: none of those that `split` makes for the parts of a z."""
RATE_OF_ENDS = 1e-3
"""Of steps, before anything is learned."""
HEAD_ROWS = 2048
"""States whose mixtures are computed at once in training: bounds the memory of the loss and keeps it in cache."""


class Sequences(NamedTuple):
    """A batch of windows out of episodes, time first. Entries with weight 0 may hold anything, NaN included.

    latent: of frames 0..T (`models.latents`), its arrays [T+1, B, ...].
    action: encoded (`ActionSpace.encode`), the one taken at frame t.
    reward: received for that action.
    done: 1 where frame t+1 is terminal.
    is_first: frame t begins an episode: the state begins anew before it.
    weight: how much the step counts; 0 where it is not real: frame t+1 does not belong to the same episode as frame t.
    """

    latent: Any
    action: Float[Array, "T B A"]
    reward: Float[Array, "T B"]
    done: Float[Array, "T B"]
    is_first: Bool[Array, "T B"]
    weight: Float[Array, "T B"]


class Prediction(NamedTuple):
    """What M expects after a step.

    latent: of what follows: `Latent.target` of frame t+1.
    reward: None without that head.
    done_logit: log odds that the episode ends, or None without that head.
    """

    latent: Distribution
    reward: Float[Array, "*lead"] | None
    done_logit: Float[Array, "*lead"] | None


@runtime_checkable
class Cell(Protocol):
    """The replaceable part of M.

    Attributes:
      hidden: H, the size of its output.
    """

    hidden: int

    def init_carry(self, n: int) -> Carry:
        """The state at the start of n episodes."""
        ...

    def step(self, carry: Carry, x: Float[Array, "B I"]) -> Carry:
        """One step."""
        ...

    def unroll(
        self, carry: Carry, x: Float[Array, "T B I"], is_first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B H"]]:
        """A sequence, from `init_carry` where is_first: the last state, and h after every step."""
        ...

    def visible(self, carry: Carry) -> tuple[Float[Array, "B H"], ...]:
        """What the controller may see of a state: the output h, and where there is one an LSTM's c."""
        ...


class LSTM(nnx.Module):
    """Hochreiter & Schmidhuber 1997; weights start as in the paper's code (Glorot, forget bias 1)."""

    def __init__(self, inputs: int, hidden: int, fast: bool, rngs: nnx.Rngs):
        self.hidden = hidden
        self.formulation: Formulation = _fastest() if fast else "plain"
        kernel = _glorot(rngs, inputs + hidden, 4 * hidden)
        self.wx, self.wh = nnx.Param(kernel[:inputs]), nnx.Param(kernel[inputs:])
        self.b = nnx.Param(jnp.zeros(4 * hidden, jnp.float32).at[hidden : 2 * hidden].set(1.0))

    @property
    def _params(self) -> LstmParams:
        return LstmParams(self.wx[...], self.wh[...], self.b[...])

    def init_carry(self, n: int) -> Carry:
        """See `Cell`."""
        return jnp.zeros((n, self.hidden), jnp.float32), jnp.zeros((n, self.hidden), jnp.float32)

    def step(self, carry: Carry, x: Float[Array, "B I"]) -> Carry:
        """See `Cell`."""
        h, c = carry
        return lstm_step(self._params, (h, c), x)

    def unroll(
        self, carry: Carry, x: Float[Array, "T B I"], is_first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B H"]]:
        """See `Cell`."""
        h, c = carry
        return lstm(self._params, (h, c), x, is_first, self.formulation)

    def visible(self, carry: Carry) -> tuple[Float[Array, "B H"], ...]:
        """See `Cell`: h and c."""
        return carry


class GRU(nnx.Module):
    """Cho et al. 2014, with the reset gate after the recurrent product as in cuDNN and Flax."""

    def __init__(self, inputs: int, hidden: int, fast: bool, rngs: nnx.Rngs):
        del fast  # There is no hand-derived gradient for this cell.
        self.hidden = hidden
        kernel = _glorot(rngs, inputs + hidden, 3 * hidden)
        self.wx, self.wh = nnx.Param(kernel[:inputs]), nnx.Param(kernel[inputs:])
        self.b = nnx.Param(jnp.zeros(3 * hidden, jnp.float32))

    def init_carry(self, n: int) -> Carry:
        """See `Cell`."""
        return (jnp.zeros((n, self.hidden), jnp.float32),)

    def step(self, carry: Carry, x: Float[Array, "B I"]) -> Carry:
        """See `Cell`."""
        (h,) = carry
        reset_x, update_x, candidate_x = jnp.split(x @ self.wx[...] + self.b[...][None, :], 3, axis=-1)
        reset_h, update_h, candidate_h = jnp.split(h @ self.wh[...], 3, axis=-1)
        reset, update = jax.nn.sigmoid(reset_x + reset_h), jax.nn.sigmoid(update_x + update_h)
        candidate = jnp.tanh(candidate_x + reset * candidate_h)
        return ((1.0 - update) * candidate + update * h,)

    def unroll(
        self, carry: Carry, x: Float[Array, "T B I"], is_first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B H"]]:
        """See `Cell`."""
        begin = self.init_carry(1)

        def step(carry: Carry, now: tuple[Array, Array]) -> tuple[Carry, Array]:
            x, is_first = now
            carry = self.step(restart(carry, is_first, begin), x)
            return carry, carry[0]

        return lax.scan(step, carry, (x, is_first))

    def visible(self, carry: Carry) -> tuple[Float[Array, "B H"], ...]:
        """See `Cell`: h alone."""
        return carry


CELLS: dict[str, Callable[[int, int, bool, nnx.Rngs], Any]] = {"lstm": LSTM, "gru": GRU}
"""The value of `memory.cell` -> cell from (inputs, hidden, fast, rngs), an NNX module that is a `Cell`."""


def make_cell(config: MemoryConfig, inputs: int, rngs: nnx.Rngs) -> Any:
    """The `Cell` of `config.cell`, an NNX module with fresh weights.

    Raises:
      UserError: the user's own class makes something that is no `Cell`.
    """
    given = inputs, config.hidden, config.fast_kernels, rngs
    if not isinstance(config, CustomMemoryConfig):
        return CELLS[config.cell](*given)
    option = f"memory.cell {config.cell}"
    cell = make_custom(config.cell, option, *given, **config.options)
    if not isinstance(cell, Cell) or not isinstance(cell, nnx.Module):
        raise UserError(f"{option}: it makes {type(cell).__name__}, no NNX module that is a wm_jax.models.memory.Cell")
    return cell


def restart(carry: Carry, is_first: Bool[Array, "B"], begin: Carry) -> Carry:
    """Begin anew in the rows where is_first is true, whatever axes come after them.

    Args:
      begin: the state of one episode at its start, [1, ...].
    """
    return choose_rows(is_first, begin, carry)


class MDNRNN(nnx.Module):
    """M: a cell on [z, encoded action], and one dense layer for the next latent and the optional heads.

    The head for rewards counts them in units of the root of their mean square, over all that were trained on so far: in
    one game a reward is 100, in another 0.04; neither is to drown the loss's other terms, nor to drown in them.

    Args:
      config: settings of M.
      latent: the kind of V's latents.
      action: A, the size of the encoded action.
      rngs: for the initial weights.
    """

    def __init__(self, config: MemoryConfig, latent: LatentKind, action: int, rngs: nnx.Rngs):
        self.config = config
        self.latent = latent
        self.action = action
        self.cell = make_cell(config, latent.size + action, rngs)
        mixture = MixtureHead(latent.size, config.mixtures, config.fast_kernels)
        self.head: Head = CategoricalHead(*latent.classes) if latent.classes else mixture
        outputs = self.head.outputs + config.reward_head + config.done_head
        self.kernel = nnx.Param(_glorot(rngs, self.cell.hidden, outputs))
        bias = jnp.zeros(outputs, jnp.float32)
        if config.done_head:  # where nothing was learned, there is no end
            bias = bias.at[-1].set(jnp.log(config.done_weight * RATE_OF_ENDS))
        self.bias = nnx.Param(bias)
        # Of rewards: the sum of the batches' mean squares, and how many batches there were.
        self.reward_squares = Buffer(jnp.zeros(2, jnp.float32)) if config.reward_head else None

    def init_carry(self, n: int) -> Carry:
        """The state at the start of n episodes."""
        return self.cell.init_carry(n)

    def visible(self, carry: Carry) -> tuple[Float[Array, "B H"], ...]:
        """What the controller may see of a state: h, and c where the cell has one."""
        return self.cell.visible(carry)

    def output(self, carry: Carry) -> Float[Array, "B H"]:
        """h, from which `predict` reads what comes next."""
        return self.cell.visible(carry)[0]

    def step(self, carry: Carry, z: Float[Array, "B Z"], action: Float[Array, "B A"]) -> Carry:
        """Feed one frame and its action."""
        return self.cell.step(carry, jnp.concatenate([z, action], axis=-1))

    def unroll(
        self, carry: Carry, z: Float[Array, "T B Z"], action: Float[Array, "T B A"], is_first: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B H"]]:
        """Feed a sequence, from the start of an episode where is_first.

        Returns:
          the last state, and h after every step.
        """
        return self.cell.unroll(carry, jnp.concatenate([z, action], axis=-1), is_first)

    def predict(self, h: Float[Array, "*lead H"]) -> Prediction:
        """What follows h."""
        raw, size = dense(h, self.kernel[...], self.bias[...]), self.head.outputs
        reward, done_logit = self._scalars(raw[..., size:])
        if reward is not None:
            reward = reward * self.reward_unit
        return Prediction(self.head.read(raw[..., :size]), reward, done_logit)

    @property
    def reward_unit(self) -> Float[Array, ""]:
        """The root of the rewards' mean square so far; 1 before there were any."""
        if self.reward_squares is None:
            return jnp.float32(1.0)
        total, count = self.reward_squares[...]
        return jnp.where(total > 0, jnp.sqrt(total / jnp.maximum(count, 1.0)), 1.0)

    def _scalars(self, raw: Float[Array, "*lead _"]) -> tuple[Array | None, Array | None]:
        """The reward in units of `reward_unit` and the log odds of an end, of the layer's outputs behind those for the
        latent; None: no head.
        """
        heads = iter(range(raw.shape[-1]))
        return (
            raw[..., next(heads)] if self.config.reward_head else None,
            raw[..., next(heads)] if self.config.done_head else None,
        )

    def end_probability(self, done_logit: Float[Array, "*lead"]) -> Float[Array, "*lead"]:
        """How likely an end is.

        In training one counted `done_weight` times, which added that number's logarithm to the log odds.
        """
        return jax.nn.sigmoid(done_logit - jnp.log(self.config.done_weight))

    def mask(self, key: Key[Array, ""], n: int) -> Float[Array, "n H"] | None:
        """What h is multiplied by before `predict` in n windows, or dreams: 0 in places that they do without, the same
        throughout (Gal & Ghahramani 2016); None without dropout.
        """
        kept = 1.0 - self.config.dropout
        if kept == 1.0:
            return None
        return jax.random.bernoulli(key, kept, (n, self.cell.hidden)).astype(jnp.float32) / kept

    def loss(
        self, batch: Sequences, carry: Carry, key: Key[Array, ""], *, training: bool = True
    ) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, ""]], Carry]]:
        """Nll / Z (or classes) + reward + done, each a weighted mean over the real steps of the batch.

        A frame behind an end counts nothing: no dream shows it, and M would learn to show it before an end as well.

        The paper's code averages the negative log likelihood over time, batch *and latent dimensions*; the gradient
        clipping and `done_weight` are meant for that scale, so the loss keeps it. The metric is the sum over Z.

        Args:
          batch: windows; z is drawn from their latents here, afresh in every call.
          carry: state before the windows.
          key: for that draw.
          training: with dropout, where there is any.

        Returns:
          the loss, and (metrics, state after the windows). Metrics: loss; nll in nats per step, summed over Z;
          reward (squared error, in squares of `reward_unit`) and done (cross-entropy, ending steps weighted by
          `done_weight`) with those heads.
        """
        # P(z_{t+1} | a_t, z_t, h_t) with z drawn from N(mu_t, sigma_t): Ha & Schmidhuber 2018, 2.2 and A.2.
        z, target = batch.latent.sample(key), batch.latent.target(key)
        real = batch.weight > 0
        # Cleaned rather than only weighted by 0 afterwards: 0 * NaN is NaN.
        inputs, target, action = (
            jnp.where(real[..., None], x, jnp.zeros((), x.dtype)) for x in (z[:-1], target[1:], batch.action)
        )
        reward, done = (jnp.where(real, x, 0.0) for x in (batch.reward, batch.done))
        carry, h = self.unroll(carry, inputs, action, batch.is_first)
        if training and (mask := self.mask(jax.random.fold_in(key, DROPOUT), h.shape[1])) is not None:
            h = h * mask[None]
        weight, followed = _shares(batch.weight), _shares(batch.weight * (1.0 - done))
        if training and self.reward_squares is not None:
            square = (jnp.square(reward) * weight).sum()
            # From the first reward on: were the batches before it counted, its own would be large beside their mean.
            known = (self.reward_squares[0] + square > 0).astype(jnp.float32)
            self.reward_squares[...] += jnp.stack([square, known])
        loss, metrics = self._mean_terms(h, target, reward / self.reward_unit, done, weight, followed)
        return loss, ({"loss": loss, **metrics}, carry)

    def _mean_terms(
        self, h: Array, target: Array, reward: Array, done: Array, weight: Array, followed: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The loss and its terms, means by the given weights of the steps, a few time steps at once.

        Args:
          reward: in units of `reward_unit`.
          followed: the weights for what is said of the next frame.
        """

        def chunk(head: tuple[Array, Array], h: Array, constants: Any) -> tuple[Array, dict[str, Array]]:
            (target, reward, done, weight, followed), (kernel, bias) = constants, head
            size, rows = self.head.outputs, weight.size
            flat_h, flat_target = h.reshape(rows, -1), target.reshape(rows, -1)
            nll = self.head.nll(flat_h, kernel[:, :size], bias[:size], flat_target)
            terms = {"nll": (nll * followed.reshape(rows)).sum()}
            expected_reward, done_logit = self._scalars(dense(h, kernel[:, size:], bias[size:]))
            if expected_reward is not None:
                terms["reward"] = (jnp.square(expected_reward - reward) * weight).sum()
            if done_logit is not None:
                entropy = optax.sigmoid_binary_cross_entropy(done_logit, done)
                terms["done"] = (entropy * (1.0 + done * (self.config.done_weight - 1.0)) * weight).sum()
            loss = terms["nll"] / self.head.predicted + terms.get("reward", 0.0) + terms.get("done", 0.0)
            return loss, terms

        time, batch = weight.shape
        size = _chunk(time, max(HEAD_ROWS // batch, 1))
        lacking = -time % size

        def chunked(x: Array) -> Array:
            if lacking:  # steps of weight 0
                x = jnp.pad(x, ((0, lacking), *[(0, 0)] * (x.ndim - 1)))
            return x.reshape(-1, size, *x.shape[1:])

        parts = jax.tree.map(chunked, (h, (target, reward, done, weight, followed)))
        return summed(chunk, (self.kernel[...], self.bias[...]), *parts)


def _shares(weight: Array) -> Array:
    """Of the sum; zeros of zeros."""
    total = weight.sum()
    return weight / jnp.where(total > 0, total, 1.0)


def loss_and_grad(
    graphdef: nnx.GraphDef, variables: Any, batch: Sequences, carry: Carry, key: Key[Array, ""]
) -> tuple[dict[str, Float[Array, ""]], Carry, Any, Any]:
    """One update's worth of work; to be called inside `jax.jit`.

    Args:
      graphdef, variables: of `nnx.split(MDNRNN(...))`.
      batch, carry, key: see `MDNRNN.loss`.

    Returns:
      metrics, the state after the windows (without gradient), gradients like the parameters, and the other variables
      after the update (see `models.variables`).
    """
    _, (metrics, carry), gradients, others = value_and_grad(
        graphdef, variables, lambda memory: memory.loss(batch, carry, key)
    )
    return metrics, carry, gradients, others


def gradient_of(graphdef: nnx.GraphDef, carried: bool) -> Callable[..., Any]:
    """The gradient of M's loss as the training loop takes it (`task.Gradient`).

    Args:
      carried: the state after a batch is handed on to the next one.
    """

    def gradient(
        params: Any, batch: Sequences, carry: Carry, key: jax.Array, step: jax.Array
    ) -> tuple[Any, Any, Any, Any]:
        metrics, after, gradients, others = loss_and_grad(graphdef, params, batch, carry, key)
        return metrics, after if carried else carry, gradients, others

    return gradient


def _fastest() -> Formulation:
    return "native" if native.available() else "derived"


def _glorot(rngs: nnx.Rngs, inputs: int, outputs: int) -> Array:
    return jax.nn.initializers.glorot_uniform()(rngs.params(), (inputs, outputs), jnp.float32)


def _chunk(time: int, most: int) -> int:
    """Into chunks of how many steps, at most `most`, a sequence is cut: without a remainder unless they get short."""
    most = min(time, most)
    divisor = max(size for size in range(1, most + 1) if time % size == 0)
    return divisor if 2 * divisor > most else -(-time // -(-time // most))
