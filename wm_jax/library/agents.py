"""A trained agent, or what there is of one, in one object: `wm_jax.load("carracing")`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from wm_jax.config import layers
from wm_jax.config.schema import Config
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.names import family_of
from wm_jax.envs.official import official as official_game
from wm_jax.envs.types import Game, Pool
from wm_jax.evaluation.autoencoding import decode, encode
from wm_jax.library.given import film_of, path_of, seeds_of
from wm_jax.models.agent import Agent, AgentCarry, AgentParams
from wm_jax.models.memory import MDNRNN, Carry
from wm_jax.models.vae import Vae
from wm_jax.render.game import record_game
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.play import play
from wm_jax.rollout.types import EpisodeStats
from wm_jax.run import pretrained
from wm_jax.run.artifacts import WorldModel, load_agent, load_memory, load_vae
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.run.stage_graph import MODELS
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME


class Expected(NamedTuple):
    """What M expects after each of T steps.

    z: float32[T, Z], its best guess.
    reward: float32[T], or None without that head.
    end: float32[T], the probability that the episode ends there, or None without that head.
    carry: M's state after the last step, to go on from.
    """

    z: np.ndarray
    reward: np.ndarray | None
    end: np.ndarray | None
    carry: Carry


@dataclass(frozen=True, eq=False)
class TrainedAgent:
    """V, M and C of a run, as far as they are trained there.

    Arrays go in and come out as NumPy's. Where a part is needed that is lacking, a UserError says so.

    Attributes:
      config: the settings of its game, of collecting, and of V, M and C that it was made with; the rest are defaults.
      game: what it plays.
      vae, memory: NNX modules; None where the run has none.
      about: the summary of each part that is there: steps, errors, scores.
    """

    config: Config
    game: Game
    vae: Vae
    memory: MDNRNN | None
    about: Mapping[str, Mapping[str, Any]]
    _world: WorldModel | None
    _controller: jax.Array | None

    def encode(self, frames: UInt8[np.ndarray, "*lead side side 3"]) -> Float[np.ndarray, "*lead Z"]:
        """What V sees in frames uint8 [..., 64, 64, 3]: z float32 [..., Z], the modes of the posteriors.

        Raises:
          ValueError: they are no such frames, or none.
        """
        frames = _required(frames)
        lead = frames.shape[:-3]
        return encode(self._network, frames.reshape(-1, *FRAME))[1].reshape(*lead, -1)

    def decode(self, z: Float[np.ndarray, "*lead Z"]) -> UInt8[np.ndarray, "*lead side side 3"]:
        """The frames uint8 [..., 64, 64, 3] that V draws of z float32 [..., Z].

        Raises:
          ValueError: z is of another size, or none.
        """
        z = np.asarray(z, np.float32)
        if z.size == 0 or z.ndim == 0 or z.shape[-1] != self.vae.latent_kind.size:
            raise ValueError(f"z: {z.shape}, expected [..., {self.vae.latent_kind.size}]")
        return decode(self._network, z.reshape(-1, z.shape[-1])).reshape(*z.shape[:-1], *FRAME)

    def predict(self, z: Float[np.ndarray, "T Z"], actions: np.ndarray, carry: Carry | None = None) -> Expected:
        """What M expects after each step of an episode that it is shown.

        Args:
          z: float32[T, Z], of the frames before each step.
          actions: int32[T], positions in `game.actions.names`, or float32[T, A].
          carry: M's state before the first (None: an episode's beginning).

        Raises:
          UserError: there is no M.
          ValueError: z or the actions are none of this episode's T steps.
        """
        memory = self._need("memory", self.memory)
        if np.ndim(z) != 2 or np.shape(z)[1] != self.vae.latent_kind.size or len(z) == 0:
            raise ValueError(f"z: {np.shape(z)}, expected [T, {self.vae.latent_kind.size}], a step at least")
        self.game.actions.checked(np.asarray(actions), len(z))
        encoded = self.game.actions.encode(jax.numpy.asarray(actions))
        before = memory.init_carry(1) if carry is None else carry
        guess, reward, end, after = _look_ahead(*nnx.split(memory), before, jax.numpy.asarray(z, np.float32), encoded)
        z_after, reward, end = jax.tree.map(np.asarray, (self.vae.embed(guess), reward, end))
        return Expected(z_after, reward, end, after)

    def begin(self, episodes: int = 1) -> AgentCarry:
        """The agent's state at the beginning of so many episodes."""
        return self._need("controller", self._world).agent.init(episodes)

    def act(
        self, frames: UInt8[np.ndarray, "N side side 3"], carry: AgentCarry, seed: int | Sequence[int] = 0
    ) -> tuple[np.ndarray, AgentCarry]:
        """One step of N episodes side by side.

        Args:
          frames: uint8 [N, 64, 64, 3], what they show now; `wm_jax.to_frames` makes them of screens of any size.
          carry: of `begin(N)`, or of the step before, which is given up.
          seed: of what an agent draws that acts on a sampled z, or draws its actions; of each episode, or of all.

        Returns:
          the actions, int32[N], positions in `game.actions.names`, or float32[N, A], and the state after them. What
          an environment takes of them, `game.actions.checked(actions, N)` says.

        Raises:
          UserError: there is no C.
          ValueError: they are no such frames, or the state is that of another number of episodes.
        """
        world, frames = self._need("controller", self._world), _required(frames)
        rows, known = len(frames), carry.steps.shape[0]
        if frames.ndim != 4 or rows != known:
            raise ValueError(
                f"frames: {frames.shape}, but the state is that of {known} episodes, as `begin({known})` makes it"
            )
        seeds = np.broadcast_to(np.asarray(seed).astype(np.int32), rows)
        carry, actions = world.agent.act(self.params, carry, np.arange(rows), frames, seeds)
        return np.asarray(actions), carry

    def play(self, seeds: Sequence[int], *, official: bool = False, slots: int = 64) -> EpisodeStats:
        """Play one episode for each seed.

        Args:
          official: the game that scores are published for, instead of the one that it was trained on.
          slots: most episodes side by side.

        Returns:
          their `returns` and `lengths`, and how long that took.

        Raises:
          UserError: there is no C, or the game can't be opened here.
          ValueError: there is no seed, or one is none; or there are no slots.
        """
        world, seeds = self._need("controller", self._world), seeds_of(seeds)
        if slots < 1:
            raise ValueError(f"slots: {slots}, expected 1 or more")
        pool = self._open(min(slots, len(seeds)), official)
        try:
            params = world.params(self._need("controller", self._controller))
            policy = AgentPolicy(world.agent, params, np.zeros(len(seeds), np.int32), seeds, pool.slots)
            return play(pool, seeds, policy)
        finally:
            pool.close()

    def film(self, path: str | Path, *, seed: int = 0, official: bool = False) -> Path:
        """Write an MP4 of one episode, each frame beside what V draws of it; returns where it lies.

        Args:
          seed: of the episode.
          official: see `play`.

        Raises:
          UserError: there is no C, or the game can't be opened here.
          ValueError: the path is that of no MP4, or the seed is none.
        """
        world, controller = self._need("controller", self._world), self._need("controller", self._controller)
        path, (only,) = film_of(path), seeds_of([seed])
        pool = self._open(1, official)
        try:
            record_game(pool, only, world, controller, path, self.game.fps, Stop())
        finally:
            pool.close()
        return path

    def _open(self, slots: int, official: bool) -> Pool:
        return open_pool(official_game(self.game) if official else self.game, slots, official=official)

    @property
    def agent(self) -> Agent:
        """V, M and C as pure functions, without their numbers.

        Raises:
          UserError: there is no C.
        """
        return self._need("controller", self._world).agent

    @property
    def params(self) -> AgentParams:
        """Its numbers.

        Raises:
          UserError: there is no C.
        """
        return self._need("controller", self._world).single(self._need("controller", self._controller))

    @property
    def _network(self) -> Any:
        return nnx.split(self.vae)

    def _need(self, part: str, found: Any) -> Any:
        if found is None:
            raise UserError(f"{self.game.name}: there is no trained {part} in this run, only {', '.join(self.about)}")
        return found


