"""evaluate: the agent's score over many episodes with published seeds, beside the random policy's.

Seeds are `FIRST_SEED`, `FIRST_SEED + 1`, ...: anyone can play the same episodes. What was played is kept, for each
player on each game, as it is finished: nothing is played twice, whatever is asked for next.

    official.json          the agent's score on the official game, beside the random policy's; official.png, its plot
    official-agent.json    the agent's episodes there; official-random.json, the random policy's
    official-film.json     what official.mp4 shows
    training*              likewise, on the game that the agent was trained on
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from wm_jax import streams
from wm_jax.artefacts import World, load_agent
from wm_jax.config import Config, EnvConfig, EvaluateConfig
from wm_jax.envs.games import Game, find, is_official, is_transfer, official
from wm_jax.envs.host.pool import HostPool, open_pool
from wm_jax.errors import UserError
from wm_jax.interrupt import Stop
from wm_jax.metrics import Progress, Stopwatch, say
from wm_jax.process import cores
from wm_jax.render.game import record_game
from wm_jax.render.plots import score_histogram
from wm_jax.rollout import AgentPolicy, Policy, RandomPolicy, play
from wm_jax.run import Run, Stage, now

FIRST_SEED = 1_000_000_000
"""Training draws its seeds from all of [0, 2^31): meeting one of these there is next to impossible."""
STATISTICS = ("mean", "std", "median", "min", "max", "ci_low", "ci_high")
RESAMPLES = 10_000
SLOTS_PER_CORE = 16
"""Enough for batches that the network likes; an environment takes 4 MB (Gymnasium's CarRacing)."""
SAVED_TOGETHER = 2
"""Episodes for each slot between two saves: with more than one, a slot that ends early isn't idle until the save."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Play `evaluate.episodes`; writes `evaluation/<on>.json`, a histogram and, on wish, a video."""
    stage = run.stage("evaluation")
    game = find(config.game, config.env)
    world, controller, about = load_agent(run, config)
    with stage.lock():
        stage.start_anew()
        for on in _asked(config.evaluate.on, game):
            sitting = Sitting(on, game, world, controller, about["digest"], config.evaluate, stage, stop)
            sitting.score()
            if config.evaluate.video:
                sitting.film()
        summary = _summary(stage, about["digest"])
        stage.write_summary(summary)
    return summary


def _asked(on: str, game: Game) -> tuple[str, ...]:
    """On which games the agent plays."""
    if on != "official" and is_official(game):
        say(f"evaluation: {game.name} was trained on the official game itself: it is played once, as that")
        return ("official",)
    return ("official", "training") if on == "both" else (on,)


@dataclass(frozen=True)
class Sitting:
    """The agent in front of one game.

    on: which game, "official" or "training".
    trained_on: the latter.
    world, controller: the agent.
    weights: its identity.
    """

    on: str
    trained_on: Game
    world: World
    controller: jax.Array
    weights: str
    settings: EvaluateConfig
    stage: Stage
    stop: Stop

    @property
    def game(self) -> Game:
        """The game, with episodes as long as asked for."""
        return self._whole_game.up_to(self.settings.episode_steps)

    @property
    def _whole_game(self) -> Game:
        return official(self.trained_on) if self.on == "official" else self.trained_on

    def score(self) -> None:
        """Write the score of the agent, and that of the random policy on the same seeds."""
        game = self.game
        agent = self._episodes("agent", {"weights": self.weights}, self._agent)
        result = {
            "game": game.name,
            "on": self.on,
            "weights": self.weights,
            "transfer": self.on == "official" and is_transfer(self.trained_on),
            "episode_steps": game.episode_steps,
            "cut_short": game.episode_steps < self._whole_game.episode_steps,
            **statistics(np.array(agent["scores"])),
            "mean_length": round(float(np.mean(agent["lengths"])), 1),
            "first_seed": FIRST_SEED,
            "scores": [round(score, 3) for score in agent["scores"]],
            "lengths": agent["lengths"],
            "seconds": agent["seconds"],
        }
        if self.settings.baseline:
            random = self._episodes("random", {}, self._random)
            scores = np.array(random["scores"])
            result["random"] = {**statistics(scores), "scores": [round(score, 3) for score in random["scores"]]}
            result["seconds"] = round(result["seconds"] + random["seconds"], 1)
        self._write(result)

    def film(self) -> None:
        """Record the first episode on video."""
        path, made = self.stage.path / f"{self.on}.mp4", {"weights": self.weights, **self._rules()}
        name = f"{self.on}-film.json"
        if _kept(self.stage, name, made) and path.exists():
            return
        self.stage.set_aside(name, path.name)
        watch = Stopwatch()
        with contextlib.closing(self._open(1)) as pool:
            record_game(pool, FIRST_SEED, self.world, self.controller, path, self.game.fps, self.stop)
        self.stage.write_record(name, {"made": made, "seconds": watch.seconds()})

    def _episodes(self, who: str, identity: dict[str, Any], policy: Callable[[list[int], int], Policy]) -> Any:
        """The scores and lengths of a player's first episodes, and the seconds that they took."""
        count, name, made = self.settings.episodes, f"{self.on}-{who}.json", identity | self._rules()
        kept = _kept(self.stage, name, made)
        if not kept:
            self.stage.set_aside(name)
            kept = {"made": made, "scores": [], "lengths": [], "seconds": 0.0}
        done, watch = len(kept["scores"]), Stopwatch(kept["seconds"])
        if done < count:
            slots = min(count - done, SLOTS_PER_CORE * (self.settings.workers or cores()))
            with (
                contextlib.closing(self._open(slots)) as pool,
                Progress(f"{who} on {self.on}", count, "episode", done=done) as progress,
            ):
                for first in range(done, count, SAVED_TOGETHER * slots):
                    seeds = [FIRST_SEED + i for i in range(first, min(first + SAVED_TOGETHER * slots, count))]
                    played = play(pool, seeds, policy(seeds, slots), stop=self.stop, progress=progress)
                    kept["scores"] += played.returns.tolist()
                    kept["lengths"] += played.lengths.tolist()
                    kept["seconds"] = watch.seconds()
                    self.stage.write_record(name, kept)
        return kept | {"scores": kept["scores"][:count], "lengths": kept["lengths"][:count]}

    def _rules(self) -> dict[str, Any]:
        """What decides how an episode of a given seed and player goes."""
        return {"env": self.game.env.fixed(), "episode_steps": self.game.episode_steps}

    def _agent(self, seeds: list[int], slots: int) -> Policy:
        params = self.world.params(self.controller)
        return AgentPolicy(self.world.agent, params, np.zeros(len(seeds), np.int32), seeds, slots)

    def _random(self, seeds: list[int], slots: int) -> Policy:
        return RandomPolicy("uniform", self.game.actions, seeds, self.game.episode_steps)

    def _open(self, slots: int) -> HostPool:
        return open_pool(self.game, slots, official=self.on == "official", workers=self.settings.workers)

    def _write(self, result: dict[str, Any]) -> None:
        """The result, with its plot, unless it is there already."""
        name, plot = f"{self.on}.json", f"{self.on}.png"
        there = _read(self.stage, name)
        if {**there, "date": None} == {**result, "date": None} and (self.stage.path / plot).exists():
            say(f"evaluation: on the {self.on} game already, {there['date']}")
            return
        self.stage.set_aside(name, plot)
        baseline = result["random"]["scores"] if "random" in result else None
        score_histogram(self.stage.path / plot, result["scores"], baseline)
        self.stage.write_record(name, result | {"date": now()})


def _summary(stage: Stage, weights: str) -> dict[str, Any]:
    """The agent's results on both games, whenever they were played."""
    summary: dict[str, Any] = {}
    seconds = 0.0
    for on in ("official", "training"):
        result = _read(stage, f"{on}.json")
        if result.get("weights") != weights:
            continue
        shown = ("transfer", "cut_short", "episodes", *STATISTICS, "mean_length")
        summary |= {f"{on}_{name}": result[name] for name in shown}
        summary |= {f"{on}_random_{name}": result["random"][name] for name in ("mean", "std") if "random" in result}
        film = _read(stage, f"{on}-film.json")
        seconds += result["seconds"] + (film["seconds"] if film.get("made", {}).get("weights") == weights else 0)
    return {**summary, "seconds": round(seconds, 1)}


def _kept(stage: Stage, name: str, made: dict[str, Any]) -> dict[str, Any]:
    """The record of that name, if it was made so; else nothing."""
    record = _read(stage, name)
    then = record.get("made", {})
    if "env" in then:  # a setting that did not exist yet was then what is its default
        then = {**then, "env": {**EnvConfig().fixed(), **then["env"]}}
    return record if then == made else {}


def _read(stage: Stage, name: str) -> dict[str, Any]:
    """The record of that name; nothing, if there is none or if it is damaged."""
    try:
        return stage.record(name) or {}
    except UserError as error:
        say(f"evaluation: {error}; passed over")
        return {}


def statistics(scores: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation (n - 1), median, extremes, and the 95 % bootstrap interval of the mean."""
    random = streams.generator(0, "bootstrap")
    means = [scores[random.integers(0, len(scores), len(scores))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    std = scores.std(ddof=1) if len(scores) > 1 else 0.0
    figures = (scores.mean(), std, np.median(scores), scores.min(), scores.max(), low, high)
    rounded = (round(float(figure), 3) for figure in figures)
    return {"episodes": len(scores), **dict(zip(STATISTICS, rounded, strict=True))}
