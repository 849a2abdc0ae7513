"""collect: episodes of an exploring policy into the run's replay store.

Shard by shard; what is in the store stays, so more episodes can be added at any time. Episode i depends on the seed,
on i and on who plays it, wherever collection was stopped and resumed: what was lost is played again, the same.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from wm_jax.errors import UsageError, UserError
from wm_jax.interrupt import Stop
from wm_jax.metrics import Progress, say
from wm_jax.rollout import AgentPolicy, Policy, RandomPolicy, play
from wm_jax.run import Run


@dataclass(frozen=True)
class Player:
    """Who plays.

    about: what the store remembers of it: enough to know whether it can play a lost episode again.
    policy: makes the policy for the episodes of given seeds, so many of them side by side.
    """

    about: dict[str, Any]
    policy: Callable[[list[int], int], Policy]


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Fill the store up to `collect.episodes`; returns what is in it."""
    stage = run.stage("replays")
    settings = {
        "game": config.game,
        "seed": config.seed,
        "env": config.env.fixed(),
        "collect": config.collect.fixed(),
    }
    if config.collect.episodes < 2:
        raise UsageError("--collect.episodes 1: one episode can't be split into train and test; give 2 or more")
    game = collected_game(config)
    player = _player(config, run, game)
    with stage.lock():
        record = {**config.model_dump(), "conversions": game.conversions}
        stage.claim(settings, {}, record)
        store = ReplayStore.open_or_create(stage.path, settings)
        before, began = store.count(), time.monotonic()
        rounds = _rounds(config, run, game, player, store)
        if not rounds and stage.summary() is not None:
            say(f"replays: {before.episodes:,} episodes are there already")
            return {**describe(store), "episodes_added": 0}
        stage.note(record)
        with stage.timed() as watch:
            _fill(config, game, rounds, store, stop)
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


def _rounds(config: Config, run: Run, game: Game, player: Player, store: ReplayStore) -> list[tuple[Player, list[int]]]:
    """The numbers of the episodes that the store lacks, with who plays them: lost ones, whoever played them then.

    Raises:
      UserError: lost episodes can't be played again.
    """
    there = {record.number for record in store.records}
    plan = {number: player.about for number in range(config.collect.episodes) if number not in there}
    plan |= {number: dict(about) for number, about in store.lost}
    rounds = []
    for about, group in itertools.groupby(sorted(plan), key=plan.__getitem__):
        numbers = list(group)
        rounds.append((player if about == player.about else _again(config, run, game, player, about, numbers), numbers))
    return rounds


def _again(config: Config, run: Run, game: Game, player: Player, about: dict[str, Any], numbers: list[int]) -> Player:
    """The player of lost episodes; if that is gone and others may take their place, `player`."""
    how = {"anywhere": False} | {name: about[name] for name in about if name != "weights"}
    settings = config.collect.model_copy(update=how)
    try:
        then = _player(config.model_copy(update={"collect": settings}), run, game)
        reason = f"{run.path / 'controller'} is {then.about.get('weights', '')[:12]} now"
    except UserError as error:
        then, reason = None, str(error)
    if then is not None and then.about == about:
        return then
    if config.collect.replace_lost:
        return player
    raise UserError(
        f"{run.path / 'replays'} has lost {len(numbers)} episodes from {numbers[0]} to {numbers[-1]}, played by the "
        f"agent {about['weights'][:12]}, which can't play them again ({reason}): put its folders back, or give "
        "--collect.replace_lost to have others played in their place"
    )


def _fill(config: Config, game: Game, rounds: list[tuple[Player, list[int]]], store: ReplayStore, stop: Stop) -> None:
    """Play the episodes that the store lacks, one shard after another."""
    if not rounds:
        return
    settings, done = config.collect, store.count().episodes
    lacking = [number for _, numbers in rounds for number in numbers]
    seeds = episode_seeds(config.seed, max(lacking) + 1)
    slots = min(settings.slots, len(lacking))
    with (
        contextlib.closing(store),
        Progress(f"collect {config.game}", done + len(lacking), "episode", done=done) as progress,
    ):
        for player, numbers in rounds:
            with contextlib.closing(open_pool(game, slots, anywhere=player.about.get("anywhere", False))) as pool:
                for start in range(0, len(numbers), slots):
                    stop.check()
                    shard = numbers[start : start + slots]
                    playing = [seeds[number] for number in shard]
                    recorder = Recorder(player.policy(playing, slots), len(playing))
                    play(pool, playing, recorder, stop=stop, progress=progress, watch=recorder.watch)
                    splits: list[Split] = [split_of(number, settings.test_fraction) for number in shard]
                    store.append(recorder.episodes(playing), splits, shard, player.about)


def _player(config: Config, run: Run, game: Game) -> Player:
    settings = config.collect
    where = {"anywhere": True} if config.begins_anywhere else {}
    if settings.policy == "agent":
        world, controller, record = load_agent(run, config)
        params = world.params(controller)
        return Player(
            {"policy": "agent", "weights": record["digest"], **where},
            lambda seeds, slots: AgentPolicy(world.agent, params, np.zeros(len(seeds), np.int32), seeds, slots),
        )
    return Player(
        {"policy": settings.policy, "hold": settings.hold, **where},
        lambda seeds, _: RandomPolicy(settings.policy, game.actions, seeds, game.episode_steps, settings.hold),
    )


def collected_game(config: Config) -> Game:
    """The game with the recorded episodes' length."""
    return find(config.game, config.env).up_to(config.collect.episode_steps)


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
