"""evaluate: the agent's score over many episodes with published seeds, beside the random policy's.

Seeds are `FIRST_SEED`, `FIRST_SEED + 1`, ...: anyone can play the same episodes. What was played is kept, for each
player on each game, as it is finished: nothing is played twice, whatever is asked for next.

    official.json          the agent's score on the official game, beside the random policy's; official.png, its plot
    official-agent.json    the agent's episodes there; official-random.json, the random policy's; official-dream.json,
                           those of the controller that the dream alone would have kept
    official-seen.json     V's error and M's surprise along the agent's first games, with a curve over their steps
                           (official-seen.png) and the frames with the largest errors (official-worst.png)
    official-film.json     what official.mp4 shows
    training*              likewise, on the game that the agent was trained on
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from wm_jax.config.schema import Config, EnvConfig, EvaluateConfig
from wm_jax.distributed.progress import Progress, Stopwatch, log
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool, require_playable
from wm_jax.envs.official import is_official, is_transfer, official
from wm_jax.envs.types import Game, Pool
from wm_jax.evaluation import inspection
from wm_jax.evaluation.statistics import STATISTICS, is_approximate, statistics
from wm_jax.render.game import record_game
from wm_jax.render.plots import score_histogram, seen_curve
from wm_jax.render.sheets import reconstruction_sheet
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.exploration import RandomPolicy
from wm_jax.rollout.play import play
from wm_jax.rollout.recording import Recorder
from wm_jax.rollout.types import Policy
from wm_jax.run.artifacts import WorldModel, load_controllers
from wm_jax.run.folder import Run, Stage
from wm_jax.run.interrupt import Stop
from wm_jax.run.kept import KeptControllers
from wm_jax.run.provenance import now
from wm_jax.utils.errors import UsageError, UserError
from wm_jax.utils.process import cores

FIRST_SEED = 1_000_000_000
"""Training draws its seeds from all of [0, 2^31): meeting one of these there is next to impossible."""
SLOTS_PER_CORE = 16
"""Enough for batches that the network likes; an environment takes 4 MB (Gymnasium's CarRacing)."""
LOOKED_WINDOW, LOOKED_STEPS = 250, 4000
"""Of longer games windows of so many steps are looked at, so many steps in all: frames are kept in memory."""
WORST_FRAMES = 16
SAVED_TOGETHER = 2
"""Episodes for each slot between two saves: with more than one, a slot that ends early isn't idle until the save."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Play `evaluate.episodes`; writes `evaluation/<on>.json`, a histogram and, if asked for, a video."""
    stage = run.stage("evaluation")
    game = find(config.game, config.env)
    world, kept, about = load_controllers(run, config)
    if config.evaluate.dream_choice and kept.dream is None:
        raise UsageError(
            f"--evaluate.dream_choice: the controller of {run.stage('controller').path} was not evolved in the dream; "
            "leave it out"
        )
    with stage.lock():
        stage.start_anew()
        for on in _asked(config.evaluate.on, game):
            sitting = GameEvaluation(on, game, world, kept, about["digest"], config, run, stop)
            sitting.score()
            if config.evaluate.looked_at:
                sitting.look()
            if config.evaluate.video:
                sitting.film()
        summary = _summary(stage, about["digest"])
        for warning in summary["warnings"]:
            log(f"warning: {warning}")
        stage.write_summary(summary)
    return summary


def accept(config: Config) -> None:
    """Refuse a game that cannot be played here, before an agent is trained for it.

    Raises:
      UserError: what plays it is not installed.
    """
    if config.evaluate.on != "training":
        game = find(config.game, config.env)
        require_playable(official(game), official=True)


def _asked(on: str, game: Game) -> tuple[str, ...]:
    """On which games the agent plays."""
    if on != "official" and is_official(game):
        log(f"evaluation: {game.name} was trained on the official game itself: it is played once, as that")
        return ("official",)
    return ("official", "training") if on == "both" else (on,)


@dataclass(frozen=True)
class GameEvaluation:
    """The agent in front of one game.

    on: which game, "official" or "training".
    trained_on: the latter.
    world, kept: the agent; what the dream alone would keep plays, too, where it is asked for.
    weights: its identity.
    """

    on: str
    trained_on: Game
    world: WorldModel
    kept: KeptControllers
    weights: str
    config: Config
    run: Run
    stop: Stop

    @property
    def settings(self) -> EvaluateConfig:
        """The stage's own."""
        return self.config.evaluate

    @property
    def stage(self) -> Stage:
        """Where the results lie."""
        return self.run.stage("evaluation")

    @property
    def game(self) -> Game:
        """The game, with episodes as long as asked for."""
        return self._whole_game.up_to(self.settings.episode_steps)

    @property
    def _whole_game(self) -> Game:
        return official(self.trained_on) if self.on == "official" else self.trained_on

    def score(self) -> None:
        """Write the score of the agent, and as far as they are asked for those of what the dream alone would keep and
        of the random policy, on the same seeds.
        """
        game = self.game
        agent = self._episodes("agent", {"weights": self.weights}, self._player(self.kept.best))
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
        others = []
        if self.settings.dream_choice and self.kept.dream is not None:
            others.append(("dream", {"weights": self.weights}, self._player(self.kept.dream)))
        if self.settings.baseline:
            others.append(("random", {}, self._random))
        for who, identity, policy in others:
            played = self._episodes(who, identity, policy)
            scores = np.array(played["scores"])
            result[who] = {**statistics(scores), "scores": [round(score, 3) for score in played["scores"]]}
            result["seconds"] = round(result["seconds"] + played["seconds"], 1)
        self._write(result)

    def look(self) -> None:
        """Look through V and M at the agent's first games; see `evaluation/inspection.py`."""
        name, curve, sheet = f"{self.on}-seen.json", f"{self.on}-seen.png", f"{self.on}-worst.png"
        made = {"weights": self.weights, "games": self.settings.looked_at, **self._rules()}
        if _kept(self.stage, name, made) and all((self.stage.path / each).exists() for each in (curve, sheet)):
            return
        self.stage.set_aside(name, curve, sheet)
        watch, seeds = Stopwatch(), [FIRST_SEED + i for i in range(self.settings.looked_at)]
        policy = self._player(self.kept.best)(seeds, len(seeds))
        recorder = Recorder(policy, len(seeds), LOOKED_WINDOW, LOOKED_STEPS)
        with (
            contextlib.closing(self._open(len(seeds))) as pool,
            Progress(f"look at {self.on}", len(seeds), "episode") as progress,
        ):
            play(pool, seeds, recorder, stop=self.stop, progress=progress, watch=recorder.watch)
        inspector = inspection.Inspector(self.world, self.config.memory.sequence)
        games = [list(game.episodes(seed)) for game, seed in zip(recorder.recordings, seeds, strict=True)]
        shares = [(stretch, max(1, inspection.MOVING_FRAMES // len(game))) for game in games for stretch in game]
        stretches, looked = [stretch for stretch, _ in shares], []
        with Progress(f"V and M on {self.on}", sum(len(stretch.frames) for stretch in stretches), "frame") as progress:
            for stretch, share in shares:
                self.stop.check()
                looked.append(inspector.look(stretch, share))
                progress.advance(len(stretch.frames))
        held_out, over = self._held_out(), inspection.curve(looked)
        seen_curve(self.stage.path / curve, over, held_out, f"What V and M make of {len(seeds)} games of the agent")
        worst = inspection.worst(looked, WORST_FRAMES)
        reconstruction_sheet(
            np.stack([stretches[i].frames[place] for i, place in worst]),
            np.stack([looked[i].decoded[place] for i, place in worst]),
            self.stage.path / sheet,
            title="The largest errors along the agent's games, real above decoded",
        )
        record = {"made": made, **inspection.figures(looked), "held_out": held_out, "curve": over}
        self.stage.write_record(name, record | {"seconds": watch.seconds()})

    def _held_out(self) -> dict[str, float | None]:
        """V's error and M's surprise on held-out replays, as their training ended with; none for untrained ones."""
        trained = self.config.controller.world == "trained"
        names = {"error": ("vae", "test_reconstruction"), "surprise": ("memory", "test_nll")}
        summaries = {stage: (self.run.stage(stage).summary() or {}) if trained else {} for stage, _ in names.values()}
        return {name: summaries[stage].get(figure) for name, (stage, figure) in names.items()}

    def film(self) -> None:
        """Record the first episode on video."""
        path, made = self.stage.path / f"{self.on}.mp4", {"weights": self.weights, **self._rules()}
        name = f"{self.on}-film.json"
        if _kept(self.stage, name, made) and path.exists():
            return
        self.stage.set_aside(name, path.name)
        watch = Stopwatch()
        with contextlib.closing(self._open(1)) as pool:
            record_game(pool, FIRST_SEED, self.world, self.kept.best, path, self.game.fps, self.stop)
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

    def _player(self, controller: jax.Array) -> Callable[[list[int], int], Policy]:
        """The agent with a controller, for the episodes of given seeds, so many side by side."""
        params = self.world.params(controller)

        def policy(seeds: list[int], slots: int) -> Policy:
            return AgentPolicy(self.world.agent, params, np.zeros(len(seeds), np.int32), seeds, slots)

        return policy

    def _random(self, seeds: list[int], slots: int) -> Policy:
        return RandomPolicy("uniform", self.game.actions, seeds, self.game.episode_steps)

    def _open(self, slots: int) -> Pool:
        return open_pool(self.game, slots, official=self.on == "official", workers=self.settings.workers)

    def _write(self, result: dict[str, Any]) -> None:
        """The result, with its plot, unless it is there already."""
        name, plot = f"{self.on}.json", f"{self.on}.png"
        there = _read(self.stage, name)
        if {**there, "date": None} == {**result, "date": None} and (self.stage.path / plot).exists():
            log(f"evaluation: on the {self.on} game already, {there['date']}")
            return
        self.stage.set_aside(name, plot)
        baseline = result["random"]["scores"] if "random" in result else None
        score_histogram(self.stage.path / plot, result["scores"], baseline)
        self.stage.write_record(name, result | {"date": now()})


def _summary(stage: Stage, weights: str) -> dict[str, Any]:
    """The agent's results on both games, whenever they were played."""
    summary: dict[str, Any] = {}
    warnings: list[str] = []
    seconds = 0.0
    for on in ("official", "training"):
        result = _read(stage, f"{on}.json")
        if result.get("weights") != weights:
            continue
        shown = ("transfer", "cut_short", "episodes", *STATISTICS, "mean_length")
        summary |= {f"{on}_{name}": result[name] for name in shown}
        summary[f"{on}_ci_approximate"] = is_approximate(result["episodes"])
        summary |= {f"{on}_random_{name}": result["random"][name] for name in ("mean", "std") if "random" in result}
        of_dream = ("mean", "std", "ci_low", "ci_high")
        summary |= {f"{on}_dream_{name}": result["dream"][name] for name in of_dream if "dream" in result}
        seen, film = (_made_by(stage, f"{on}-{what}.json", weights) for what in ("seen", "film"))
        if seen:
            summary |= {f"{on}_{name}": seen[name] for name in ("error", "surprise", "moving_explained")}
            summary |= {f"{on}_held_out_{name}": value for name, value in seen["held_out"].items()}
        seconds += result["seconds"] + seen.get("seconds", 0) + film.get("seconds", 0)
        warnings += _warnings(on, result, seen)
    return {**summary, "warnings": warnings, "seconds": round(seconds, 1)}


def _warnings(on: str, result: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """What somebody who reads the score must know, with the remedy."""
    found, game = [], f"the {on} game"
    error, held_out = seen.get("error"), seen.get("held_out", {}).get("error")
    if error is not None and held_out is not None and error > inspection.FAR_ERROR * held_out:
        points = [(y, at) for at, y in zip(seen["curve"]["step"], seen["curve"]["error"], strict=True) if y is not None]
        found.append(
            f"on {game} V's error is {error:,.4g}, {error / held_out:.1f} times that on held-out replays "
            f"({held_out:,.4g}), and worst around step {max(points)[1]:,.0f}: it has not seen what the agent meets. "
            "Add episodes of the agent (bin/collect --collect.policy agent, and a larger --collect.episodes) "
            "or more of random play, then train V and what follows anew"
        )
    random = result.get("random", {})
    low, high = result.get("ci_low"), random.get("ci_high")
    if low is not None and high is not None and low <= high:
        found.append(
            f"on {game} the agent's score ({result['mean']:,.4g}, interval from {low:,.4g}) does not lie above the "
            f"random policy's ({random['mean']:,.4g}, up to {high:,.4g}): look at V's sheet first, since C can't act "
            "on what V does not draw; then evolve longer, or play more episodes"
        )
    moving = seen.get("moving_explained")
    if moving is not None and moving < inspection.LITTLE_MOVING:
        found.append(
            f"on {game} V draws {max(0, moving):.0%} of what moves (of its variance around the background): it hardly "
            "sees what the game is about. Collect more frames, train V longer, or give --vae.moving_weight"
        )
    return found


def _made_by(stage: Stage, name: str, weights: str) -> dict[str, Any]:
    """The record of that name, if it is of the agent with these weights; else nothing."""
    record = _read(stage, name)
    return record if record.get("made", {}).get("weights") == weights else {}


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
        log(f"evaluation: {error}; passed over")
        return {}
