"""C's benchmark: what one generation plays on the host's CarRacing, environments and network together."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.schema import EnvConfig, MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.types import Game, Pool
from wm_jax.models.agent import Agent, AgentParams, make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae.vanilla import Vanilla
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.exploration import RandomPolicy
from wm_jax.rollout.play import play
from wm_jax.rollout.types import Policy
from wm_jax.run.artifacts import init_memory, init_vae
from wm_jax.tools.benchmark import flops
from wm_jax.tools.benchmark.case import (
    ENVIRONMENTS,
    FLOAT32,
    NETWORK,
    ON_DEVICE,
    OURS,
    PLAIN,
    TUNED,
    WRITTEN,
    Case,
    Options,
)
from wm_jax.tools.benchmark.timing import Timing, Work
from wm_jax.tools.benchmark.vae import difference, is_narrow
from wm_jax.training.evolution import Evolution, EvolutionState
from wm_jax.utils.process import cores
from wm_jax.utils.sizes import FRAME

POPULATION, STEPS = 64, 125
SIGMA = 0.1
"""Of the candidates. Cars that drive straight on leave the field after 140 steps, which would end their episodes."""
RECORDED = 8
"""Frames of each slot that the network alone is shown, over and over."""
COMPARED, COMPARED_STEPS = 16, 3
"""Episodes and their length that both sides' actions are compared on."""


def generation(options: Options) -> Case:
    """One generation of CMA-ES with the paper's V, M and C, an episode for each candidate.

    Every call plays the same candidates on the same episodes. Gymnasium, which PyTorch's users have, EnvPool and the
    device draw differently: what is compared are steps per second, not returns.
    """
    population, steps = (4, 8) if options.small else (options.batch or POPULATION, STEPS)
    setting = Setting.make(population, steps, small=options.small, bfloat16=options.bfloat16)

    def agreement() -> float:
        from wm_jax.tools.benchmark.pytorch import controller

        frames = np.resize(setting.recorded(), (COMPARED_STEPS, COMPARED, *FRAME))
        ids = np.arange(COMPARED, dtype=np.int32)
        candidates = ids % population
        agent, params = setting.agent(bfloat16=False)
        carry, ours = agent.init(COMPARED), []
        for shown in frames:
            carry, actions = agent.act(params, carry, ids, shown, ids, candidates)
            ours.append(actions)
        return difference(jnp.stack(ours), controller.actions(setting.torch_agent(), frames, candidates))

    makers = {
        OURS: setting.ours,
        FLOAT32: lambda: setting.ours(bfloat16=False),
        PLAIN: lambda: setting.ours(fast_kernels=False),
        TUNED: setting.tuned,
        WRITTEN: setting.written,
        ENVIRONMENTS: setting.environments,
        NETWORK: setting.network,
        ON_DEVICE: setting.on_device,
    }
    return Case(
        name=f"C generation on CarRacing, population {population}, {steps} steps each",
        unit="environment steps",
        amount=population * steps,
        flops=flops.playing(setting.vae.config, setting.memory, setting.controller.n_params),
        makers=makers,
        agreement=agreement,
        tolerance=1e-3,
        compared="actions",
        parts=(ENVIRONMENTS, NETWORK, ON_DEVICE),
        remark=shares,
        narrow=is_narrow(setting.vae.config),
    )


def shares(timings: Mapping[str, Timing]) -> str:
    """How near the whole comes to its slower half alone, and to cores that are shared without any loss."""
    whole, environments, network = timings[OURS], timings[ENVIRONMENTS], timings[NETWORK]
    of_slower = min(environments.faster_than(whole), network.faster_than(whole)) ** -1
    in_turns = Timing(0.0, tuple(map(sum, zip(environments.seconds, network.seconds, strict=True))))
    return (
        f"  The whole reaches {of_slower:.0%} of the speed of its slower half alone. On a CPU both need the same\n"
        f"  cores: shared without any loss they would give 1 / (1 / environments + 1 / network), of which the whole\n"
        f"  reaches {whole.faster_than(in_turns):.0%}."
    )


