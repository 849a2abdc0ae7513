"""V on many frames, a batch of one size at a time, from the host to the host."""

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from wm_jax.models.preprocess import to_float, to_uint8
from wm_jax.utils.arrays import in_batches

BATCH = 64

Network = tuple[Any, Any]
"""V's graph definition and variables."""


def encode(vae: Network, frames: UInt8[np.ndarray, "N side side 3"]) -> tuple[Any, Float[np.ndarray, "N Z"]]:
    """What V makes of frames: latents, their arrays [N, ...], and z, their modes."""
    return in_batches(lambda piece, _: _encode(*vae, piece), frames, BATCH)


def decode(vae: Network, z: Float[np.ndarray, "N Z"]) -> UInt8[np.ndarray, "N side side 3"]:
    """The frames of z."""
    return in_batches(lambda piece, _: _decode(*vae, piece), z, BATCH)


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: Any, variables: Any, frames: Array) -> tuple[Any, Array]:
    latent = nnx.merge(graphdef, variables).encode(to_float(frames))
    return latent, latent.mode()


@partial(jax.jit, static_argnums=0)
def _decode(graphdef: Any, variables: Any, z: Array) -> Array:
    return to_uint8(nnx.merge(graphdef, variables).decode(z))
