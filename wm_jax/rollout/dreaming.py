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
from wm_jax.models.dream import Dream


class Dreamt(NamedTuple):
    """T steps of N dreams.

    z: of all frames, the first one among them.
    reward: of each step.
    ended: the dream had come to an end with this step, or before.
    """

    z: Float[Array, "T+1 N Z"]
    reward: Float[Array, "T N"]
    ended: Bool[Array, "T N"]


def dream_along(dream: Dream, seeds: Sequence[int], actions: np.ndarray) -> Dreamt:
    """Dreams in which given things are done.

    Args:
      actions: int32[T, N] or float32[T, N, A], as policies have them.
    """
    params, places = episodes_of(dream, seeds)
    first, states = start_all(dream, params, jnp.asarray(places))
    return _with_first(first, _along(dream, params, states, jnp.asarray(actions)))


def dream_with(
    dream: Dream, seeds: Sequence[int], agent: Agent, params: AgentParams, carry: AgentCarry, steps: int
) -> Dreamt:
    """Dreams in which an agent acts.

    Args:
      params: with one controller.
      carry: of the agent before the first frame, for N episodes.
    """
    world, places = episodes_of(dream, seeds)
    first, states = start_all(dream, world, jnp.asarray(places))
    return _with_first(first, _with(dream, agent, steps, world, params, states, first, carry))


def _with_first(first: Array, later: Dreamt) -> Dreamt:
    ended = jnp.cumsum(later.ended, axis=0) > 0
    return Dreamt(jnp.concatenate([first[None], later.z]), later.reward, ended)


@partial(jax.jit, static_argnums=0)
def _along(dream: Dream, params: Any, states: Any, actions: Array) -> Dreamt:
    def step(states: Any, action: Array) -> tuple[Any, Dreamt]:
        z, states, reward, ended = step_all(dream, params, states, dream.actions.in_game(action))
        return states, Dreamt(z, reward, ended)

    return jax.lax.scan(step, states, actions)[1]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _with(
    dream: Dream,
    agent: Agent,
    steps: int,
    world: Any,
    params: AgentParams,
    states: Any,
    first: Array,
    carry: AgentCarry,
) -> Dreamt:
    def step(now: tuple[Any, Array, AgentCarry], _: None) -> tuple[tuple[Any, Array, AgentCarry], Dreamt]:
        states, z, carry = now
        carry, actions = agent.decide(params, carry, z)
        z, states, reward, ended = step_all(dream, world, states, dream.actions.in_game(actions))
        return (states, z, carry), Dreamt(z, reward, ended)

    return jax.lax.scan(step, (states, first, carry), None, steps)[1]
