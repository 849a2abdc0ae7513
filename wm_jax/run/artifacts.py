"""Opening what earlier stages left in a run's folder, and checking that the pieces fit together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wm_jax.config.layers import of_record
from wm_jax.config.schema import Config, ControllerConfig, MemoryConfig
from wm_jax.config.vaes import VaeConfig
from wm_jax.data.latents import LatentStore
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.games import find
from wm_jax.envs.types import Game
from wm_jax.models.agent import Agent, AgentParams, make_agent
from wm_jax.models.controller import Controller, with_gas
from wm_jax.models.latents import LatentKind
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae import make_vae
from wm_jax.run.checkpoints import DamagedCheckpoints
from wm_jax.run.folder import Run, Stage
from wm_jax.run.kept import KeptControllers
from wm_jax.run.provenance import misfit, require_same
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils import files, streams
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME


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

    def model(self) -> Any:
        """The NNX module."""
        return nnx.merge(self.graphdef, self.params)


def open_replays(run: Run, config: Config, begun: Stage | None = None) -> ReplayStore:
    """The run's replays.

    Args:
      begun: a stage that trains on them. Where it has begun already, it sees the episodes that it was begun with,
        although the store may have grown since.

    Raises:
      UserError: there are none, they are damaged, or they were collected from another game.
    """
    if run.stage("replays").manifest() is None:
        raise missing(run, "replays")
    manifest = begun.manifest() if begun else None
    store = ReplayStore.open(run.stage("replays").path, episodes=manifest["settings"]["episodes"] if manifest else None)
    _require_game(store.path, store.about, config)
    return store


def open_latents(run: Run, store: ReplayStore, vae: str) -> LatentStore:
    """The run's latents of these replays.

    Args:
      vae: identity of the V that they are to be made with.

    Raises:
      UserError: there are none, or they were made with another V, or of other replays.
    """
    found = run.stage("latents").manifest()
    if found is None:
        raise missing(run, "latents")
    for parent, identity in (("vae", vae), ("replays", store.id)):
        require_parent(run, "latents", parent, found["parents"][parent], identity)
    return LatentStore.open(run.stage("latents").path)


def open_for_maintenance(run: Run, config: Config) -> ReplayStore:
    """The run's replays, however damaged they are.

    Raises:
      UserError: there are none, or they are another game's.
    """
    store = ReplayStore.open(run.stage("replays").path, check=False)
    _require_environment(store.path, {"game": store.about["game"]}, {"game": config.game})
    return store


def init_vae(config: VaeConfig, seed: int) -> tuple[Any, Any]:
    """(graphdef, fresh params) of V."""
    return nnx.split(make_vae(config, nnx.Rngs(streams.integer(seed, "vae", "init"))))


def latent_like(vae: Trained) -> Any:
    """What V makes of one frame, as shapes: arrays [1, ...] of its kind of latent."""
    frame = jax.ShapeDtypeStruct((1, *FRAME), jnp.float32)
    return jax.eval_shape(lambda params, frame: nnx.merge(vae.graphdef, params).encode(frame), vae.params, frame)


def init_memory(config: MemoryConfig, latent: LatentKind, action: int, seed: int) -> tuple[Any, Any]:
    """(graphdef, fresh params) of M for such latents and actions of size `action`."""
    return nnx.split(MDNRNN(config, latent, action, nnx.Rngs(streams.integer(seed, "memory", "init"))))


_LOOKS = {"backend", "crop", "frame_skip", "kwargs", "observation", "pixels"}
"""Of the settings of `env`, those that decide how its frames look."""


def pictures(config: Config) -> dict[str, Any]:
    """What decides how the game's frames look: V, and all that is built on it, is good for these alone."""
    return {"game": config.game, **config.env.model_dump(mode="json", include=_LOOKS)}


