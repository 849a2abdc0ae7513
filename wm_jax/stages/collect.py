"""collect: episodes of an exploring policy into the run's replay store.

Every episode is played to the game's own end, so that what comes late in a game is seen; of a long one, windows are
recorded that lie all over it (`data/windows.py`). Shard by shard; what is in the store stays, so more can be added at
any time. Episode i depends on the seed, on i and on who plays it, wherever collection was stopped and resumed: what was
lost is played again, the same.
"""

import contextlib
import itertools
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from wm_jax.config.schema import CollectConfig, Config
from wm_jax.data.episodes import split_of
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed.progress import Progress, log
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool, require_playable
from wm_jax.envs.types import Game, Pool
from wm_jax.rollout.play import play
from wm_jax.rollout.players import Player, player_again, player_of
from wm_jax.rollout.recording import Recorder
from wm_jax.run.ancestors import require_whole_import
from wm_jax.run.folder import Run, Stage
from wm_jax.run.interrupt import Stop
from wm_jax.utils import streams
from wm_jax.utils.errors import UsageError, UserError
from wm_jax.utils.sizes import FRAME_BYTES

RECORDING_BYTES = 3 * 10**9
"""Of frames that are recorded at once, at most: fewer long episodes are played side by side."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Fill the store up to `collect.episodes` and `collect.frames`; returns what is in it."""
    stage = run.stage("replays")
    settings = {
        "game": config.game,
        "seed": config.seed,
        "env": config.env.fixed(),
        "collect": config.collect.fixed(),
    }
    if config.collect.episodes < 2:
        raise UsageError("--collect.episodes 1: one episode can't be split into train and test; give 2 or more")
    game = find(config.game, config.env)
    player = player_of(config, run, game)
    with stage.lock():
        record = {**_noted(config, stage), "conversions": game.conversions}
        stage.claim(settings, {}, record)
        store = ReplayStore.open_or_create(stage.path, settings)
        before, began = store.count(), time.monotonic()
        lost = _lost(config, run, game, player, store)
        if not lost and store.imported and config.collect.policy != "agent":
            return _as_imported(stage, store)
        if not lost and _lacking(config.collect, store) == 0 and stage.summary() is not None:
            log(f"replays: {before.episodes:,} episodes are there already ({before.frames:,} frames)")
            return {**store.describe(), "episodes_added": 0}
        stage.note(record)
        with stage.timed() as watch:
            played = Collector(config, game, store, stop).fill(player, lost)
        summary = {
            **store.describe(),
            "episodes_added": store.count().episodes - before.episodes,
            "steps_played": played,
            "steps_per_second": round(played / (time.monotonic() - began), 1),
            "seconds": watch.seconds(),
        }
        stage.write_summary(summary)
        return summary


def accept(config: Config) -> None:
    """Refuse a game that cannot be played here.

    Raises:
      UserError: it consists of recordings, or what plays it is not installed.
    """
    require_playable(find(config.game, config.env))


def _noted(config: Config, stage: Stage) -> dict[str, Any]:
    """All settings for the record. An agent that plays on in a store that others began does not change who began it."""
    record, before = config.model_dump(), stage.manifest()
    if config.collect.policy == "agent" and before is not None:
        amount = {name: record["collect"][name] for name in ("episodes", "frames")}
        record["collect"] = before["config"]["collect"] | amount
    return record


def _lost(config: Config, run: Run, game: Game, player: Player, store: ReplayStore) -> list[tuple[Player, list[int]]]:
    """The numbers of the episodes that the store has lost, with who plays them again: whoever played them then.

    Raises:
      UserError: they can't be played again.
    """
    limit = config.collect.episode_steps
    cut = [each.number for each in store.lost if limit is not None and each.length == limit < game.episode_steps]
    if cut and not config.collect.replace_lost:
        raise UserError(
            f"{store.path} has lost {len(cut)} episodes from {cut[0]} to {cut[-1]} that were cut off after "
            f"{limit:,} steps, as an earlier version did: played again they would go on to their end. Give "
            "--collect.replace_lost to take them so, or start the replays anew with --fresh"
        )
    rounds = []
    for about, group in itertools.groupby(store.lost, key=lambda each: dict(each.player)):
        numbers = [each.number for each in group]
        played_by = player if about == player.about else player_again(config, run, game, player, about, numbers)
        rounds.append((played_by, numbers))
    return rounds


def _as_imported(stage: Stage, store: ReplayStore) -> dict[str, Any]:
    """Recordings from elsewhere are what they are: no random play is put beside them.

    Raises:
      UserError: some are lacking.
    """
    require_whole_import(stage)
    count = store.count()
    log(f"replays: {count.episodes:,} episodes were imported ({count.frames:,} frames)")
    return {**(stage.summary() or {}), "episodes_added": 0}


