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
from wm_jax.models.agent import Remembered
from wm_jax.models.memory import MDNRNN, Carry, Prediction
from wm_jax.models.vae import Vae
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

WARM_UP_ROWS = 16
"""Dreams that are warmed up together."""
DREAM = 2**32 - 3
"""Of a seed's random streams: which a dream draws from."""
MEMBER, MASK = 2**32 - 1, 2**32 - 2
"""Of a dream's random streams: which M it is that of, and what that M does without. The others are its frames'."""


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

    vae, memories: variables of V, and of each M.
    temperature: tau, how uncertain the dream is (`Distribution.sample`).
    z: of the first frame.
    carries: each M's state before that frame, its arrays [S, ...].
    keys: of all that is drawn in each dream.
    """

    vae: Any
    memories: tuple[Any, ...]
    temperature: Float[Array, ""]
    z: Float[Array, "S Z"]
    carries: tuple[Carry, ...]
    keys: Key[Array, "S"]


class DreamState(NamedTuple):
    """One dream, between two steps.

    z: what is observed now.
    carries: each M's state before it, [1, ...].
    key: of all that is drawn.
    shown: int32[], frames so far.
    """

    z: Float[Array, "Z"]
    carries: tuple[Carry, ...]
    key: Key[Array, ""]
    shown: Int32[Array, ""]


class Dream(DeviceGame):
    """A game as V and M know it. Each instance is compiled for itself."""

    has_products = True

    def __init__(
        self,
        game: Game,
        vae: Vae,
        memories: Sequence[MDNRNN],
        beginnings: Beginnings,
        *,
        temperature: float = 1.0,
        ends: Ends = "threshold",
        episode_steps: int | None = None,
        disagreement: float = 0.0,
        shares_memory: bool = False,
        dropout: bool = True,
    ):
        """The dream.

        Args:
          game: that it is the dream of.
          vae: V, for what z its codes stand for.
          memories: M, or several that differ in their weights alone, one of which is drawn for each dream. Its head for
            rewards says them, unless they are always the same (`Game.step_reward`); without both there are none.
            Without a head for ends, the last step is the only one.
          beginnings: where dreams may begin.
          temperature: tau, how uncertain the dream is (`Distribution.sample`).
          ends: where M's head for ends thinks one likelier than not, as in the paper's code; or as often as it says; or
            only after so many steps.
          episode_steps: of the longest dream, if that of the game is not shorter.
          disagreement: how many times as far as the M's are apart is taken off the reward of a step. Where they were
            trained on nothing like it, they differ: what an agent could gain there is no gain.
          shares_memory: show the (first) M's state beside z. An agent of the same M then need not run it again, and
            remembers the frames that the dream was warmed up with.
          dropout: an M that was trained with it leaves some of its outputs out, others in each dream.
        """
        self.name, self.actions = f"the dream of {game.title}", game.actions
        self.episode_steps = game.up_to(episode_steps).episode_steps
        self.fps, self.unit, self.solved = game.fps, game.unit, game.solved
        self._step_reward = game.step_reward
        self.beginnings, self.temperature, self.ends = beginnings, temperature, ends
        self._disagreement, self._shares_memory, self._dropout = disagreement, shares_memory, dropout
        self._vae, vae_variables = nnx.split(vae)
        self._memory = nnx.split(memories[0])[0]
        self._variables = vae_variables, tuple(nnx.split(memory)[1] for memory in memories)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def params_for(self, seeds: Sequence[int]) -> DreamParams:
        """See `DeviceGame`: a seed decides the beginning, and all that is drawn."""
        count = len(self.beginnings.action)
        rows = np.array([streams.generator(seed, "dream").integers(count) for seed in seeds])
        # Of the dream's own, since the agent draws from keys of the same seeds.
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), DREAM))(np.array(seeds, np.uint32))
        vae, memories = self._variables
        pieces = []
        # Pieces of one size, for a row's bits depend on how many are multiplied together.
        for start in range(0, len(rows), WARM_UP_ROWS):
            here = np.arange(start, start + WARM_UP_ROWS).clip(max=len(rows) - 1)
            latent, action = jax.tree.map(lambda leaf, here=here: leaf[rows[here]], self.beginnings)
            pieces.append(_warmed_up(self._memory, memories, latent, action, keys[here]))
        z, carries = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(rows)], *pieces)
        return DreamParams(vae, memories, jnp.float32(self.temperature), z, carries, keys)

    def start(self, params: DreamParams, place: Array) -> tuple[Float[Array, "Z"] | Remembered, DreamState]:
        """See `DeviceGame`."""
        carries = jax.tree.map(lambda leaf: leaf[place][None], params.carries)
        state = DreamState(params.z[place], carries, params.keys[place], jnp.int32(1))
        return self._shown(state), state

    def step(
        self, params: DreamParams, state: DreamState, action: Array
    ) -> tuple[Float[Array, "Z"] | Remembered, DreamState, Float[Array, ""], Bool[Array, ""]]:
        """See `DeviceGame`: P(z_{t+1}, r_t, d_t | z_t, a_t, h_t), equation in 4.1 of the paper."""
        vae = nnx.merge(self._vae, params.vae)
        memories = [nnx.merge(self._memory, variables) for variables in params.memories]
        encoded = self.actions.encode(self.actions.from_game(action))
        carries = tuple(
            memory.step(carry, state.z[None], encoded[None])
            for memory, carry in zip(memories, state.carries, strict=True)
        )
        mask = memories[0].mask(jax.random.fold_in(state.key, MASK), 1) if self._dropout else None
        outputs = [memory.output(carry) for memory, carry in zip(memories, carries, strict=True)]
        if mask is not None:
            outputs = [h * mask for h in outputs]
        predictions = [memory.predict(h) for memory, h in zip(memories, outputs, strict=True)]
        expected = _drawn(predictions, jax.random.fold_in(state.key, MEMBER))
        drawing, ending = jax.random.split(jax.random.fold_in(state.key, state.shown))
        z = vae.embed(expected.latent.sample(drawing, params.temperature))[0]
        reward = self._reward(expected)
        if self._disagreement:
            guesses = jnp.stack([vae.embed(each.latent.best_guess())[0] for each in predictions])
            reward = reward - self._disagreement * guesses.std(axis=0).mean()
        after = DreamState(z, carries, state.key, state.shown + 1)
        return self._shown(after), after, reward, self._ended(memories[0], expected, ending)

    def _shown(self, state: DreamState) -> Float[Array, "Z"] | Remembered:
        if not self._shares_memory:
            return state.z
        return Remembered(state.z, jax.tree.map(lambda leaf: leaf[0], state.carries[0]))

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
        return jax.random.bernoulli(key, memory.end_probability(logit))


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


def _drawn(predictions: Sequence[Prediction], key: Key[Array, ""]) -> Prediction:
    """That of one M, the same whenever the key is."""
    if len(predictions) == 1:
        return predictions[0]
    member = jax.random.randint(key, (), 0, len(predictions))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[member], *predictions)


@partial(jax.jit, static_argnums=0)
def _warmed_up(
    graphdef: nnx.GraphDef[Any],
    memories: tuple[Any, ...],
    latent: Any,
    action: Float[Array, "S W A"],
    keys: Key[Array, "S"],
) -> tuple[Float[Array, "S Z"], tuple[Carry, ...]]:
    """The first z, and each M's state before it, of dreams whose frames z is drawn of with their keys."""
    z = jax.vmap(lambda row, key: row.sample(jax.random.fold_in(key, 0)))(latent, keys)
    before, first = jnp.swapaxes(z[:, :-1], 0, 1), z[:, -1]
    carries = []
    for variables in memories:
        memory = nnx.merge(graphdef, variables)
        carry = memory.init_carry(len(first))
        if before.shape[0]:
            carry, _ = memory.unroll(carry, before, jnp.swapaxes(action, 0, 1), jnp.zeros(before.shape[:2], bool))
        carries.append(carry)
    return first, tuple(carries)
