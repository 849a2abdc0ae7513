"""Checks that a custom auto-encoder keeps the contract, on shapes alone: mistakes are found before training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wm_jax.models.latents import LatentKind
from wm_jax.models.vae.contract import Batch, Objective, Update, Vae
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME
from wm_jax.utils.user_classes import blamed_on

METRICS = ("loss", "reconstruction", "kl")
"""What `Vae.loss` must return beside the loss."""
ROWS = 2
"""Frames of the batch that is tried."""


def check_contract(vae: Vae, name: str) -> None:
    """Check that all methods take and return what the contract says.

    Args:
      name: by which the user named the auto-encoder, for error messages.

    Raises:
      UserError: a method fails or returns something else, or an attribute has an impossible value.
    """
    if vae.conditioned_on not in (None, "action"):
        raise UserError(f"{name}: its conditioned_on is {vae.conditioned_on!r}; give 'action' or None")
    with blamed_on(f"{name}: its latent_kind fails"):
        kind = LatentKind(*vae.latent_kind)
    if kind.size != vae.config.latent:
        raise UserError(
            f"{name}: its latent_kind has the size {kind.size}, but vae.latent is {vae.config.latent}; mend it"
        )
    z = _check_latents(vae, name, kind)
    decoded = _shapes(vae, f"{name}: its decode", lambda vae, z: vae.decode(z), z)
    _require_shape(f"{name}: what decode returns", decoded, FRAME, "frames have it")
    for objective in vae.objectives:
        _check_loss(vae, name, objective)


def _check_latents(vae: Vae, name: str, kind: LatentKind) -> Any:
    """Check encode, the latents that it returns, embed and prior.

    Returns:
      The shape of a sampled z.
    """
    key, z_shape, reason = jax.random.key(0), (kind.size,), "vae.latent says so"
    frames = jax.ShapeDtypeStruct((ROWS, *FRAME), jnp.float32)
    latent = _shapes(vae, f"{name}: its encode", lambda vae, frames: vae.encode(frames), frames)
    with blamed_on(f"{name}: what its encode returns fails"):
        z, target, mode = jax.eval_shape(lambda each: (each.sample(key), each.target(key), each.mode()), latent)
    _require_shape(f"{name}: the sample of what encode returns", z, z_shape, reason)
    _require_shape(f"{name}: the mode of what encode returns", mode, z_shape, reason)
    target_shape = z_shape if kind.classes is None else kind.classes[:1]
    _require_shape(f"{name}: the target of what encode returns", target, target_shape, "latent_kind says so")
    embedded = _shapes(vae, f"{name}: its embed", lambda vae, target: vae.embed(target), target)
    _require_shape(f"{name}: what embed returns", embedded, z_shape, reason)
    drawn = _shapes(vae, f"{name}: its prior", lambda vae: vae.prior(key, ROWS))
    _require_shape(f"{name}: what prior returns", drawn, z_shape, reason)
    return z


def _check_loss(vae: Vae, name: str, objective: Objective) -> None:
    frames = jax.ShapeDtypeStruct((ROWS, *FRAME), jnp.uint8)
    loss, metrics = _shapes(
        vae,
        f"{name}: its {objective.loss}",
        lambda vae, frames: objective.of(vae)(Batch(frames), Update(jax.random.key(0))),
        frames,
    )
    missing = [each for each in METRICS if each not in metrics] if objective.loss == "loss" else []
    if loss.shape != () or missing:
        wrong = f"the metrics lack {', '.join(missing)}" if missing else f"the loss is {loss.shape}, not one number"
        raise UserError(f"{name}: of what its {objective.loss} returns {wrong}; mend it")


def _shapes(vae: Vae, what: str, function: Callable[..., Any], *given: Any) -> Any:
    """The shapes of what a function of the auto-encoder, and of arrays with the given shapes, returns.

    Args:
      what: it calls, for error messages.
    """
    graphdef, variables = nnx.split(vae)
    with blamed_on(f"{what} fails"):
        return jax.eval_shape(lambda v, *arrays: function(nnx.merge(graphdef, v), *arrays), variables, *given)


def _require_shape(what: str, found: Any, wanted: tuple[int, ...], why: str) -> None:
    if found.shape != (ROWS, *wanted):
        raise UserError(f"{what} has shape {found.shape[1:]} for each frame, but it must be {wanted}: {why}; mend it")