def load_vae(run: Run, config: Config) -> Trained:
    """The run's V, built from the settings that it was trained with.

    Raises:
      UserError: there is none, or it was trained on other pictures than these settings give.
    """
    about = _weights_record(run, "vae")
    _require_environment(run.stage("vae").path, about["pictures"], pictures(config))
    return _load(run, "vae", about, init_vae(of_record("vae", about["settings"]), 0))


def load_memory(run: Run, vae: Trained, game: Game) -> Trained:
    """The run's M, checked to be made for this V and these actions.

    Raises:
      UserError: there is none, or it belongs to another V or to other actions.
    """
    about = _weights_record(run, "memory")
    require_parent(run, "memory", "vae", about["parents"]["vae"], vae.digest)
    _require_actions(run, "memory", about["actions"], game)
    networks = init_memory(of_record("memory", about["settings"]), vae.model().latent_kind, game.actions.size, 0)
    return _load(run, "memory", about, networks)


@dataclass(frozen=True)
class WorldModel:
    """V and M as the controller sees them, with the agent they form.

    agent: pure functions of V + M + C.
    base_params: the agent's numbers, those of C left to `params`.
    vae, memory: as they were loaded; no M where neither the agent nor its dream needs one.
    """

    agent: Agent
    base_params: AgentParams
    vae: Trained
    memory: Trained | None

    @property
    def parents(self) -> dict[str, str]:
        """The identities of V and M."""
        parts = {"vae": self.vae, "memory": self.memory}
        return {name: part.digest for name, part in parts.items() if part is not None}

    def single(self, controller: jax.Array) -> AgentParams:
        """With one controller float32[n_params], without an axis of candidates."""
        return self.base_params._replace(controller=controller)

    def params(self, controller: jax.Array) -> AgentParams:
        """With controllers [P, n_params], or one [n_params]."""
        return self.base_params._replace(controller=jnp.atleast_2d(controller))

    def no_controllers(self, settings: ControllerConfig) -> KeptControllers:
        """The shapes of what a search keeps."""
        return KeptControllers.empty(self.agent.controller.n_params, in_dream=settings.arena == "dream")


def load_world(run: Run, config: Config, game: Game, controller: ControllerConfig) -> WorldModel:
    """V and M, trained or (reference mode `controller.world random`) untrained, as an agent.

    Raises:
      UserError: they are missing or don't fit together.
    """
    if controller.world == "random":
        vae, untrained = _untrained(config, game)
        memory = None if controller.inputs == "z" else untrained
    else:
        vae = load_vae(run, config)
        # In the dream, all that a controller on z alone meets is M's doing.
        needs_memory = controller.inputs != "z" or controller.arena == "dream"
        memory = load_memory(run, vae, game) if needs_memory else None
    v, m = vae.model(), memory.model() if memory is not None and controller.inputs != "z" else None
    actions = with_gas(game.actions, controller.gas)
    hidden = m.cell.hidden if m is not None else 0
    spec = Controller(controller.inputs, controller.hidden, v.latent_kind.size, hidden, actions)
    agent, params = make_agent(
        v,
        m,
        spec,
        jnp.zeros(spec.n_params, jnp.float32),
        memory_reset=controller.memory_reset,
        sample_latent=controller.sample_latent,
        sample_action=controller.sample_action,
    )
    return WorldModel(agent, params, vae, memory)


def load_agent(run: Run, config: Config) -> tuple[WorldModel, jax.Array, dict[str, Any]]:
    """The run's trained agent: its world, the controller float32[n_params], and the record of its weights.

    Raises:
      UserError: see `load_controllers`.
    """
    world, kept, about = load_controllers(run, config)
    return world, kept.best, about


def load_controllers(run: Run, config: Config) -> tuple[WorldModel, KeptControllers, dict[str, Any]]:
    """All that the search for the run's controller has kept; their world, and the record of their weights.

    Raises:
      UserError: a part is missing, or V or M has changed since the controller was trained.
    """
    about = _weights_record(run, "controller")
    _require_game(run.stage("controller").path, about["config"], config)
    game = find(config.game, config.env)
    _require_actions(run, "controller", about["actions"], game)
    settings = of_record("controller", about["settings"])
    world = load_world(run, config, game, settings)
    for part, identity in about["parents"].items():
        require_parent(run, "controller", part, identity, world.parents[part])
    loaded = _load(run, "controller", about, (None, world.no_controllers(settings).weights()))
    return world, KeptControllers.of(loaded.params), {**about, "digest": loaded.digest}