def _required(frames: Any) -> np.ndarray:
    """The frames as an array.

    Raises:
      ValueError: they are none that V sees, or there are none.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.shape[-3:] != FRAME or frames.size == 0:
        raise ValueError(
            f"frames: {frames.dtype} {frames.shape}, expected uint8 [..., {', '.join(map(str, FRAME))}], one or more; "
            "wm_jax.to_frames makes them of screens of any size"
        )
    return frames


def load(source: str | Path) -> TrainedAgent:
    """What a run has trained, or the agent of a game that comes with the package.

    Args:
      source: a run's folder, such as "runs/enduro-quick" or "runs/enduro-quick/named/round-2"; or a game's name,
        "carracing".

    Raises:
      UserError: there is no such thing, or it is unfinished or damaged.
    """
    path = path_of(source, "source")
    if str(source) in pretrained.games() and not path.is_dir():
        path = pretrained.AGENTS / str(source)
    if not path.is_dir():
        shipped = ", ".join(pretrained.games()) or "none"
        raise UserError(f"{source}: no such run's folder, nor a game whose agent comes with the package ({shipped})")
    run = Run.open(path)
    about = {part: summary for part in MODELS if (summary := run.stage(part).summary()) is not None}
    if "vae" not in about:
        raise UserError(f"{path}: no trained V lies there; give a run's folder after bin/train_vae")
    config = _recorded_config(run, [*about][-1])  # what the last part's record says of the game holds for all
    game = find(config.game, config.env)
    world, controller, vae, memory = None, None, None, None
    if "controller" in about:
        world, controller, _ = load_agent(run, config)
        vae, memory = world.vae, world.memory
    vae = load_vae(run, config) if vae is None else vae
    if memory is None and "memory" in about:  # a controller on z alone is loaded without
        memory = load_memory(run, vae, game)
    return TrainedAgent(config, game, vae.model(), None if memory is None else memory.model(), about, world, controller)


def _recorded_config(run: Run, part: str) -> Config:
    """The settings of a run's game and models, as a part of it was made with them."""
    manifest = run.stage(part).manifest()
    if manifest is None:
        raise run.stage(part).lost_record()
    recorded = manifest["config"]
    base = layers.load(recorded["game"], family_of(recorded["game"]))
    names = [name for name in ("env", "collect", *MODELS) if name in recorded]
    sections = {name: layers.of_record(name, recorded[name]) for name in names}
    return base.model_copy(update={"seed": recorded["seed"], "preset": recorded["preset"], **sections})


@partial(jax.jit, static_argnums=0)
def _look_ahead(graphdef: Any, variables: Any, carry: Carry, z: Array, actions: Array) -> Any:
    memory = nnx.merge(graphdef, variables)
    carry, h = memory.unroll(carry, z[:, None], actions[:, None], jax.numpy.zeros((len(z), 1), bool))
    expected = memory.predict(h[:, 0])
    end = None if expected.done_logit is None else memory.end_probability(expected.done_logit)
    return expected.latent.best_guess(), expected.reward, end, carry
