"""The dream: M as a game (Ha & Schmidhuber 2018, section 4), whose observation is the z that M predicts.

Like any game on the device it is started by seeds and stepped by actions, thousands of episodes at once, and it makes
one program with the agent that plays it. V decodes only what somebody looks at.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int32, Key

from wm_jax.config.schema import Ends, MemoryConfig
from wm_jax.envs.types import DeviceGame, Game
from wm_jax.models.memory import MDNRNN, Carry, Prediction
from wm_jax.models.vae import Vae
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

WARM_UP_ROWS = 16
"""Dreams that are warmed up together."""


class Beginnings(NamedTuple):
    """Real frames that dreams may go on from: N stretches of W + 1 frames.

    latent: of the frames (`models.latents`), its arrays [N, W + 1, ...]. The dream begins at the last one; M sees those
      before it first.
    action: float32[N, W, A], encoded: those taken at all frames but the last.
    """

    latent: Any
    action: Float32[np.ndarray, "N W A"]


class DreamParams(NamedTuple):
    """What S dreams are dreamt by, and where they begin.

    vae, memory: variables of V and M.
    temperature: tau, how uncertain the dream is (`Distribution.sample`).
    z: of the first frame.
    carry: M's state before that frame, its arrays [S, ...].
    keys: of all that is drawn in each dream.
    """

    vae: Any
    memory: Any
    temperature: Float[Array, ""]
    z: Float[Array, "S Z"]
    carry: Carry
    keys: Key[Array, "S"]


class DreamState(NamedTuple):
    """One dream, between two steps.

    z: what is observed now.
    carry: M's state before it, [1, ...].
    key: of all that is drawn.
    shown: int32[], frames so far.
    """

    z: Float[Array, "Z"]
    carry: Carry
    key: Key[Array, ""]
    shown: Int32[Array, ""]


class Dream(DeviceGame):
    """A game as V and M know it. Each instance is compiled for itself."""

    has_products = True

    def __init__(
        self,
        game: Game,
        vae: Vae,
        memory: MDNRNN,
        beginnings: Beginnings,
        *,
        temperature: float = 1.0,
        ends: Ends = "threshold",
        episode_steps: int | None = None,
    ):
        """The dream.

        Args:
          game: that it is the dream of.
          vae: V, for what z its codes stand for.
          memory: M. Its head for rewards says them, unless they are always the same (`Game.step_reward`); without both
            there are none. Without a head for ends, the last step is the only one.
          beginnings: where dreams may begin.
          temperature: tau, how uncertain the dream is (`Distribution.sample`).
          ends: where M's head for ends thinks one likelier than not, as in the paper's code; or as often as it says; or
            only after so many steps.
          episode_steps: of the longest dream, if that of the game is not shorter.
        """
        self.name, self.actions = f"the dream of {game.title}", game.actions
        self.episode_steps = game.up_to(episode_steps).episode_steps
        self.fps, self.unit, self.solved = game.fps, game.unit, game.solved
        self._step_reward = game.step_reward
        self.beginnings, self.temperature, self.ends = beginnings, temperature, ends
        (self._vae, vae_variables), (self._memory, memory_variables) = nnx.split(vae), nnx.split(memory)
        self._variables = vae_variables, memory_variables

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def params_for(self, seeds: Sequence[int]) -> DreamParams:
        """See `DeviceGame`: a seed decides the beginning, and all that is drawn."""
        count = len(self.beginnings.action)
        rows = np.array([streams.generator(seed, "dream").integers(count) for seed in seeds])
        keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))
        vae, memory = self._variables
        pieces = []
        # Pieces of one size, for a row's bits depend on how many are multiplied together.
        for start in range(0, len(rows), WARM_UP_ROWS):
            here = np.arange(start, start + WARM_UP_ROWS).clip(max=len(rows) - 1)
            latent, action = jax.tree.map(lambda leaf, here=here: leaf[rows[here]], self.beginnings)
            pieces.append(_warmed_up(self._memory, memory, latent, action, keys[here]))
        z, carry = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(rows)], *pieces)
        return DreamParams(vae, memory, jnp.float32(self.temperature), z, carry, keys)

    def start(self, params: DreamParams, place: Array) -> tuple[Float[Array, "Z"], DreamState]:
        """See `DeviceGame`."""
        carry = jax.tree.map(lambda leaf: leaf[place][None], params.carry)
        state = DreamState(params.z[place], carry, params.keys[place], jnp.int32(1))
        return state.z, state

    def step(
        self, params: DreamParams, state: DreamState, action: Array
    ) -> tuple[Float[Array, "Z"], DreamState, Float[Array, ""], Bool[Array, ""]]:
        """See `DeviceGame`: P(z_{t+1}, r_t, d_t | z_t, a_t, h_t), equation in 4.1 of the paper."""
        memory = nnx.merge(self._memory, params.memory)
        encoded = self.actions.encode(self.actions.from_game(action))
        carry = memory.step(state.carry, state.z[None], encoded[None])
        expected = memory.predict(memory.output(carry))
        drawing, ending = jax.random.split(jax.random.fold_in(state.key, state.shown))
        target = expected.latent.sample(drawing, params.temperature)
        z = nnx.merge(self._vae, params.vae).embed(target)[0]
        reward = self._reward(expected)
        return z, DreamState(z, carry, state.key, state.shown + 1), reward, self._ended(memory, expected, ending)

    def _reward(self, expected: Prediction) -> Float[Array, ""]:
        if self._step_reward is not None or expected.reward is None:
            return jnp.float32(self._step_reward or 0.0)
        return expected.reward[0]

    def _ended(self, memory: MDNRNN, expected: Prediction, key: Key[Array, ""]) -> Bool[Array, ""]:
        if expected.done_logit is None or self.ends == "never":
            return jnp.bool_(False)
        logit = expected.done_logit[0]
        if self.ends == "threshold":
            return logit > 0
        # In training an end counted `done_weight` times, which adds its logarithm to the log odds.
        return jax.random.bernoulli(key, jax.nn.sigmoid(logit - jnp.log(memory.config.done_weight)))


def require_heads(config: MemoryConfig, game: Game, ends: Ends) -> None:
    """See that M predicts what there is to learn from in a dream.

    Args:
      config: of M, be it trained or not.

    Raises:
      UserError: it does not.
    """
    known = {
        "reward": config.reward_head or game.step_reward is not None,
        "done": config.done_head or ends == "never",
    }
    for head, is_known in known.items():
        if not is_known:
            raise UserError(
                f"M predicts no {head}, and there is nothing to learn in such a dream: train it with "
                f"--memory.{head}_head true (bin/train_memory --fresh)"
            )


@partial(jax.jit, static_argnums=0)
def _warmed_up(
    graphdef: nnx.GraphDef[Any], variables: Any, latent: Any, action: Float[Array, "S W A"], keys: Key[Array, "S"]
) -> tuple[Float[Array, "S Z"], Carry]:
    """The first z, and M's state before it, of dreams whose frames z is drawn of with their keys."""
    memory = nnx.merge(graphdef, variables)
    z = jax.vmap(lambda row, key: row.sample(jax.random.fold_in(key, 0)))(latent, keys)
    before, first = jnp.swapaxes(z[:, :-1], 0, 1), z[:, -1]
    carry = memory.init_carry(len(first))
    if before.shape[0]:
        carry, _ = memory.unroll(carry, before, jnp.swapaxes(action, 0, 1), jnp.zeros(before.shape[:2], bool))
    return first, carry
