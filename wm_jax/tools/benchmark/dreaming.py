"""The benchmark of dreams: what a generation plays in the dream, and what it plays in the real game through V, M and C.

The networks are those of a game's preset `quick`, untrained: what they have learned makes them no faster.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.layers import load
from wm_jax.config.schema import Config
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.names import family_of
from wm_jax.envs.types import Game
from wm_jax.models.agent import Agent, AgentParams, make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.dream import Beginnings, Dream
from wm_jax.models.memory import MDNRNN
from wm_jax.models.preprocess import to_uint8
from wm_jax.models.vae import Vae
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.dreaming import dream_with
from wm_jax.rollout.play import play, play_in_dream
from wm_jax.run.artifacts import init_memory, init_vae
from wm_jax.tools.benchmark import flops
from wm_jax.tools.benchmark.case import DECODED, OURS, REAL, Case, Options
from wm_jax.tools.benchmark.timing import Work
from wm_jax.utils.sizes import FRAME

POPULATION, STEPS, SIGMA = 64, 100, 0.1
PLAYED = 0.98
"""Of all steps, the share that must be played: somebody dies early in DoomTakeCover now and then."""


def playing(game: str, options: Options) -> Case:
    """An episode for each candidate, in the dream and in the game."""
    population, steps = (4, 8) if options.small else (options.batch or POPULATION, STEPS)
    players = Players.make(game, population, steps, small=options.small)
    return Case(
        name=f"{players.game.title}, a generation's play in the dream, population {population}, {steps} steps each",
        unit="steps",
        amount=population * steps,
        flops=flops.dreaming(players.memory, players.agent.controller.n_params),
        makers={OURS: players.dreaming, DECODED: players.decoding, REAL: players.real},
        agreement=lambda: 0.0,
        tolerance=1.0,
        parts=(DECODED, REAL),
    )


@dataclass(frozen=True)
class Players:
    """Who plays what.

    agent, params: with a population of controllers.
    """

    game: Game
    vae: Vae
    memory: MDNRNN
    agent: Agent
    params: AgentParams
    population: int

    @classmethod
    def make(cls, name: str, population: int, steps: int, *, small: bool) -> "Players":
        """By the settings of the game's `quick`, or `smoke`."""
        config: Config = load(name, family_of(name), "smoke" if small else "quick")
        game = find(name, config.env).up_to(steps)
        vae = nnx.merge(*init_vae(config.vae, 0))
        memory = nnx.merge(*init_memory(config.memory, vae.latent_kind, game.actions.size, 0))
        shape = Controller(config.controller.inputs, 0, vae.latent_kind.size, memory.cell.hidden, game.actions)
        controllers = SIGMA * jax.random.normal(jax.random.key(0), (population, shape.n_params), jnp.float32)
        return cls(game, vae, memory, *make_agent(vae, memory, shape, controllers), population)

    def dream(self, *, shares_memory: bool) -> Dream:
        """From one frame, without an end."""
        latent = self.vae.encode(jnp.zeros((1, *FRAME), jnp.float32))
        begin = jax.tree.map(lambda leaf: np.asarray(leaf)[:, None], latent)
        return Dream(
            self.game,
            self.vae,
            [self.memory],
            Beginnings(begin, np.zeros((1, 0, self.memory.action), np.float32)),
            ends="never",
            shares_memory=shares_memory,
        )

    def policy(self) -> AgentPolicy:
        """An episode for each candidate."""
        rows = np.arange(self.population, dtype=np.int32)
        return AgentPolicy(self.agent, self.params, rows, rows.tolist(), self.population)

    def dreaming(self) -> Work:
        """In the dream."""
        dream = self.dream(shares_memory=True)
        return lambda: self._check(play_in_dream(dream, range(self.population), self.policy(), self.population).lengths)

    def decoding(self) -> Work:
        """In the dream, and V draws every frame."""
        dream, carry = self.dream(shares_memory=False), self.agent.init(self.population)
        alone = self.params._replace(controller=self.params.controller[0])
        draw = jax.jit(partial(_drawn, nnx.split(self.vae)[0]))

        def work() -> None:
            dreamt = dream_with(dream, range(self.population), self.agent, alone, carry, self.game.episode_steps)
            draw(self.params.vae, dreamt.z[1:]).block_until_ready()

        return work

    def real(self) -> Work:
        """In the game itself, through V, M and C."""
        pool = open_pool(self.game, self.population)
        return lambda: self._check(play(pool, range(self.population), self.policy()).lengths)

    def _check(self, lengths: np.ndarray) -> None:
        if lengths.sum() < PLAYED * self.population * self.game.episode_steps:
            raise RuntimeError(f"{self.game.title}: only {lengths.sum()} steps were played: episodes ended early")


def _drawn(graphdef: nnx.GraphDef, variables: nnx.State, z: jax.Array) -> jax.Array:
    """The frames of z [T, N, Z], a step at a time."""
    return jax.lax.map(lambda row: to_uint8(nnx.merge(graphdef, variables).decode(row)), z)
