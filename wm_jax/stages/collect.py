"""collect: episodes of an exploring policy into the run's replay store.

Shard by shard; what is in the store stays, so more episodes can be added at any time. Episode i depends on the seed
and on i alone, wherever collection was stopped and resumed.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from wm_jax import streams
from wm_jax.artefacts import load_agent
from wm_jax.config import Config
from wm_jax.data.episodes import Episode, Split
from wm_jax.data.replay import ReplayStore
from wm_jax.data.shards import FRAME
from wm_jax.envs.games import Game, find
from wm_jax.envs.host.pool import Step, open_pool
from wm_jax.errors import UsageError
from wm_jax.interrupt import Stop
from wm_jax.metrics import Progress, say
from wm_jax.rollout import AgentPolicy, Policy, RandomPolicy, play
from wm_jax.run import Run

GROWING = {"episodes", "slots", "policy", "hold"}
"""Settings that may differ between two collections into one store."""

Policies = Callable[[list[int], int], Policy]
"""What makes the policy for the episodes of given seeds, so many of them side by side."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Fill the store up to `collect.episodes`; returns what is in it."""
    stage = run.stage("replays")
    settings = {
        "game": config.game,
        "seed": config.seed,
        "env": config.env.model_dump(exclude={"threads"}),
        "collect": config.collect.model_dump(exclude=GROWING),
    }
    if config.collect.episodes < 2:
        raise UsageError("--collect.episodes 1: one episode can't be split into train and test; give 2 or more")
    game = collected_game(config)
    policies = _policies(config, run, game)
    with stage.lock():
        stage.claim(settings, {}, config.model_dump())
        store = ReplayStore.open_or_create(stage.path, settings)
        before, began = store.count(), time.monotonic()
        lacking = _lacking(config, store)
        if not lacking and stage.summary() is not None:
            say(f"replays: {before.episodes:,} episodes are there already")
            return {**describe(store), "episodes_added": 0}
        with stage.timed() as watch:
            _fill(config, game, policies, store, lacking, stop)
        steps = store.count().steps - before.steps
        summary = {
            **describe(store),
            "episodes_added": store.count().episodes - before.episodes,
            "steps_per_second": round(steps / (time.monotonic() - began), 1),
            "seconds": watch.seconds(),
        }
        stage.write_summary(summary)
        return summary


def describe(store: ReplayStore) -> dict[str, Any]:
    """What a store holds."""
    size = sum(stamp.size for shard in store.shards for stamp in shard.stamps.values())
    return {
        "episodes": store.count().episodes,
        "train_frames": store.count("train").frames,
        "test_frames": store.count("test").frames,
        "mean_return": round(float(np.mean([record.score for record in store.records])), 3),
        "bytes": size,
        "compressed_to": round(size / (store.count().frames * np.prod(FRAME)), 4),
    }


def _lacking(config: Config, store: ReplayStore) -> dict[int, int]:
    """The episodes that the store lacks, by number, and their seeds.

    By number, not from the end: shards that were damaged and set aside are filled again.
    """
    present = {record.seed for record in store.records}
    seeds = episode_seeds(config.seed, config.collect.episodes)
    return {i: seed for i, seed in enumerate(seeds) if seed not in present}


def _fill(
    config: Config, game: Game, policies: Policies, store: ReplayStore, lacking: dict[int, int], stop: Stop
) -> None:
    """Play the episodes that the store lacks, one shard after another."""
    settings, numbers = config.collect, list(lacking)
    if not numbers:
        return
    slots = min(settings.slots, len(numbers))
    done = settings.episodes - len(numbers)
    pool = open_pool(game, slots)
    try:
        with Progress(f"collect {config.game}", settings.episodes, "episode", done=done) as progress:
            for start in range(0, len(numbers), slots):
                stop.check()
                shard = numbers[start : start + slots]
                playing = [lacking[i] for i in shard]
                recorder = Recorder(policies(playing, slots), len(playing))

                def watch(step: Step, done: np.ndarray, recorder: Recorder = recorder) -> None:
                    stop.check()
                    recorder.watch(step, done)
                    if done.any():
                        progress.advance(int(done.sum()))

                play(pool, playing, recorder, watch=watch)
                store.append(recorder.episodes(playing), [split_of(i, settings.test_fraction) for i in shard])
    finally:
        pool.close()
        store.close()


def _policies(config: Config, run: Run, game: Game) -> Policies:
    settings = config.collect
    if settings.policy == "agent":
        world, controller, _ = load_agent(run, config)
        params = world.params(controller)
        return lambda seeds, slots: AgentPolicy(world.agent, params, np.zeros(len(seeds), np.int32), seeds, slots)
    return lambda seeds, _: RandomPolicy(settings.policy, game.actions, seeds, game.episode_steps, settings.hold)


def collected_game(config: Config) -> Game:
    """The game with the recorded episodes' length."""
    steps = config.collect.episode_steps
    game = find(config.game, config.env)
    return game if steps is None or steps > game.episode_steps else replace(game, episode_steps=steps)


def episode_seeds(seed: int, count: int) -> list[int]:
    """Distinct seeds of episodes 0 .. count - 1; the first ones don't depend on `count`."""
    seeds: dict[int, None] = {}
    for i in range(count):
        attempts = (streams.integer(seed, "collect", i, attempt) for attempt in itertools.count())
        seeds[next(number for number in attempts if number not in seeds)] = None
    return list(seeds)


def split_of(episode: int, test_fraction: float) -> Split:
    """Test episodes lie evenly among the others, the first episode being one."""
    return "test" if math.ceil((episode + 1) * test_fraction) > math.ceil(episode * test_fraction) else "train"


class Recorder:
    """A policy that remembers what it saw and did."""

    def __init__(self, policy: Policy, episodes: int):
        self._policy = policy
        self._playing: dict[int, int] = {}
        self._frames: list[list[np.ndarray]] = [[] for _ in range(episodes)]
        self._actions: list[list[np.ndarray]] = [[] for _ in range(episodes)]
        self._steps: list[list[tuple[float, bool, bool]]] = [[] for _ in range(episodes)]

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        """Remember who plays what."""
        self._policy.start(slots, episodes)
        self._playing.update(zip(slots.tolist(), episodes.tolist(), strict=True))

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Remember the frames and the policy's actions."""
        actions = self._policy.act(ids, frames)
        for slot, frame, action in zip(ids.tolist(), frames, actions, strict=True):
            self._frames[self._playing[slot]].append(frame.copy())
            self._actions[self._playing[slot]].append(action)
        return actions

    def watch(self, step: Step, done: np.ndarray) -> None:
        """Remember rewards and ends, and each episode's last frame."""
        for i, slot in enumerate(step.ids.tolist()):
            episode = self._playing[slot]
            self._steps[episode].append((float(step.reward[i]), bool(step.terminated[i]), bool(step.truncated[i])))
            if done[i]:
                self._frames[episode].append(step.frames[i].copy())

    def episodes(self, seeds: list[int]) -> Iterator[Episode]:
        """What was recorded, one episode per seed; its frames are let go of with each, to save memory."""
        for episode, seed in enumerate(seeds):
            rewards, terminated, truncated = zip(*self._steps[episode], strict=True)
            frames, self._frames[episode] = np.stack(self._frames[episode]), []
            yield Episode(
                frames=frames,
                actions=np.stack(self._actions[episode]),
                rewards=np.array(rewards, np.float32),
                terminated=np.array(terminated),
                truncated=np.array(truncated),
                seed=seed,
            )
