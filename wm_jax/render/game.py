"""A game as V sees it: an episode on video, each frame beside its reconstruction."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from wm_jax.envs.types import Pool
from wm_jax.evaluation.autoencoding import decode, encode
from wm_jax.render.video import side_by_side, write_video
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.play import play
from wm_jax.rollout.recording import Recorder
from wm_jax.run.artifacts import WorldModel
from wm_jax.run.interrupt import Stop

SCALE = 5


def record_game(
    pool: Pool, seed: int, world: WorldModel, controller: jax.Array, path: Path, fps: float, stop: Stop
) -> None:
    """Play one episode and write it as MP4.

    Args:
      pool: one slot is enough.
      controller: float32[n_params].
      fps: agent frames per second of the game.
      stop: checked now and then; an interrupted film leaves nothing behind.
    """
    policy = AgentPolicy(world.agent, world.params(controller), np.zeros(1, np.int32), [seed], pool.slots)
    longest = pool.episode_steps
    recorder = Recorder(policy, 1, longest, longest)
    play(pool, [seed], recorder, stop=stop, watch=recorder.watch)
    (episode,) = recorder.recordings[0].episodes(seed)
    frames, scores = episode.frames[1:], np.cumsum(episode.rewards, dtype=np.float64).tolist()
    vae = world.agent.vae, world.base_params.vae
    decoded = decode(vae, encode(vae, frames)[1])

    def pictures() -> Iterator[np.ndarray]:
        for real, drawn, score in zip(frames, decoded, scores, strict=True):
            stop.check()
            yield side_by_side((real, drawn), scale=SCALE, line=f"score {score:,.2f}".removesuffix(".00"))

    write_video(path, pictures(), fps)
