"""evaluate: the agent's score over many episodes with published seeds, beside the random policy's.

Seeds are `FIRST_SEED`, `FIRST_SEED + 1`, ...: anyone can play the same episodes.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wm_jax import streams
from wm_jax.artefacts import World, load_agent
from wm_jax.config import Config
from wm_jax.envs.games import Game, draws_differently, find
from wm_jax.envs.host.pool import HostPool, Step, open_pool
from wm_jax.errors import UserError
from wm_jax.interrupt import Stop
from wm_jax.metrics import Progress, say
from wm_jax.render.game import record_game
from wm_jax.render.plots import score_histogram
from wm_jax.rollout import AgentPolicy, Policy, RandomPolicy, play
from wm_jax.run import Run, Stage, now

FIRST_SEED = 1_000_000_000
"""Training draws its seeds from all of [0, 2^31): meeting one of these there is next to impossible."""
HEAVY = ("scores", "lengths", "random", "made")
"""What of an evaluation's result stays out of the summary."""
RESAMPLES = 10_000
SLOTS_PER_CORE = 16
"""Enough for batches that the network likes; an environment takes 4 MB (Gymnasium's CarRacing)."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Play `evaluate.episodes`; writes `evaluation/<on>.json`, a histogram and, on wish, a video."""
    stage = run.stage("evaluation")
    game = find(config.game, config.env)
    world, controller, about = load_agent(run, config)
    player = Player(config, game, world, controller, stop)
    made = {
        "weights": about["digest"],
        "env": config.env.model_dump(mode="json", exclude={"threads"}),
        "evaluate": config.evaluate.model_dump(exclude={"on", "workers"}),
    }
    summary: dict[str, Any] = {}
    with stage.lock():
        stage.start_anew()
        for on in ("training", "official") if config.evaluate.on == "both" else (config.evaluate.on,):
            result = _known(stage, on)
            if result.get("made") == made:
                say(f"evaluation: on the {on} game already, {result['date']}")
            else:
                stage.set_aside(*(f"{on}.{kind}" for kind in ("json", "png", "mp4")))
                began = time.monotonic()
                result = player.evaluate(on, stage.path) | {"made": made, "date": now()}
                result["seconds"] = round(time.monotonic() - began, 1)
                stage.write_record(f"{on}.json", result)
            short = {name: value for name, value in result.items() if name not in HEAVY}
            summary |= {f"{on}_{name}": value for name, value in short.items()}
            summary |= {f"{on}_random_{name}": result["random"][name] for name in ("mean", "std") if "random" in result}
        summary["seconds"] = round(sum(value for name, value in summary.items() if name.endswith("_seconds")), 1)
        stage.write_summary(summary)
    return summary


def _known(stage: Stage, on: str) -> dict[str, Any]:
    """The result that is there; nothing, if there is none or if it is damaged."""
    try:
        return stage.record(f"{on}.json") or {}
    except UserError as error:
        say(f"evaluation: {error}; playing again")
        return {}


@dataclass(frozen=True)
class Player:
    """The agent in front of its game."""

    config: Config
    game: Game
    world: World
    controller: jax.Array
    stop: Stop

    def evaluate(self, on: str, folder: Path) -> dict[str, Any]:
        """Score the agent, and the random policy on the same seeds, on the official or the training game."""
        settings, official = self.config.evaluate, on == "official"
        seeds = [FIRST_SEED + i for i in range(settings.episodes)]
        slots = min(settings.episodes, SLOTS_PER_CORE * (settings.workers or os.cpu_count() or 1))
        candidates = np.zeros(len(seeds), np.int32)
        agent = AgentPolicy(self.world.agent, self.world.params(self.controller), candidates, seeds, slots)
        scores, lengths = self._score(agent, seeds, slots, official, f"evaluate on {on}")
        result = {
            "game": self.config.game,
            "on": on,
            "transfer": official and draws_differently(self.game),
            **statistics(scores),
            "mean_length": round(float(lengths.mean()), 1),
            "first_seed": FIRST_SEED,
            "scores": [round(float(score), 3) for score in scores],
            "lengths": lengths.tolist(),
        }
        baseline = None
        if settings.baseline:
            random = RandomPolicy("uniform", self.game.actions, seeds, self.game.episode_steps)
            baseline, _ = self._score(random, seeds, slots, official, f"random on {on}")
            result["random"] = {**statistics(baseline), "scores": [round(float(score), 3) for score in baseline]}
        score_histogram(folder / f"{on}.png", scores.tolist(), None if baseline is None else baseline.tolist())
        if settings.video:
            self._record(seeds[0], official, folder / f"{on}.mp4")
        return result

    def _score(
        self, policy: Policy, seeds: list[int], slots: int, official: bool, what: str
    ) -> tuple[np.ndarray, np.ndarray]:
        pool = self._open(slots, official)
        with contextlib.closing(pool), Progress(what, len(seeds), "episode") as progress:

            def watch(step: Step, done: np.ndarray) -> None:
                self.stop.check()
                if done.any():
                    progress.advance(int(done.sum()))

            played = play(pool, seeds, policy, watch=watch)
        return played.returns, played.lengths

    def _record(self, seed: int, official: bool, path: Path) -> None:
        pool = self._open(1, official)
        try:
            record_game(pool, seed, self.world, self.controller, path, self.game.fps)
        finally:
            pool.close()

    def _open(self, slots: int, official: bool) -> HostPool:
        return open_pool(self.game, slots, official=official, workers=self.config.evaluate.workers)


def statistics(scores: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation (n - 1), median, extremes, and the 95 % bootstrap interval of the mean."""
    random = streams.generator(0, "bootstrap")
    means = [scores[random.integers(0, len(scores), len(scores))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    figures = {
        "mean": scores.mean(),
        "std": scores.std(ddof=1) if len(scores) > 1 else 0.0,
        "median": np.median(scores),
        "min": scores.min(),
        "max": scores.max(),
        "ci_low": low,
        "ci_high": high,
    }
    return {"episodes": len(scores), **{name: round(float(value), 3) for name, value in figures.items()}}
