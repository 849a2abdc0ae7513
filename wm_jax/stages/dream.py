"""dream: films of the game, of what V and M make of it, and of dreams.

All are made anew each time:

    dream.mp4, dream.gif    side by side: a real game; the same as V draws it; the same as M predicts it from the
                            actions alone, after a warm-up; and a free dream that begins where the warm-up ends
    temperatures.mp4, .gif  free dreams from that beginning, one for each of `film.temperatures`
    dream.png               frames of all of these
    summary.json            for how many steps each can be taken for the game (`evaluation/coherence.py`)
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wm_jax.config.schema import Config
from wm_jax.data.episodes import Episode
from wm_jax.distributed.progress import Progress, log
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.types import Game
from wm_jax.evaluation.autoencoding import Network, decode, encode
from wm_jax.evaluation.coherence import coherent_steps, faithful_steps, strangeness
from wm_jax.models.agent import AgentCarry
from wm_jax.models.dream import Beginnings, Dream
from wm_jax.render.dream import Row, film, sheet
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.dreaming import dream_along, dream_with
from wm_jax.rollout.exploration import RandomPolicy, plan, without_agent
from wm_jax.rollout.play import play
from wm_jax.rollout.recording import Recorder
from wm_jax.rollout.types import Policy
from wm_jax.run.artifacts import Trained, WorldModel, load_agent, load_memory, load_vae
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

GAMES = 8
"""That are played; the longest is shown."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Make all films; returns for how many steps they can be taken for the game."""
    stage, game = run.stage("dream"), find(config.game, config.env)
    vae = load_vae(run, config)
    memory = load_memory(run, vae, game)
    agent = _agent(run, config)
    with stage.lock():
        stage.start_anew()
        stage.path.mkdir(parents=True, exist_ok=True)
        maker = FilmMaker(config, game, vae, memory, agent, stop)
        filmed = maker.play()
        main, summary = maker.side_by_side(filmed)
        by_temperature, summary["temperatures"] = maker.temperatures(filmed)
        with Progress("dream", 5, "file") as progress:
            for name, rows in (("dream", main), ("temperatures", by_temperature)):
                stop.check()
                film(rows, stage.path / f"{name}.mp4", stage.path / f"{name}.gif", game.fps)
                progress.advance(2)
            sheet([*main, *by_temperature], stage.path / "dream.png")
            progress.advance(1)
        stage.write_summary(summary)
    return summary


def _agent(run: Run, config: Config) -> tuple[WorldModel, jax.Array] | None:
    """The run's agent, if it has one and it is to act."""
    if config.film.actions == "random":
        return None
    if run.stage("controller").summary() is None:
        log("dream: there is no trained agent; the exploring policy acts")
        return None
    world, controller, about = load_agent(run, config)
    if about["settings"]["world"] == "random":
        log("dream: the agent was evolved on an untrained V, which sees other things; the exploring policy acts")
        return None
    return world, controller


@dataclass(frozen=True)
class Filmed:
    """A real game of T steps, and the dream that goes on from it.

    z: what V sees in its T + 1 frames, the modes.
    begins: the frame at which dreams begin.
    dream: from that frame.
    carry: of the agent before that frame; None without one.
    usual: how strange V finds its own frames of the game, z drawn with its noise as in dreams.
    """

    episode: Episode
    z: np.ndarray
    begins: int
    dream: Dream
    carry: AgentCarry | None
    usual: np.ndarray


