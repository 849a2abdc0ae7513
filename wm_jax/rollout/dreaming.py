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
    world, first, states = _begun(dream, seeds, temperature)
    return _dreamt(first, *_followed(dream, world, states, jnp.asarray(actions)))


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
    world, first, states = _begun(dream, seeds, temperature)
    keys = jnp.asarray(seeds, jnp.int32)
    return _dreamt(first, *_acted(dream, agent, steps, world, params, states, first, carry, keys))


def _begun(dream: Dream, seeds: Sequence[int], temperature: float | None) -> tuple[DreamParams, Array, Any]:
    """What the dreams are dreamt by, their first z, and their states."""
    world, places = episodes_of(dream, seeds)
    if temperature is not None:
        world = world._replace(temperature=jnp.float32(temperature))
    return world, *start_all(dream, world, jnp.asarray(places))


def _dreamt(first: Array, z: Array, reward: Array, ended: Array) -> Dreamt:
    return Dreamt(jnp.concatenate([first[None], z]), reward, jnp.cumsum(ended, axis=0) > 0)


@partial(jax.jit, static_argnums=0)
def _followed(dream: Dream, world: DreamParams, states: Any, actions: Array) -> tuple[Array, Array, Array]:
    def step(states: Any, chosen: Array) -> tuple[Any, tuple[Array, Array, Array]]:
        z, states, reward, ended = step_all(dream, world, states, dream.actions.in_game(chosen))
        return states, (z, reward, ended)

    return jax.lax.scan(step, states, actions)[1]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _acted(
    dream: Dream,
    agent: Agent,
    steps: int,
    world: DreamParams,
    params: AgentParams,
    states: Any,
    first: Array,
    carry: AgentCarry,
    seeds: Array,
) -> tuple[Array, Array, Array]:
    def step(now: tuple[Any, Array, AgentCarry], _: None) -> tuple[Any, tuple[Array, Array, Array]]:
        states, z, carry = now
        carry, actions = agent.decide(params, carry, z, agent.keys(seeds, carry.steps))
        z, states, reward, ended = step_all(dream, world, states, dream.actions.in_game(actions))
        return (states, z, carry), (z, reward, ended)

    return jax.lax.scan(step, (states, first, carry), None, steps)[1]
