"""Dreams whose every frame is wanted: for films, and for whoever asks how far they can be trusted.

An agent that only learns plays them as any game on the device (`play_in_dream`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wm_jax.envs.device import episodes_of, start_all, step_all
from wm_jax.models.agent import Agent, AgentCarry, AgentParams
from wm_jax.models.dream import Dream, DreamParams


class Dreamt(NamedTuple):
    """T steps of N dreams.

    z: of all frames, the first one among them.
    reward: of each step.
    ended: the dream had come to an end with this step, or before.
    """

    z: Float[Array, "T+1 N Z"]
    reward: Float[Array, "T N"]
    ended: Bool[Array, "T N"]


def dream_along(dream: Dream, seeds: Sequence[int], actions: np.ndarray, temperature: float | None = None) -> Dreamt:
    """Dreams in which given things are done.

    Args:
      actions: int32[T, N] or float32[T, N, A], as policies have them.
      temperature: in place of the dream's own.
    """
    return _dreamt(dream, None, seeds, None, (), jnp.asarray(actions), temperature)


def dream_with(
    dream: Dream,
    seeds: Sequence[int],
    agent: Agent,
    params: AgentParams,
    carry: AgentCarry,
    steps: int,
    temperature: float | None = None,
) -> Dreamt:
    """Dreams in which an agent acts.

    Args:
      params: with one controller.
      carry: of the agent before the first frame, for N episodes.
      temperature: in place of the dream's own.
    """
    return _dreamt(dream, agent, seeds, params, carry, jnp.zeros(steps, jnp.int32), temperature)


def _dreamt(
    dream: Dream,
    agent: Agent | None,
    seeds: Sequence[int],
    params: AgentParams | None,
    carry: Any,
    given: Array,
    temperature: float | None,
) -> Dreamt:
    """The actions of each step are `given`, unless there is an agent."""
    world, places = episodes_of(dream, seeds)
    if temperature is not None:
        world = world._replace(temperature=jnp.float32(temperature))
    first, states = start_all(dream, world, jnp.asarray(places))
    z, reward, ended = _scan(dream, agent, world, params, states, first, carry, given, jnp.asarray(seeds, jnp.int32))
    return Dreamt(jnp.concatenate([first[None], z]), reward, jnp.cumsum(ended, axis=0) > 0)


@partial(jax.jit, static_argnums=(0, 1))
def _scan(
    dream: Dream,
    agent: Agent | None,
    world: DreamParams,
    params: AgentParams | None,
    states: Any,
    first: Array,
    carry: Any,
    given: Array,
    seeds: Array,
) -> tuple[Array, Array, Array]:
    def step(now: tuple[Any, Array, Any], actions: Array) -> tuple[tuple[Any, Array, Any], tuple[Array, Array, Array]]:
        states, z, carry = now
        if agent is not None:
            assert params is not None
            carry, actions = agent.decide(params, carry, z, agent.keys(seeds, carry.steps))
        z, states, reward, ended = step_all(dream, world, states, dream.actions.in_game(actions))
        return (states, z, carry), (z, reward, ended)

    return jax.lax.scan(step, (states, first, carry), given)[1]
