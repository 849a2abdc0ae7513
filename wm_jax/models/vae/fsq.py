"""Finite scalar quantisation: each number of z is rounded to one of a few levels; a few such numbers make a code.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505). There is no codebook to learn,
and the loss needs no term beside the error.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import FsqConfig
from wm_jax.models.latents import Codes, LatentKind
from wm_jax.models.straight_through import straight_through
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.losses import reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.models.vae.places import require_whole_parts
from wm_jax.utils.errors import UserError

LevelCounts = tuple[int, ...]
"""How many levels each of the D numbers of a code has."""
MARGIN = 1e-3
"""The share by which the bounds are narrower, so that the outermost values are not rounded to one level more."""


class Fsq(Vae):
    """Prior: uniform over all codes."""

    config: FsqConfig

    def __init__(self, config: FsqConfig, rngs: nnx.Rngs):
        """The networks.

        Raises:
          UserError: `latent` is not a multiple of the number of `levels`, or a code would lie across two parts of z.
        """
        if config.latent % len(config.levels):
            raise UserError(
                f"vae.latent {config.latent}: it cannot be divided into codes of {len(config.levels)} numbers, as "
                "vae.levels says; give a multiple of that"
            )
        require_whole_parts(config, len(config.levels), "a code (vae.levels)")
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.output = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)
        self.codes_per_frame = config.latent // len(config.levels)
        self.codes = math.prod(config.levels)

    @property
    def latent_kind(self) -> LatentKind:
        """See `Vae`."""
        return LatentKind(self.config.latent, (self.codes_per_frame, self.codes))

    def encode(self, frames: Float[Array, "B side side 3"]) -> Codes:
        """The codes of frames in [0, 1]."""
        rounded = jnp.round(self._bounded(frames))
        return Codes(to_indices(rounded, self.config.levels), self._to_z(rounded))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def embed(self, target: Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """See `Vae`: the numbers of these codes."""
        return self._to_z(from_indices(target, self.config.levels))

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Codes drawn uniformly."""
        return self.embed(jax.random.randint(key, (count, self.codes_per_frame), 0, self.codes, jnp.int32))

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """The error alone, summed over pixels and averaged over the batch.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`), and kl: of a chosen code
          from the uniform distribution over all codes, which is the same for every frame.
        """
        bounded = self._bounded(batch.encoder_input)
        rounded = straight_through(jnp.round(bounded), bounded)  # section 3.1
        loss, metrics = reconstruction_error(self.decode(self._to_z(rounded)), batch, self.config)
        return loss, {"loss": loss, **metrics, "kl": jnp.float32(self.codes_per_frame * math.log(self.codes))}

    def _bounded(self, frames: Array) -> Array:
        """The encoder's outputs before rounding, [B, G, D]."""
        output = self.output(self.encoder(frames))
        return bounded(output.reshape(len(frames), self.codes_per_frame, -1), self.config.levels)

    def _to_z(self, rounded: Array) -> Array:
        """[B, G, D] as the decoder's input [B, Z]."""
        return to_unit_range(rounded, self.config.levels).reshape(len(rounded), self.config.latent)


def bounded(z: Float[Array, "B G D"], levels: LevelCounts) -> Float[Array, "B G D"]:
    """The numbers within bounds such that rounding gives L levels: the integers from -(L // 2) to (L - 1) // 2.

    As in appendix A.1. For even L the levels are not symmetric about 0, so the bounds lie half a level lower; the input
    is shifted so that 0 stays near 0.
    """
    count = np.array(levels)
    half = (count - 1) * (1 - MARGIN) / 2
    lower = np.where(count % 2 == 0, 0.5, 0.0)
    shift = np.tan(lower / half)  # close to arctanh, which does not exist for two levels
    half, lower, shift = (jnp.asarray(each, z.dtype)[None, None, :] for each in (half, lower, shift))
    return half * jnp.tanh(z + shift) - lower


def to_unit_range(rounded: Float[Array, "B G D"], levels: LevelCounts) -> Float[Array, "B G D"]:
    """Rounded numbers in [-1, 1], as the decoder sees them."""
    return rounded / jnp.asarray(np.array(levels) // 2, rounded.dtype)[None, None, :]


def to_indices(rounded: Float[Array, "B G D"], levels: LevelCounts) -> Int32[Array, "B G"]:
    """The index of each code: its levels, counted from 0, are the digits of this number, the lowest digit first."""
    count, place = _digits(levels)
    return jnp.sum((rounded.astype(jnp.int32) + count // 2) * place, axis=-1, dtype=jnp.int32)


def from_indices(indices: Int32[Array, "B G"], levels: LevelCounts) -> Float[Array, "B G D"]:
    """The rounded numbers of codes: the inverse of `to_indices`."""
    count, place = _digits(levels)
    return (indices[..., None] // place % count - count // 2).astype(jnp.float32)


def _digits(levels: LevelCounts) -> tuple[Array, Array]:
    """How many values each digit has, and its place value: [1, 1, D] each."""
    place = np.cumprod((1, *levels[:-1]))
    return jnp.asarray(levels, jnp.int32)[None, None, :], jnp.asarray(place, jnp.int32)[None, None, :]
