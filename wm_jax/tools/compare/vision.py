"""What an auto-encoder sees of held-out frames, and what its latent is like: the figures of a comparison."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.evaluation.autoencoding import decode, encode
from wm_jax.evaluation.vae_measures import latents, pictures, samples
from wm_jax.models.latents import Codes, Gaussian, LatentKind
from wm_jax.models.preprocess import to_float, to_uint8
from wm_jax.models.vae import Batch, Update
from wm_jax.tools.compare.held_out import HeldOut
from wm_jax.utils import moving_pixels
from wm_jax.utils.arrays import evenly_spaced, in_batches

BATCH = 100
EVERY = 4
"""Of consecutive frames every so many-th is looked at for what moves."""
DRAWN = 500
"""Frames that are drawn from the prior, to be held against as many real ones."""

Figures = dict[str, float]


class Seen(NamedTuple):
    """What an auto-encoder makes of F frames.

    latent: its arrays, [F, ...].
    z: float32[F, Z], the mode.
    decoded: uint8[F, 64, 64, 3], from the mode.
    kl: float, of the loss, on average over whole batches (the last one may be filled up with copies).
    """

    latent: Any
    z: np.ndarray
    decoded: np.ndarray
    kl: float


def see(graphdef: Any, params: Any, frames: np.ndarray, step: int, data_size: int) -> Seen:
    """Encode and decode all frames, a batch at a time.

    Args:
      step: updates that it was trained for, which weights of its loss may depend on.
    """
    latent, z = encode((graphdef, params), frames)
    decoded = decode((graphdef, params), z)
    whole = frames[: len(frames) // BATCH * BATCH] if len(frames) > BATCH else frames
    kls = in_batches(lambda piece, _: _kl(graphdef, params, piece, jnp.int32(step), data_size), whole, BATCH)
    return Seen(latent, z, decoded, float(np.mean(kls)))


@partial(jax.jit, static_argnums=(0, 4))
def _kl(graphdef: Any, params: Any, frames: jax.Array, step: jax.Array, data_size: int) -> jax.Array:
    """The loss's own of a batch, for each of its frames."""
    update = Update(jax.random.key(0), step, data_size, training=False)
    return jnp.broadcast_to(nnx.merge(graphdef, params).loss(Batch(frames), update)[1]["kl"], (len(frames),))


def sampled(graphdef: Any, params: Any, frames: np.ndarray) -> np.ndarray:
    """One z of each frame, float32[F, Z], drawn from its posterior."""
    return in_batches(lambda piece, first: _sampled(graphdef, params, piece, jax.random.key(1 + first)), frames, BATCH)


@partial(jax.jit, static_argnums=0)
def _sampled(graphdef: Any, params: Any, frames: jax.Array, key: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, params).encode(to_float(frames)).sample(key)


def of_pictures(held_out: HeldOut, decoded: np.ndarray) -> Figures:
    """How near reconstructions uint8[F, 64, 64, 3] of all held-out frames are."""
    frames = held_out.frames
    moving, explained, place = [], [], 0
    for stretch in held_out.stretches:
        drawn = decoded[place : place + len(stretch.frames)]
        places = np.arange(0, len(stretch.frames), EVERY)
        moving.append(pictures.moving_error(stretch.frames, drawn, places))
        explained.append(moving_pixels.moving(stretch.frames, drawn, places))
        place += len(stretch.frames)
    return {
        "error": float(pictures.squared_error(frames, decoded).mean()),
        "psnr": float(pictures.psnr(frames, decoded).mean()),
        "ssim": float(pictures.ssim(frames, decoded).mean()),
        "moving_error": pictures.PixelError.concatenate(moving).mean,
        "rare_error": pictures.rare_error(frames, decoded, held_out.palette).mean,
        "moving_explained": moving_pixels.Moving.concatenate(explained).explained,
    }


def of_latents(seen: Seen, kind: LatentKind, *, has_kl: bool) -> Figures:
    """How much of its latent an auto-encoder uses.

    Args:
      has_kl: its metric `kl` is one: others have another divergence in its place.
    """
    figures = {"active_units": latents.active_units(seen.z), "size": float(kind.size)}
    if has_kl:
        figures["kl"] = seen.kl
    if isinstance(seen.latent, Gaussian):
        mean, log_var = np.asarray(seen.latent.mean), np.asarray(seen.latent.log_var)
        figures["effective_dimensions"] = latents.effective_dimensions(latents.kl_per_dimension(mean, log_var))
        figures["mutual_information"] = latents.mutual_information(mean, log_var, np.random.default_rng(0))
    if kind.classes is not None:
        indices = np.asarray(seen.latent.target(jax.random.key(0)))
        used = latents.usage(indices, kind.classes[1], shared=isinstance(seen.latent, Codes))
        figures |= {"codes_in_use": used.used, "classes": kind.classes[1], "perplexity": used.perplexity}
    return figures


def of_samples(graphdef: Any, params: Any, frames: np.ndarray) -> tuple[Figures, np.ndarray]:
    """How far pictures of the prior are from real ones; and these pictures uint8[DRAWN, 64, 64, 3]."""
    real = frames[evenly_spaced(len(frames), DRAWN)]
    drawn = np.asarray(_draw(graphdef, params, len(real)))
    apart = samples.distances(real, drawn)
    return {"sample_frechet": apart.frechet, "sample_wasserstein": apart.sliced_wasserstein}, drawn


@partial(jax.jit, static_argnums=(0, 2))
def _draw(graphdef: Any, params: Any, count: int) -> jax.Array:
    vae = nnx.merge(graphdef, params)
    return to_uint8(vae.decode(vae.prior(jax.random.key(0), count)))


def traversals(graphdef: Any, params: Any, frame: np.ndarray, z: np.ndarray, rows: int = 8) -> np.ndarray:
    """uint8[rows, 7, 64, 64, 3]: one frame, with one number of its z moved over the range that it has in all frames.

    The numbers are those that change the picture most: of some auto-encoders, parts of z are not decoded at all.

    Args:
      z: float32[F, Z] of many frames.
    """
    own = encode((graphdef, params), frame[None])[1][0]
    steps = np.linspace(0.02, 0.98, 7)
    values = np.quantile(z, steps, axis=0)  # [7, Z]

    def drawn(numbers: np.ndarray, at: np.ndarray) -> np.ndarray:
        """uint8[N, S, 64, 64, 3]: N numbers, each at S of the values."""
        moved = np.tile(own, (len(numbers), len(at), 1))
        moved[np.arange(len(numbers)), :, numbers] = values[at][:, numbers].T
        flat = moved.reshape(-1, z.shape[1])
        return decode((graphdef, params), flat).reshape(len(numbers), len(at), *frame.shape)

    lowest, highest = np.moveaxis(drawn(np.arange(z.shape[1]), np.array([0, -1])).astype(np.float32), 1, 0)
    change = np.square(highest - lowest).sum((1, 2, 3))
    return drawn(np.argsort(-change)[:rows], np.arange(len(steps)))


def sizes(params: Any) -> Mapping[str, int]:
    """How many numbers are learned."""
    return {"parameters": int(sum(leaf.size for leaf in jax.tree.leaves(params)))}