@dataclass(frozen=True)
class FilmMaker:
    """What the films are made of.

    agent: who acts, with its controller; None: the exploring policy.
    """

    config: Config
    game: Game
    vae: Trained
    memory: Trained
    agent: tuple[WorldModel, jax.Array] | None
    stop: Stop

    @property
    def network(self) -> Network:
        """V's graph definition and variables."""
        return self.vae.graphdef, self.vae.params

    def play(self) -> Filmed:
        """The longest of some real games, up to the film's steps.

        Raises:
          UserError: all of them end before there is anything to predict.
        """
        steps = self.config.film.steps
        seeds = [self._seed(i) for i in range(GAMES)]
        recorder = Recorder(self._policy(seeds), GAMES, steps, steps)
        with (
            contextlib.closing(open_pool(self.game.up_to(steps), GAMES)) as pool,
            Progress("film: real games", GAMES, "episode") as progress,
        ):
            play(pool, seeds, recorder, stop=self.stop, progress=progress, watch=recorder.watch)
        episodes = [next(iter(each.episodes(seed))) for each, seed in zip(recorder.recordings, seeds, strict=True)]
        longest = max(episodes, key=lambda episode: len(episode.actions))
        if len(longest.actions) < 2:
            raise UserError(f"{self.game.title}: games end after {len(longest.actions)} step; there is nothing to film")
        latent, z = encode(self.network, longest.frames)
        begins = min(self.config.film.warm_up, max(len(longest.actions) // 3, 1))
        dream = self._dream(latent, longest.actions[:begins])
        return Filmed(longest, z, begins, dream, self._carry(z[:begins], longest.seed), self._usual(latent))

    def side_by_side(self, filmed: Filmed) -> tuple[list[Row], dict[str, Any]]:
        """The real game, V's, M's and a free dream, and for how many steps the last two hold."""
        real, begins, temperature = filmed.episode, filmed.begins, self.config.dream.temperature
        steps = len(real.actions) - begins
        followed = dream_along(filmed.dream, [self._seed("prediction")], real.actions[begins:, None], temperature)
        seen, predicted = decode(self.network, filmed.z), decode(self.network, np.asarray(followed.z)[1:, 0])
        free = self._free(filmed, steps, temperature)[1:]
        start, who = seen[: begins + 1], "the agent acts" if self.agent is not None else "random actions"
        rows = [
            Row("the game", real.frames, begins),
            Row("as V draws it", seen, begins),
            Row("as M predicts it", np.concatenate([start, predicted]), begins),
            Row(f"a dream, {who}", np.concatenate([start, free]), begins),
        ]
        summary = {
            "steps": steps,
            "warm_up": begins,
            "temperature": temperature,
            "prediction_holds": faithful_steps(predicted, seen[begins + 1 :], seen),
            "dream_holds": coherent_steps(strangeness(self.network, free), filmed.usual),
        }
        return rows, summary

    def temperatures(self, filmed: Filmed) -> tuple[list[Row], dict[str, int]]:
        """Free dreams from one beginning, and for how many steps each can be taken for the game."""
        steps, rows, holds = self.config.film.steps - filmed.begins, [], {}
        for temperature in self.config.film.temperatures:
            self.stop.check()
            frames = self._free(filmed, steps, temperature)
            holds[f"{temperature:g}"] = coherent_steps(strangeness(self.network, frames[1:]), filmed.usual)
            rows.append(Row(f"temperature {temperature:g}", frames))
        return rows, holds

    def _usual(self, latent: Any) -> np.ndarray:
        """See `Filmed`."""
        drawn = np.asarray(jax.jit(lambda latent: latent.sample(jax.random.key(0)))(latent))
        return strangeness(self.network, decode(self.network, drawn))

    def _dream(self, latent: Any, actions: np.ndarray) -> Dream:
        """The dream that begins at the frame that these actions lead to."""
        rows = jax.tree.map(lambda leaf: np.asarray(leaf)[None, : len(actions) + 1], latent)
        encoded = np.asarray(self.game.actions.encode(jnp.asarray(actions)))[None]
        memory, begins = self.memory.model(), Beginnings(rows, encoded)
        # Films show what M knows, all of it.
        return Dream(self.game, self.vae.model(), [memory], begins, ends="never", dropout=False)

    def _carry(self, z: np.ndarray, seed: int) -> AgentCarry | None:
        """Of the agent that has seen these frames of the episode with this seed."""
        if self.agent is None:
            return None
        world, controller = self.agent
        params, carry = world.single(controller), world.agent.init(1)
        for frame in z:
            keys = world.agent.keys(jnp.array([seed], jnp.int32), carry.steps)
            carry, _ = world.agent.decide(params, carry, jnp.asarray(frame[None]), keys)
        return carry

    def _free(self, filmed: Filmed, steps: int, temperature: float) -> np.ndarray:
        """Frames [steps + 1, ...] of a dream in which the agent acts, or the exploring policy.

        An agent has seen what comes before.
        """
        seeds = [self._seed("dream")]
        if self.agent is None or filmed.carry is None:
            actions = plan(
                without_agent(self.config.collect.policy), self.game.actions, seeds[0], steps, self.config.collect.hold
            )
            found = dream_along(filmed.dream, seeds, actions[:, None], temperature)
        else:
            world, controller = self.agent
            params = world.single(controller)
            found = dream_with(filmed.dream, seeds, world.agent, params, filmed.carry, steps, temperature)
        return decode(self.network, np.asarray(found.z)[:, 0])

    def _seed(self, what: str | int) -> int:
        return streams.integer(self.config.seed, "film", what)

    def _policy(self, seeds: list[int]) -> Policy:
        if self.agent is None:
            collect = self.config.collect
            kind = without_agent(collect.policy)
            return RandomPolicy(kind, self.game.actions, seeds, self.config.film.steps, collect.hold)
        world, controller = self.agent
        return AgentPolicy(world.agent, world.params(controller), np.zeros(len(seeds), np.int32), seeds, len(seeds))
