"""V, M and C as one policy that plays any number of episodes side by side.

At frame t the controller sees z_t and M's state *before* that frame; once it has chosen a_t, M is fed (z_t, a_t).
A controller on z alone needs no M, and none is run.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key, UInt8

from wm_jax.models.controller import Controller
from wm_jax.models.memory import MDNRNN, Carry, restart
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Vae
from wm_jax.utils.errors import UserError

ACTION = 1
"""What is folded into a row's key to draw its action; z is drawn with the key itself."""


class Remembered(NamedTuple):
    """What a dream, or B of them, shows an agent of the same M, which therefore need not run M itself.

    z: of the frame.
    memory: M's state before it, its arrays [B, ...].
    """

    z: Float32[Array, "*B Z"]
    memory: Carry


Observations = UInt8[Array, "B side side 3"] | Float32[Array, "B Z"] | Remembered
"""What B games show: frames, or latents where V has already seen them, or M's state as well."""


class AgentParams(NamedTuple):
    """The numbers of an agent.

    vae: parameters of V.
    memory: parameters of M, or None for a controller on z alone.
    controller: one vector, or those of a population: then every row of a batch names its candidate.
    """

    vae: Any
    memory: Any
    controller: Float[Array, "n_params"] | Float[Array, "P n_params"]


class AgentCarry(NamedTuple):
    """The state of N episodes.

    memory: M's state, any pytree of arrays [N, ...]; () for a controller on z alone.
    steps: frames acted on since the episode began.
    """

    memory: Carry
    steps: Int32[Array, "N"]


