"""What V sees of every phase of Enduro's day: figures for each, and a sheet with a row for each.

    python tests/campaigns/enduro_day.py --run DIR [--who agent] [--games 4] [--sheet enduro-day.png]

A day is some 3,300 agent steps: daylight, snow, daylight again, dusk, night, fog, dawn, each with other colours. The
run's agent, or a random action that is held for a while, plays whole official games with the seeds of bin/evaluate. For
each stretch of 300 steps: V's squared error, and the share of the moving pixels' variance that the reconstructions
explain, as pictures and as changes (`wm_jax/utils/moving_pixels.py`). On the sheet, a row holds eight frames of one
stretch above their reconstructions.
"""

import argparse
import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wm_jax.config.layers import load
from wm_jax.config.schema import ControllerConfig
from wm_jax.data.episodes import Episode
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.official import official
from wm_jax.evaluation import inspection
from wm_jax.render.sheets import reconstruction_sheet
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.exploration import RandomPolicy
from wm_jax.rollout.play import play
from wm_jax.rollout.recording import Recorder
from wm_jax.run.artifacts import load_agent, load_world
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import graceful_stop
from wm_jax.stages.evaluate import FIRST_SEED
from wm_jax.utils import moving_pixels

STRETCH = 300
COLUMNS = 8


def main() -> None:
    """Print the table and write the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--who", choices=("agent", "held"), default="agent")
    parser.add_argument("--games", type=int, default=4)
    parser.add_argument("--sheet", type=Path, default=Path("enduro-day.png"))
    options = parser.parse_args()
    config = load("enduro", "atari", options.preset)
    game = official(find(config.game, config.env))
    seeds = [FIRST_SEED + i for i in range(options.games)]
    if options.who == "agent":
        world, controller, _ = load_agent(Run(options.run), config)
        policy = AgentPolicy(world.agent, world.params(controller), np.zeros(len(seeds), np.int32), seeds, len(seeds))
    else:
        world = load_world(Run(options.run), config, game, ControllerConfig(inputs="z"))
        policy = RandomPolicy("held", game.actions, seeds, game.episode_steps, config.collect.hold)
    recorder = Recorder(policy, len(seeds), game.episode_steps, game.episode_steps)
    with graceful_stop() as stop, contextlib.closing(open_pool(game, len(seeds), official=True)) as pool:
        play(pool, seeds, recorder, stop=stop, watch=recorder.watch)
    episodes = [next(each.episodes(seed)) for each, seed in zip(recorder.recordings, seeds, strict=True)]
    inspector = inspection.Inspector(world, config.memory.sequence)
    looked = [inspector.look(episode) for episode in episodes]
    longest = max(len(episode.frames) for episode in episodes)
    rows = []
    print(f"{'steps':>12}  {'error':>6}  {'picture':>7}  {'change':>6}")
    for begin in range(0, longest - STRETCH // 2, STRETCH):
        whole = begin + 2 * STRETCH > longest  # the last one takes the rest
        end = longest if whole else begin + STRETCH
        error = np.concatenate([each.error[begin:end] for each in looked]).mean()
        parts = [_moving(*each, begin, end) for each in zip(episodes, looked, strict=True)]
        picture = 1 - sum(part[0] for part in parts) / sum(part[1] for part in parts)
        change = moving_pixels.Moving.concatenate([part[2] for part in parts]).explained
        print(f"{begin:>5} -{end:>5}  {error:6.1f}  {picture:7.2f}  {change:6.2f}", flush=True)
        rows.append(np.linspace(begin, end - 1, COLUMNS + 2).astype(int)[1:-1])
        if whole:
            break
    figures = inspection.figures(looked)
    print(f"{'all':>12}  {figures['error']:6.1f}")
    places = np.concatenate([row[row < len(episodes[0].frames)] for row in rows])
    reconstruction_sheet(
        episodes[0].frames[places],
        looked[0].decoded[places],
        options.sheet,
        columns=COLUMNS,
        title=f"Enduro, {STRETCH} steps a row, real above decoded",
    )


def _moving(
    episode: Episode, looked: inspection.Looked, begin: int, end: int
) -> tuple[float, float, moving_pixels.Moving]:
    """In part of a game: what the pictures miss of what moves, its variance, and how it changes."""
    frames, decoded = episode.frames, looked.decoded
    places = np.arange(begin, min(end, len(frames)), 3)
    missed = variance = 0.0
    for place in places.tolist():
        still = moving_pixels.background(frames, place)
        real, drawn, around = (_levels(each) for each in (frames[place], decoded[place], still))
        moves = (np.abs(real - around) > moving_pixels.MOVED).any(axis=-1)
        missed += float(np.square(real - drawn)[moves].sum())
        variance += float(np.square(real - around)[moves].sum())
    return missed, variance, moving_pixels.moving(frames, decoded, places)


def _levels(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    return frame.astype(np.float32) / np.float32(255)


if __name__ == "__main__":
    main()