def _untrained(config: Config, game: Game) -> tuple[Trained, Trained]:
    """Random V and M, identified by all that decides them."""
    vae_settings, memory_settings = config.vae.model_dump(), config.memory.model_dump()
    identity = files.identity([config.seed, config.vae.shape(), config.memory.shape()])
    vae = Trained(*init_vae(config.vae, config.seed), f"random {identity}", {"settings": vae_settings})
    networks = init_memory(config.memory, vae.model().latent_kind, game.actions.size, config.seed)
    return vae, Trained(*networks, f"random {identity}", {"settings": memory_settings})


def _require_actions(run: Run, stage: str, names: list[str], game: Game) -> None:
    was, now = {"env.actions": names}, {"env.actions": list(game.actions.names)}
    require_same(run.stage(stage).path, was, now, "use another run")


def missing(run: Run, stage: str) -> UserError:
    """The error for an artifact that is not there (yet)."""
    half = run.stage(stage).path.exists()
    state = "is unfinished" if half else "does not exist"
    return UserError(f"{run.stage(stage).path} {state}: run {CHAIN[stage]} first")


def require_parent(run: Run, stage: str, parent: str, was: str, now: str) -> None:
    """Refuse an artifact whose parent has changed since.

    Args:
      was, now: the parent's identity when the artifact was made, and today's.

    Raises:
      UserError: they differ.
    """
    if was != now:
        remedies = f"run {CHAIN[stage]} anew", f"use the run that this {parent} belongs to"
        raise misfit(run.stage(stage).path, parent, was, now, *remedies)


def _require_game(path: Path, was: dict[str, Any], config: Config) -> None:
    """Refuse another game, or other rules of it. How long its episodes may be is no matter."""
    rules = {name: value for name, value in config.env.fixed().items() if name != "episode_steps"}
    there = {name: value for name, value in was["env"].items() if name in rules}
    _require_environment(path, {"game": was["game"], **there}, {"game": config.game, **rules})


def _require_environment(path: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse another game, or other settings of its environment."""

    def named(values: dict[str, Any]) -> dict[str, Any]:
        return {name if name == "game" else f"env.{name}": value for name, value in values.items()}

    require_same(path, named(was), named(now), "use another run")


def _weights_record(run: Run, stage: str) -> dict[str, Any]:
    """The record of the weights that the finished stage's summary names, and of no older ones, with all settings."""
    summary = run.stage(stage).summary()
    if summary is None:
        raise missing(run, stage)
    manifest = run.stage(stage).manifest()
    if manifest is None:
        raise run.stage(stage).lost_record()
    try:
        about = run.stage(stage).weights.about()
    except DamagedCheckpoints:
        about = None
    if about is None or about["digest"] != summary["weights"]:
        raise _damaged_weights(run, stage)
    return {**about, "config": manifest["config"]}


def _damaged_weights(run: Run, stage: str) -> UserError:
    return UserError(
        f"{run.stage(stage).weights.folder} is damaged or lost: "
        f"run {CHAIN[stage]}, which writes it again from its checkpoints"
    )


def _load(run: Run, stage: str, record: dict[str, Any], template: tuple[Any, Any]) -> Trained:
    """The weights that belong to `record`; `template` is (graphdef, parameters of their shapes)."""
    try:
        found = run.stage(stage).weights.restore(template[1])
    except DamagedCheckpoints:
        found = None
    if found is None or found[2]["digest"] != record["digest"]:
        raise _damaged_weights(run, stage)
    return Trained(template[0], jax.device_put(found[1]), record["digest"], record)