def _lacking(settings: CollectConfig, store: ReplayStore) -> int:
    """How many episodes more are needed, as far as that can be told from those that are there."""
    count = store.count()
    episodes = max(settings.episodes - count.episodes, 0)
    if count.frames >= settings.frames:
        return episodes
    most = settings.episode_steps or settings.window
    each = count.frames / count.episodes if count.episodes else most
    return max(episodes, math.ceil((settings.frames - count.frames) / each))


class Collector:
    """Plays what the store lacks, one shard after another."""

    def __init__(self, config: Config, game: Game, store: ReplayStore, stop: Stop):
        self._config, self._game, self._store, self._stop = config, game, store, stop
        self._numbered, self._seeds = episode_seeds(config.seed), []

    def fill(self, player: Player, lost: list[tuple[Player, list[int]]]) -> int:
        """Play the lost episodes again, then new ones until there are enough; returns the steps that were played."""
        settings, count = self._config.collect, self._store.count()
        in_frames = count.frames < settings.frames
        if in_frames:
            unit, done, total = "frame", count.frames, settings.frames
        else:
            unit, done = "episode", count.episodes
            total = max(settings.episodes, done + sum(len(numbers) for _, numbers in lost))
        played = 0
        with (
            contextlib.closing(self._store),
            Progress(f"collect {self._config.game}", total, unit, done=done) as progress,
        ):
            meter = Meter(progress, in_frames)
            for again, numbers in lost:
                with self._pool(again, len(numbers)) as pool:
                    for start in range(0, len(numbers), pool.slots):
                        played += self._play(pool, again, numbers[start : start + pool.slots], meter)
            if lacking := _lacking(settings, self._store):
                # How many episodes a number of frames takes is only known afterwards: there is a slot for each of a
                # full shard.
                with self._pool(player, settings.slots if in_frames else lacking) as pool:
                    while lacking := _lacking(settings, self._store):
                        first = 1 + max((record.number for record in self._store.records), default=-1)
                        numbers = range(first, first + min(lacking, pool.slots))
                        played += self._play(pool, player, list(numbers), meter)
        return played

    def _pool(self, player: Player, episodes: int) -> contextlib.closing[Pool]:
        settings = self._config.collect
        # What an `EpisodeRecorder` may hold: half as many windows again as it keeps, and the one that is being played.
        most = (settings.episode_steps or sys.maxsize) * 3 // 2 + 2 * settings.window
        frames = min(most, self._game.episode_steps) + 1
        slots = min(settings.slots, episodes, max(1, RECORDING_BYTES // (frames * FRAME_BYTES)))
        return contextlib.closing(open_pool(self._game, slots, random_start=player.about.get("random_start", False)))

    def _play(self, pool: Pool, player: Player, numbers: list[int], meter: "Meter") -> int:
        """Play the episodes of these numbers into one shard; returns their steps."""
        self._stop.check()
        settings = self._config.collect
        self._seeds += itertools.islice(self._numbered, max(0, max(numbers) + 1 - len(self._seeds)))
        seeds = [self._seeds[number] for number in numbers]
        policy, most = player.policy(seeds, pool.slots), settings.episode_steps or sys.maxsize
        recorder = Recorder(policy, len(seeds), settings.window, most, stepped=meter.step, ended=meter.end)
        played = play(pool, seeds, recorder, stop=self._stop, watch=recorder.watch)
        with self._store.new_shard(player.about) as shard:
            for number, seed, recording in zip(numbers, seeds, recorder.recordings, strict=True):
                for episode in recording.episodes(seed):
                    shard.add(episode, split_of(number, settings.test_fraction), number)
        return int(played.lengths.sum())


def episode_seeds(seed: int) -> Iterator[int]:
    """The seeds of episodes 0, 1, ...: all different."""
    seen: set[int] = set()
    for i in itertools.count():
        attempts = (streams.integer(seed, "collect", i, attempt) for attempt in itertools.count())
        found = next(number for number in attempts if number not in seen)
        seen.add(found)
        yield found


class Meter:
    """Shows how far collecting is: ended episodes or recorded frames, and the steps that were played for them.

    Each step counts as a frame while its episode is played; what is kept of it is only known in the end.
    """

    def __init__(self, progress: Progress, in_frames: bool):
        self._progress, self._in_frames = progress, in_frames
        self._steps = 0

    def step(self, count: int) -> None:
        """So many steps more were played."""
        self._steps += count
        self._progress.advance(count if self._in_frames else 0, steps=self._steps)

    def end(self, frames: int, steps: int) -> None:
        """An episode of so many steps has ended, of which so many frames are kept."""
        self._progress.advance(frames - steps if self._in_frames else 1, steps=self._steps)
