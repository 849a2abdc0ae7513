"""What V and M make of games that were played: V's error and M's surprise at every step, and how V draws what moves.

An agent meets other frames than random play did, which V and M were trained on. These figures, beside those on held-out
replays, say whether it still sees the game that it plays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from wm_jax.data.episodes import Episode
from wm_jax.models.preprocess import to_float, to_uint8
from wm_jax.models.vae.losses import squared_error
from wm_jax.run.artifacts import WorldModel
from wm_jax.utils import moving_pixels
from wm_jax.utils.arrays import evenly_spaced, in_batches, padded_size

BATCH = 64
"""Frames of one call of V; windows of one call of M."""
MOVING_FRAMES = 250
"""Frames of a game whose moving pixels are looked at: the background of each takes some milliseconds."""
FAR_ERROR = 2.0
"""V's error is worth a warning where it is more than this many times the error that it is compared with."""
LITTLE_MOVING = 0.25
"""A `Moving.explained` below this is worth a warning: near 0, V reproduces nothing of what moves."""


class Looked(NamedTuple):
    """T steps of a game as V and M see them.

    step: int64[T + 1], each frame's place in the game.
    error: float64[T + 1], squared error of a frame decoded from a sampled z, summed over pixels and channels.
    decoded: uint8[T + 1, 64, 64, 3], frames decoded from the latent's mode.
    surprise: float64[T], M's negative log likelihood of the next z in nats; empty without M.
    moving: the moving pixels of some of the frames.
    """

    step: NDArray[np.int64]
    error: NDArray[np.float64]
    decoded: NDArray[np.uint8]
    surprise: NDArray[np.float64]
    moving: moving_pixels.Moving


@dataclass(frozen=True)
class Inspector:
    """V and M of an agent, looking on.

    world: the agent without its controller.
    sequence: steps after which M begins anew, as in its training and in its held-out figure.
    """

    world: WorldModel
    sequence: int

    def look(self, episode: Episode, moving_frames: int = MOVING_FRAMES) -> Looked:
        """Frame by frame, what V and M make of a recorded stretch of a game.

        Args:
          moving_frames: most frames whose moving pixels are looked at; a game's are shared out over its stretches.
        """
        begin = episode.whole.begin if episode.whole else 0
        seen = self._see(episode.frames)
        places = evenly_spaced(len(episode.frames), moving_frames)
        moving = moving_pixels.moving(episode.frames, seen.decoded, places)
        step = begin + np.arange(len(episode.frames))
        error = seen.error.astype(np.float64)
        return Looked(step, error, seen.decoded, self._predict(seen, episode.actions), moving)

    def _see(self, frames: NDArray[np.uint8]) -> "_Seen":
        """What V makes of every frame."""
        vae = self.world.agent.vae, self.world.base_params.vae
        return _Seen(*in_batches(lambda piece, first: _see(*vae, piece, jax.random.key(first)), frames, BATCH))

    def _predict(self, seen: "_Seen", actions: NDArray[Any]) -> NDArray[np.float64]:
        """M's negative log likelihood of the next frame's target, from zero at every window's beginning."""
        agent = self.world.agent
        if agent.memory is None:
            return np.zeros(0)
        length, count = self.sequence, len(actions)
        windows = -(-count // length)
        rows = padded_size(windows) if windows < BATCH else -(-windows // BATCH) * BATCH
        place = np.minimum(np.arange(rows)[:, None] * length + np.arange(length + 1), count)
        action = np.asarray(agent.controller.actions.encode(jnp.asarray(actions)))
        memory = self.world.base_params.memory
        pieces = []
        for first in range(0, rows, BATCH):
            here = place[first : first + BATCH].T
            taken = action[np.minimum(here[:-1], count - 1)]
            pieces.append(np.asarray(_surprise(agent.memory, memory, seen.z[here], seen.target[here], taken)))
        return np.concatenate(pieces, axis=1).T.reshape(-1)[:count].astype(np.float64)


class _Seen(NamedTuple):
    """What V makes of F frames.

    z: float32[F, Z], drawn.
    target: what M is to predict of it.
    error: float32[F], of the frame decoded from it.
    decoded: uint8[F, 64, 64, 3], from the mode.
    """

    z: Any
    target: Any
    error: Any
    decoded: Any


@partial(jax.jit, static_argnums=0)
def _see(graphdef: Any, params: Any, frames: jax.Array, key: jax.Array) -> _Seen:
    vae, real = nnx.merge(graphdef, params), to_float(frames)
    latent = vae.encode(real)
    z = latent.sample(key)
    decoded = to_uint8(vae.decode(latent.mode()))
    return _Seen(z, latent.target(key), squared_error(vae.decode(z), real), decoded)


@partial(jax.jit, static_argnums=0)
def _surprise(graphdef: Any, params: Any, z: jax.Array, target: jax.Array, action: jax.Array) -> jax.Array:
    """Negative log likelihoods [T, B] of targets [T + 1, B, ...] under M, which is fed z [T + 1, B, Z] and actions
    [T, B, A] from zero.
    """
    memory = nnx.merge(graphdef, params)
    is_first = jnp.zeros(action.shape[:2], bool).at[0].set(True)
    _, h = memory.unroll(memory.init_carry(z.shape[1]), z[:-1], action, is_first)
    return -memory.predict(h).latent.log_prob(target[1:])


def figures(looked: Sequence[Looked]) -> dict[str, float | None]:
    """Means over all steps of some games: error, surprise (nats), and the explained share of what moves."""
    error = np.concatenate([each.error for each in looked])
    surprise = np.concatenate([each.surprise for each in looked])
    explained = moving_pixels.Moving.concatenate([each.moving for each in looked]).explained
    return {
        "error": round(float(error.mean()), 3),
        "surprise": round(float(surprise.mean()), 3) if len(surprise) else None,
        "moving_explained": round(explained, 3) if np.isfinite(explained) else None,
    }


def curve(looked: Sequence[Looked], points: int = 60) -> dict[str, list[float | None]]:
    """Error and surprise over the games' steps: means of about so many equal stretches of steps, null where nothing is.

    Returns:
      step (middle of a stretch), error, surprise (empty without M).
    """
    error_at = np.concatenate([each.step for each in looked])
    surprise_at = np.concatenate([each.step[: len(each.surprise)] for each in looked])
    size = max(1, -(-(int(error_at.max()) + 1) // points))
    stretches = int(error_at.max()) // size + 1

    def means(places: NDArray[np.int64], values: NDArray[np.float64]) -> list[float | None]:
        count = np.bincount(places // size, minlength=stretches)
        total = np.bincount(places // size, values, minlength=stretches)
        return [round(float(t / n), 3) if n else None for t, n in zip(total, count, strict=True)]

    surprise = np.concatenate([each.surprise for each in looked])
    return {
        "step": [(i + 0.5) * size for i in range(stretches)],
        "error": means(error_at, np.concatenate([each.error for each in looked])),
        "surprise": means(surprise_at, surprise) if len(surprise) else [],
    }


def worst(looked: Sequence[Looked], count: int, apart: int = 20) -> list[tuple[int, int]]:
    """(which of the stretches, which of its frames) of the largest errors, worst first, not many of one moment.

    Args:
      apart: steps between two of them.
    """
    found: list[tuple[int, int]] = []
    errors = [(float(error), i, place) for i, each in enumerate(looked) for place, error in enumerate(each.error)]
    for _, i, place in sorted(errors, reverse=True):
        if len(found) == count:
            break
        if all(i != other or abs(place - there) >= apart for other, there in found):
            found.append((i, place))
    return found
