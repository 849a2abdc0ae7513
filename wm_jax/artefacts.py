"""Opening what earlier stages left in a run's folder, and checking that the pieces fit together."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wm_jax import streams
from wm_jax.config import Config, ControllerConfig, MemoryConfig, VaeConfig
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.games import Game, find
from wm_jax.errors import UserError
from wm_jax.models.agent import Agent, AgentParams
from wm_jax.models.controller import Controller
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae import make_vae
from wm_jax.run import Run

COMMAND_OF = {"replays": "collect", "vae": "train_vae", "latents": "encode", "memory": "train_memory"} | {
    "controller": "train_controller",
    "evaluation": "evaluate",
}
"""The command that makes each artefact."""


@dataclass(frozen=True)
class Trained:
    """A trained network.

    graphdef, params: of `nnx.split`.
    digest: identity of the weights.
    about: the record saved beside them.
    """

    graphdef: Any
    params: Any
    digest: str
    about: dict[str, Any]


def open_replays(run: Run, episodes: int | None = None) -> ReplayStore:
    """The run's replays, or only their first `episodes`.

    Raises:
      UserError: there are none, or they are damaged.
    """
    if run.stage("replays").manifest() is None:
        raise missing(run, "replays")
    return ReplayStore.open(run.stage("replays").path, episodes=episodes)


def init_vae(config: VaeConfig, seed: int) -> tuple[Any, Any]:
    """(graphdef, fresh params) of V."""
    return nnx.split(make_vae(config, nnx.Rngs(streams.integer(seed, "vae", "init"))))


def init_memory(config: MemoryConfig, latent: int, action: int, seed: int) -> tuple[Any, Any]:
    """(graphdef, fresh params) of M for z of size `latent` and actions of size `action`."""
    return nnx.split(MDNRNN(config, latent, action, nnx.Rngs(streams.integer(seed, "memory", "init"))))


def load_vae(run: Run) -> Trained:
    """The run's V, built from the settings that it was trained with.

    Raises:
      UserError: there is none.
    """
    about = _weights_record(run, "vae")
    graphdef, template = init_vae(VaeConfig(**about["settings"]), 0)
    return _load(run, "vae", graphdef, template)


def load_memory(run: Run, vae: Trained, game: Game) -> Trained:
    """The run's M, checked to be made for this V and this game.

    Raises:
      UserError: there is none, or it belongs to another V or another game.
    """
    about = _weights_record(run, "memory")
    if about["parents"]["vae"] != vae.digest:
        raise misfit(run, "memory", "vae", about["parents"]["vae"], vae.digest)
    latent = vae.about["settings"]["latent"]
    graphdef, template = init_memory(MemoryConfig(**about["settings"]), latent, game.actions.size, 0)
    if about["actions"] != list(game.actions.names):
        raise UserError(
            f"{run.path / 'memory'} was made for actions {', '.join(about['actions'])}, "
            f"but --env.actions gives {', '.join(game.actions.names)}: give the same, or another --run"
        )
    return _load(run, "memory", graphdef, template)


@dataclass(frozen=True)
class World:
    """V and M as the controller sees them, with the agent they form.

    agent: pure functions of V + M + C.
    vae, memory: parameters ((), when M is not used).
    parents: identities of both.
    """

    agent: Agent
    vae: Any
    memory: Any
    parents: dict[str, str]

    def params(self, controller: jax.Array) -> AgentParams:
        """With controllers [P, n_params]."""
        return AgentParams(vae=self.vae, memory=self.memory, controller=jnp.atleast_2d(controller))


def load_world(run: Run, config: Config, game: Game, controller: ControllerConfig) -> World:
    """V and M, trained or (reference mode `controller.world random`) untrained.

    Raises:
      UserError: they are missing or don't fit together.
    """
    with_memory = controller.inputs != "z"
    if controller.world == "random":
        vae_graph, vae_params = init_vae(config.vae, config.seed)
        latent, parents = config.vae.latent, {"vae": f"random {config.seed}"}
    else:
        vae = load_vae(run)
        vae_graph, vae_params = vae.graphdef, vae.params
        latent, parents = vae.about["settings"]["latent"], {"vae": vae.digest}
    memory_graph: Any = None
    memory_params, hidden = (), 0
    if with_memory and controller.world == "random":
        memory_graph, memory_params = init_memory(config.memory, latent, game.actions.size, config.seed)
        hidden, parents = config.memory.hidden, {**parents, "memory": f"random {config.seed}"}
    elif with_memory:
        memory = load_memory(run, vae, game)
        memory_graph, memory_params = memory.graphdef, memory.params
        hidden, parents = memory.about["settings"]["hidden"], {**parents, "memory": memory.digest}
    spec = Controller(controller.inputs, controller.hidden, latent, hidden, game.actions)
    states = len(nnx.merge(memory_graph, memory_params).init_carry(1)) if with_memory else 0
    agent = Agent(vae_graph, memory_graph, states, spec, controller.memory_reset, controller.sample_latent)
    return World(agent, vae_params, memory_params, parents)


def load_agent(run: Run, config: Config) -> tuple[World, jax.Array, dict[str, Any]]:
    """The run's trained agent: its world, the controller float32[n_params], and the record of its weights.

    Raises:
      UserError: a part is missing, or V or M has changed since the controller was trained.
    """
    about = _weights_record(run, "controller")
    settings = ControllerConfig(**about["settings"])
    game = find(config.game, config.env)
    world = load_world(run, config, game, settings)
    for part, identity in about["parents"].items():
        if world.parents[part] != identity:
            raise misfit(run, "controller", part, identity, world.parents[part])
    zeros = jnp.zeros(world.agent.controller.n_params)
    loaded = _load(run, "controller", None, {"best": zeros, "latest": zeros})
    return world, jnp.asarray(loaded.params["best"]), {**loaded.about, "digest": loaded.digest}


def missing(run: Run, stage: str) -> UserError:
    """The error for an artefact that is not there (yet)."""
    half = run.stage(stage).manifest() is not None
    state = "is unfinished" if half else "does not exist"
    return UserError(f"{run.path / stage} {state}: run bin/{COMMAND_OF[stage]} with this --run first")


def misfit(run: Run, stage: str, parent: str, wanted: str, found: str) -> UserError:
    """The error for an artefact whose parent has changed."""
    return UserError(
        f"{run.path / stage} was made with {parent} {wanted[:12]}, but {run.path / parent} is now {found[:12]}: "
        f"run bin/{COMMAND_OF[stage]} --fresh, or use the run it belongs to"
    )


def _weights_record(run: Run, stage: str) -> dict[str, Any]:
    about = run.stage(stage).weights.about()
    if about is None:
        raise missing(run, stage)
    return about


def _load(run: Run, stage: str, graphdef: Any, template: Any) -> Trained:
    found = run.stage(stage).weights.restore(template)
    assert found is not None, "the record was read from this very checkpoint"
    _, params, about = found
    return Trained(graphdef, jax.device_put(params), about["digest"], about)