@dataclass(frozen=True)
class Setting:
    """Who plays what.

    vae, memory, controller: the three models; the controller's numbers come from the search.
    """

    game: Game
    vae: Vanilla
    memory: MDNRNN
    controller: Controller
    evolution: Evolution
    start: EvolutionState
    seeds: list[int]

    @classmethod
    def make(cls, population: int, steps: int, *, small: bool, bfloat16: bool) -> "Setting":
        """The paper's sizes, or tiny ones."""
        game = find("carracing", EnvConfig(episode_steps=steps))
        vae = nnx.merge(*init_vae(VanillaConfig(width=0.125 if small else 1.0, bfloat16=bfloat16), 0))
        memory_config = MemoryConfig(hidden=32 if small else 256)
        memory = nnx.merge(*init_memory(memory_config, vae.latent_kind, game.actions.size, 0))
        controller = Controller("zh", 0, vae.config.latent, memory_config.hidden, game.actions)
        evolution = Evolution("CMA_ES", controller.n_params, population, SIGMA, jax.random.key(0))
        return cls(game, vae, memory, controller, evolution, evolution.init(), list(range(population)))

    @property
    def amount(self) -> int:
        """Environment steps of a generation."""
        return len(self.seeds) * self.game.episode_steps

    def candidates(self) -> jax.Array:
        """float32 [P, n_params]."""
        return self.evolution.ask(self.start)[1]

    def agent(self, **settings: bool) -> tuple[Agent, AgentParams]:
        """Ours, with the candidates of the first generation, and with other settings of V if they are given."""
        vae = nnx.merge(*init_vae(self.vae.config.model_copy(update=settings), 0))
        return make_agent(vae, self.memory, self.controller, self.candidates())

    def ours(self, **settings: bool) -> Work:
        """Ask, play, tell, as `train_controller` does."""
        return self._generation(*self.agent(**settings), open_pool(self.game, len(self.seeds)))

    def _generation(self, agent: Agent, params: AgentParams, pool: Pool) -> Work:
        def work() -> None:
            asked, candidates = self.evolution.ask(self.start)
            policy = self._policy(agent, params._replace(controller=candidates))
            played = play(pool, self.seeds, policy)
            self._check(int(played.lengths.sum()))
            jax.block_until_ready(self.evolution.tell(asked, played.returns))

        return work

    def tuned(self) -> Work:
        """PyTorch in the place of our network; pool and loop are ours."""
        from wm_jax.tools.benchmark.pytorch import controller

        agent, narrow = self.torch_agent(), is_narrow(self.vae.config)
        return self._played(lambda: controller.TorchPolicy(agent, len(self.seeds), narrow=narrow))

    def written(self) -> Work:
        """A process for every core, each with one Gymnasium environment and batches of one."""
        from wm_jax.tools.benchmark.pytorch import controller

        return controller.written(self.torch_agent(), self.seeds, self.game.episode_steps, cores())

    def environments(self) -> Work:
        """Random actions."""
        return self._played(
            lambda: RandomPolicy("brownian", self.game.actions, self.seeds, self.game.episode_steps),
        )

    def on_device(self) -> Work:
        """The game on the device too: ask, play, tell."""
        agent, params = self.agent()
        game = find("carracing", EnvConfig(backend="device", episode_steps=self.game.episode_steps))
        return self._generation(agent, params, open_pool(game, len(self.seeds)))

    def network(self) -> Work:
        """As many frames as the whole, in the batches that the whole has."""
        policy, recorded = self._policy(*self.agent()), self.recorded()
        slots = np.arange(len(self.seeds), dtype=np.int32)
        halves = np.array_split(slots, 2)

        def work() -> None:
            policy.start(slots, slots)
            for step in range(self.game.episode_steps):
                for half in halves:
                    policy.act(half, recorded[step % RECORDED][half])

        return work

    def recorded(self) -> np.ndarray:
        """uint8 [RECORDED, P, 64, 64, 3] of cars that accelerate."""
        ahead = np.tile(np.array([0.1, 0.5, 0.0], np.float32), (len(self.seeds), 1))
        with contextlib.closing(open_pool(self.game, len(self.seeds))) as pool:
            return np.stack([pool.reset(self.seeds), *(pool.step(ahead).frames for _ in range(RECORDED - 1))])

    def torch_agent(self) -> Any:
        """The same V, M and candidates in PyTorch."""
        from wm_jax.tools.benchmark.pytorch import controller

        return controller.TorchAgent(self.vae, self.memory, self.controller, np.asarray(self.candidates()))

    def _policy(self, agent: Agent, params: AgentParams) -> AgentPolicy:
        return AgentPolicy(agent, params, np.arange(len(self.seeds)), self.seeds, len(self.seeds))

    def _played(self, make: Callable[[], Policy]) -> Work:
        pool = open_pool(self.game, len(self.seeds))
        return lambda: self._check(int(play(pool, self.seeds, make()).lengths.sum()))

    def _check(self, steps: int) -> None:
        if steps != self.amount:
            raise RuntimeError(f"{steps} steps were played instead of {self.amount}: an episode ended early")
