"""Finite scalar quantisation: each number of z is rounded to one of a few levels; a few of them make a code.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505). Nothing is to be learned of a
codebook, and no term is needed beside the error.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import FsqConfig
from wm_jax.models.latents import Codes, LatentKind
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.losses import error, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.utils.errors import UserError

Levels = tuple[int, ...]
"""D of them: how many values each number of a code has."""
MARGIN = 1e-3
"""How far the outermost values stay away from where they would be rounded to one level more."""


class Fsq(Vae):
    """Prior: every level alike."""

    config: FsqConfig

    def __init__(self, config: FsqConfig, rngs: nnx.Rngs):
        if config.latent % len(config.levels):
            raise UserError(
                f"vae.latent {config.latent}: no number of codes of {len(config.levels)} numbers each, as vae.levels "
                "says; give a multiple of that"
            )
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.output = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)

    @property
    def latent_kind(self) -> LatentKind:
        """See `Vae`."""
        levels = self.config.levels
        return LatentKind(self.config.latent, (self.config.latent // len(levels), math.prod(levels)))

    def encode(self, frames: Float[Array, "B side side 3"]) -> Codes:
        """The codes of frames in [0, 1]."""
        rounded = jnp.round(self._bounded(frames))
        z = scaled(rounded, self.config.levels).reshape(len(frames), self.config.latent)
        return Codes(to_indices(rounded, self.config.levels), z)

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def embed(self, target: Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """See `Vae`: the levels of these codes."""
        levels = self.config.levels
        return scaled(from_indices(target, levels), levels).reshape(len(target), self.config.latent)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Codes drawn uniformly."""
        kind = self.latent_kind
        assert kind.classes is not None
        return self.embed(jax.random.randint(key, (count, kind.classes[0]), 0, kind.classes[1], jnp.int32))

    def loss(self, batch: Batch, update: Update) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The error alone, summed over pixels and averaged over B.

        Returns:
          The loss, and the metrics loss, reconstruction, and kl: from all codes alike, the same for every frame.
        """
        bounded = self._bounded(batch.seen)
        rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)  # straight through: section 3.1
        z = scaled(rounded, self.config.levels).reshape(len(bounded), self.config.latent)
        decoded, target = self.decode(z), batch.target
        loss = jnp.mean(error(decoded, target, batch.weights, self.config))
        return loss, {
            "loss": loss,
            "reconstruction": jnp.mean(squared_error(decoded, target)),
            "kl": jnp.float32(bounded.shape[1] * math.log(math.prod(self.config.levels))),
        }

    def _bounded(self, frames: Array) -> Array:
        """What is to be rounded, [B, G, D]."""
        output = self.output(self.encoder(frames))
        return bounded(output.reshape(len(frames), -1, len(self.config.levels)), self.config.levels)


def bounded(z: Float[Array, "B G D"], levels: Levels) -> Float[Array, "B G D"]:
    """Numbers in such bounds that rounding has `levels` values, -(L // 2) to (L - 1) // 2: appendix A.1.

    Where L is even these are not symmetric: half a level lower, and what is bounded is shifted so that 0 stays 0.
    """
    count = np.array(levels)
    half = (count - 1) * (1 - MARGIN) / 2
    lower = np.where(count % 2 == 0, 0.5, 0.0)
    shift = np.tan(lower / half)  # hardly different from arctanh, which two levels have none of
    half, lower, shift = (jnp.asarray(each, z.dtype)[None, None, :] for each in (half, lower, shift))
    return half * jnp.tanh(z + shift) - lower


def scaled(rounded: Float[Array, "B G D"], levels: Levels) -> Float[Array, "B G D"]:
    """Rounded numbers as the decoder sees them, in [-1, 1]."""
    return rounded / jnp.asarray(np.array(levels) // 2, rounded.dtype)[None, None, :]


def to_indices(rounded: Float[Array, "B G D"], levels: Levels) -> Int32[Array, "B G"]:
    """The number of each code among all: its levels, counted from 0, as the digits of a number, the lowest first."""
    count, place = _digits(levels)
    return jnp.sum((rounded.astype(jnp.int32) + count // 2) * place, axis=-1, dtype=jnp.int32)


def from_indices(indices: Int32[Array, "B G"], levels: Levels) -> Float[Array, "B G D"]:
    """The rounded numbers of codes: `to_indices` the other way round."""
    count, place = _digits(levels)
    return (indices[..., None] // place % count - count // 2).astype(jnp.float32)


def _digits(levels: Levels) -> tuple[Array, Array]:
    """How many values each digit has, and what one of them counts: [1, 1, D] each."""
    place = np.cumprod((1, *levels[:-1]))
    return tuple(jnp.asarray(each, jnp.int32)[None, None, :] for each in (np.array(levels), place))  # pyright: ignore
