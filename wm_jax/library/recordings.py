"""Recordings from elsewhere become the run's replays (`data/importing.py`: what they may be)."""

from typing import Any

from wm_jax.config.schema import Config
from wm_jax.data.episodes import split_of
from wm_jax.data.importing import Recording, arguments_for, episodes, spans, stretch_of
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed.progress import Progress, log
from wm_jax.envs.games import find
from wm_jax.envs.spaces import Continuous
from wm_jax.envs.types import Game
from wm_jax.run import checkpoints
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.utils.errors import UserError

RECORDINGS_TOGETHER = 32
"""In one shard."""


def import_recordings(config: Config, run: Run, stop: Stop, found: list[Recording]) -> dict[str, Any]:
    """Make them the run's replays.

    Raises:
      UserError: the run has replays already, or the recordings do not fit each other or the game.
    """
    config = with_actions_of(found, config)
    game, stretch = find(config.game, config.env), stretch_of(found)
    _require_both_splits(found, stretch, config.collect.test_fraction)
    stage = run.stage("replays")
    settings = {"game": config.game, "seed": config.seed, "env": config.env.fixed(), "collect": config.collect.fixed()}
    with stage.lock():
        require_no_replays(run)
        if stage.manifest() is not None:  # an import that was stopped is begun again, perhaps with other recordings
            stage.set_all_aside()
        stage.claim(settings, {}, config.model_dump())
        store = ReplayStore.open_or_create(stage.path, settings)
        log(f"replays: {sum(len(each.frames) for each in found):,} frames of {len(found):,} recordings")
        _write(store, found, game, stretch, config.collect.test_fraction, stop)
        summary = {**store.describe(), "recordings": len(found), "content": digest_of(found)}
        stage.write_summary(summary)
        return summary


def require_no_replays(run: Run) -> None:
    """See that nothing is there yet.

    Raises:
      UserError: the run has finished replays.
    """
    stage = run.stage("replays")
    if stage.summary() is not None:
        raise UserError(f"{stage.path} holds replays already: give another --run, or --fresh to move them aside")


def with_actions_of(found: list[Recording], config: Config) -> Config:
    """The settings with the actions that these recordings have; of a game of the catalogue they stay as they are.

    Raises:
      UserError: the actions do not fit each other or the game.
    """
    arguments = arguments_for([each.actions for each in found])
    game = find(config.game, config.env)
    if game.recorded:
        return config.model_copy(update={"env": config.env.model_copy(update={"kwargs": arguments})})
    _require_actions(game, arguments)
    return config


def digest_of(found: list[Recording]) -> str:
    """Of all that the recordings hold."""
    return checkpoints.digest_of([(each.frames, each.actions, each.rewards, each.ends, each.cuts) for each in found])


def _require_both_splits(found: list[Recording], stretch: int, test_fraction: float) -> None:
    """See that there are episodes to train on, and others to test with."""
    count = sum(len(spans(recording, stretch)) for recording in found)
    if len({split_of(number, test_fraction) for number in range(count)}) < 2:
        raise UserError("a single episode can't be split into train and test; give two or more recordings")


def _require_actions(game: Game, arguments: dict[str, Any]) -> None:
    """See that the actions are those of a game of the catalogue."""
    numbers = isinstance(game.actions, Continuous)
    if numbers and len(arguments.get("low", ())) != game.actions.size:
        raise UserError(
            f"actions: {game.name} has {game.actions.size} numbers ({', '.join(game.actions.names)}); give these"
        )
    if not numbers and arguments.get("actions", game.actions.size + 1) > game.actions.size:
        raise UserError(
            f"actions: {game.name} has {game.actions.size} to choose from ({', '.join(game.actions.names)}); give "
            "their positions, from 0"
        )


def _write(
    store: ReplayStore, found: list[Recording], game: Game, stretch: int, test_fraction: float, stop: Stop
) -> None:
    count = 0
    with Progress("import", len(found), "recording") as progress:
        for start in range(0, len(found), RECORDINGS_TOGETHER):
            stop.check()
            with store.new_shard({"policy": "imported"}) as shard:
                for recording in found[start : start + RECORDINGS_TOGETHER]:
                    for episode in episodes(recording, game.actions, count, stretch):
                        shard.add(episode, split_of(count, test_fraction), count)
                        count += 1
                    progress.advance(1)
