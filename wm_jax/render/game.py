"""A game as V sees it: an episode on video, each frame beside its reconstruction."""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from wm_jax.envs.types import Pool, Step
from wm_jax.models.preprocess import to_float, to_uint8
from wm_jax.render.video import side_by_side, write_video
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.play import play
from wm_jax.run.artifacts import WorldModel
from wm_jax.run.interrupt import Stop

SCALE = 5
DECODE_BATCH = 64


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
    frames: list[np.ndarray] = []
    scores: list[float] = []

    def watch(step: Step, done: np.ndarray) -> None:
        frames.append(step.frames[0].copy())
        scores.append((scores[-1] if scores else 0.0) + float(step.reward[0]))

    policy = AgentPolicy(world.agent, world.params(controller), np.zeros(1, np.int32), [seed], pool.slots)
    play(pool, [seed], policy, stop=stop, watch=watch)
    decoded = reconstruct(world, np.stack(frames))

    def pictures() -> Iterator[np.ndarray]:
        for real, dream, score in zip(frames, decoded, scores, strict=True):
            stop.check()
            yield side_by_side(real, dream, SCALE, f"score {score:,.2f}".removesuffix(".00"))

    write_video(path, pictures(), fps)


def reconstruct(world: WorldModel, frames: np.ndarray) -> np.ndarray:
    """uint8 [N, 64, 64, 3] encoded to the latent's mode and decoded again."""

    @jax.jit
    def look(params: object, frames: jax.Array) -> jax.Array:
        vae = nnx.merge(world.agent.vae, params)
        return to_uint8(vae.decode(vae.encode(to_float(frames)).mode()))

    padded = np.concatenate([frames, np.zeros((-len(frames) % DECODE_BATCH, *frames.shape[1:]), np.uint8)])
    pieces = [
        np.asarray(look(world.base_params.vae, padded[i : i + DECODE_BATCH]))
        for i in range(0, len(padded), DECODE_BATCH)
    ]
    return np.concatenate(pieces)[: len(frames)]