@dataclass(frozen=True, eq=False)
class Agent:
    """A policy without its numbers; build it with `make_agent`, once: each instance is compiled for itself.

    All methods are pure. Rows of a batch never influence each other, and the random numbers of a row are derived
    from (seed of its episode, frame): neither the slot nor what is played together changes what is drawn, and
    candidates that play the same episode meet the same noise.

    Attributes:
      vae: graph definition of V.
      memory: graph definition of M, or None for a controller on z alone.
      begin: M's state at the start of one episode [1, ...]; () without M.
      controller: shape of C.
      memory_reset: begin M's state anew every so many frames (0: never).
      sample_latent: act on a z drawn from V's latent instead of its mode.
      sample_action: draw an action with the probabilities softmax(C's outputs), of a choice between actions.
    """

    vae: nnx.GraphDef[Any]
    memory: nnx.GraphDef[Any] | None
    begin: Carry
    controller: Controller
    memory_reset: int
    sample_latent: bool
    sample_action: bool = False

    @property
    def can_share_memory(self) -> bool:
        """In a dream of its own M, is M's state there its own? Not where it forgets that from time to time."""
        return self.memory is not None and not self.memory_reset

    def init(self, n: int) -> AgentCarry:
        """The state of n episodes before their first frames."""
        return AgentCarry(jax.tree.map(lambda leaf: jnp.repeat(leaf, n, 0), self.begin), jnp.zeros(n, jnp.int32))

    @partial(jax.jit, static_argnums=0, static_argnames="at_once", donate_argnums=2)
    def act(
        self,
        params: AgentParams,
        carry: AgentCarry,
        ids: Int[Array, "B"],
        observations: Observations,
        seeds: Int32[Array, "B"],
        candidates: Int[Array, "B"] | None = None,
        is_first: Bool[Array, "B"] | None = None,
        at_once: int | None = None,
    ) -> tuple[AgentCarry, Int32[Array, "B"] | Float32[Array, "B A"]]:
        """One step of the slots `ids` out of N, for pools that answer a few at a time. The carry is given up.

        `carry` holds all N slots; all other arguments have B rows. An id that is not in [0, N) is padding:
        its action means nothing and no state changes, so that a short batch can be filled up to a compiled size.

        Args:
          observations: frames, or what a dream shows: then V, or neither V nor M, is asked.
          seeds: of each row's episode; the same for every step of it.
          candidates: which row of the population plays the episode; needed with a population.
          is_first: this frame is the first of a new episode: the slot's state begins anew before it.
          at_once: rows that go through the network together, a divisor of B (default: all). Batches of different
            sizes may be summed in different orders, which depends on the processor; pieces of one size are not, so
            a row's bits don't depend on how many others there are. Padding at the end costs nothing but its last piece.

        Raises:
          ValueError: at_once doesn't divide B.

        Returns:
          the new carry, and actions: positions, or vectors.
        """
        rows = _Rows(ids, observations, seeds, candidates, is_first)
        if at_once is None:
            return self._act(params, carry, rows)
        size = ids.shape[0]
        if size % at_once:
            raise ValueError(f"at_once {at_once}: no divisor of the {size} rows")
        real = (ids >= 0) & (ids < carry.steps.shape[0])
        used = jnp.max(jnp.where(real, jnp.arange(1, size + 1), 0))

        def turn(i: Array, before: tuple[AgentCarry, Array]) -> tuple[AgentCarry, Array]:
            carry, actions = before
            piece = jax.tree.map(lambda each: lax.dynamic_slice_in_dim(each, i * at_once, at_once), rows)
            carry, acted = self._act(params, carry, piece)
            return carry, lax.dynamic_update_slice_in_dim(actions, acted, i * at_once, 0)

        nothing = jnp.asarray(self.controller.actions.nothing(size))
        return lax.fori_loop(0, (used + at_once - 1) // at_once, turn, (carry, nothing))

    def decide(
        self,
        params: AgentParams,
        carry: AgentCarry,
        z: Float[Array, "N Z"],
        keys: Key[Array, "N"],
        candidates: Int[Array, "N"] | None = None,
    ) -> tuple[AgentCarry, Int32[Array, "N"] | Float32[Array, "N A"]]:
        """C and M alone, from latents instead of frames: what an agent does inside the dream.

        Args:
          keys: of each row's episode and frame (`keys`).
        """
        memory = carry.memory
        if self.memory is not None and self.memory_reset:
            memory = restart(memory, carry.steps % self.memory_reset == 0, self.begin)
        actions = self._choose(params, memory, z, keys, candidates)
        if self.memory is not None:
            model = nnx.merge(self.memory, params.memory)
            memory = model.step(memory, z, self.controller.actions.encode(actions))
        return AgentCarry(memory, carry.steps + 1), actions

    def _choose(
        self,
        params: AgentParams,
        memory: Carry,
        z: Float[Array, "N Z"],
        keys: Key[Array, "N"],
        candidates: Int[Array, "N"] | None,
    ) -> Int32[Array, "N"] | Float32[Array, "N A"]:
        """C alone, beside M's state; see `decide`."""
        seen = () if self.memory is None else nnx.merge(self.memory, params.memory).visible(memory)
        features = self.controller.features(z, seen)
        if candidates is None:
            raw = jax.vmap(self.controller.apply, in_axes=(None, 0))(params.controller, features)
        else:
            raw = jax.vmap(self.controller.apply)(params.controller[candidates], features)
        if self.sample_action:  # the largest of outputs + Gumbel noise is drawn from their softmax
            noise = lambda key: jax.random.gumbel(jax.random.fold_in(key, ACTION), raw.shape[1:], raw.dtype)  # noqa: E731
            raw += jax.vmap(noise)(keys)
        return self.controller.actions.choose(raw)

    def see(
        self,
        params: AgentParams,
        observations: UInt8[Array, "B side side 3"] | Float32[Array, "B Z"],
        keys: Key[Array, "B"],
    ) -> Float[Array, "B Z"]:
        """V alone: z of frames, drawn with one key per row if the agent samples. Latents are z already."""
        if observations.dtype != jnp.uint8:
            return observations
        latent = nnx.merge(self.vae, params.vae).encode(to_float(observations))
        if not self.sample_latent:
            return latent.mode()
        return jax.vmap(lambda row, key: row.sample(key))(latent, keys)

    @staticmethod
    def keys(seeds: Int32[Array, "B"], steps: Int32[Array, "B"]) -> Key[Array, "B"]:
        """For all random numbers of these frames of these episodes."""
        return jax.vmap(lambda seed, step: jax.random.fold_in(jax.random.key(seed), step))(seeds, steps)

    def _act(self, params: AgentParams, carry: AgentCarry, rows: "_Rows") -> tuple[AgentCarry, Array]:
        """`act` with all rows at once."""
        count = carry.steps.shape[0]
        own = jax.tree.map(lambda leaf: leaf.at[rows.ids].get(mode="clip"), carry)
        if rows.is_first is not None:
            own = AgentCarry(restart(own.memory, rows.is_first, self.begin), jnp.where(rows.is_first, 0, own.steps))
        keys = self.keys(rows.seeds, own.steps)
        shown = rows.observations
        if isinstance(shown, Remembered):
            actions = self._choose(params, shown.memory, shown.z, keys, rows.candidates)
            own = own._replace(steps=own.steps + 1)
        else:
            own, actions = self.decide(params, own, self.see(params, shown, keys), keys, rows.candidates)
        targets = jnp.where(rows.ids < 0, count, rows.ids)  # Negative indices would count from the end.
        return jax.tree.map(lambda leaf, new: leaf.at[targets].set(new, mode="drop"), carry, own), actions


class _Rows(NamedTuple):
    """What `Agent.act` is given for each row."""

    ids: Array
    observations: Observations
    seeds: Array
    candidates: Array | None
    is_first: Array | None


def make_agent(
    vae: Vae,
    memory: MDNRNN | None,
    controller: Controller,
    params: Float[Array, "n_params"] | Float[Array, "P n_params"],
    *,
    memory_reset: int = 0,
    sample_latent: bool = False,
    sample_action: bool = False,
) -> tuple[Agent, AgentParams]:
    """Split the three models into a policy and its numbers.

    Args:
      vae, memory: NNX modules; memory is left out, and may be None, for a controller on z alone.
      controller: shape of C.
      params: of C, or of a population.
      memory_reset, sample_latent, sample_action: see `Agent`.

    Raises:
      UserError: the parts do not fit together.
    """
    _check_sizes(vae, memory, controller, params)
    vae_graph, vae_params = nnx.split(vae)
    if memory is None or controller.inputs == "z":
        memory_graph, memory_params, begin = None, None, ()
    else:
        memory_graph, memory_params = nnx.split(memory)
        begin = memory.init_carry(1)
    agent = Agent(vae_graph, memory_graph, begin, controller, memory_reset, sample_latent, sample_action)
    return agent, AgentParams(vae_params, memory_params, params)


def _check_sizes(vae: Vae, memory: MDNRNN | None, controller: Controller, params: Array) -> None:
    sizes = {
        "latents of V": (vae.latent_kind.size, controller.latent),
        "parameters of C": (params.shape[-1], controller.n_params),
    }
    if controller.inputs != "z":
        if memory is None:
            raise UserError(f"controller.inputs {controller.inputs}: it needs a memory; train one, or use z")
        if controller.inputs == "zhc" and len(memory.visible(memory.init_carry(1))) < 2:
            cell = memory.config.cell
            raise UserError(f"controller.inputs zhc: the cell {cell} has no c; use zh, or memory.cell lstm")
        sizes |= {
            "latents of M": (memory.latent.size, controller.latent),
            "hidden units of M": (memory.cell.hidden, controller.memory_hidden),
            "action dimensions of M": (memory.action, controller.actions.size),
        }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            raise UserError(
                f"agent: {found} {what}, but the controller was built for {wanted}; "
                "use models of one run, trained with the same settings"
            )
