"""V on many frames, a batch of one size at a time, from the host to the host."""

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from wm_jax.models.preprocess import to_float, to_uint8

BATCH = 64

Network = tuple[Any, Any]
"""V's graph definition and variables."""


def encode(vae: Network, frames: UInt8[np.ndarray, "N side side 3"]) -> tuple[Any, Float[np.ndarray, "N Z"]]:
    """What V makes of frames: latents, their arrays [N, ...], and z, their modes."""
    return _in_batches(partial(_encode, *vae), frames)


def decode(vae: Network, z: Float[np.ndarray, "N Z"]) -> UInt8[np.ndarray, "N side side 3"]:
    """The frames of z."""
    return _in_batches(partial(_decode, *vae), z)


def _in_batches(function: Any, rows: np.ndarray) -> Any:
    """The function of all rows; the last real one fills up the last batch."""
    found = []
    for start in range(0, len(rows), BATCH):
        piece = rows[start : start + BATCH]
        count = len(piece)
        filled = np.concatenate([piece, np.repeat(piece[-1:], BATCH - count, axis=0)])
        found.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], function(filled)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: Any, variables: Any, frames: Array) -> tuple[Any, Array]:
    latent = nnx.merge(graphdef, variables).encode(to_float(frames))
    return latent, latent.mode()


@partial(jax.jit, static_argnums=0)
def _decode(graphdef: Any, variables: Any, z: Array) -> Array:
    return to_uint8(nnx.merge(graphdef, variables).decode(z))
