"""Checks that a custom auto-encoder keeps the contract, on shapes alone: mistakes are found before training."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.utils.errors import UserError
from wm_jax.utils.sizes import FRAME
from wm_jax.utils.user_classes import blamed_on

METRICS = ("loss", "reconstruction", "kl")
"""What `Vae.loss` must return beside the loss."""
ROWS = 2
"""Frames of the batch that is tried."""


def check_contract(vae: Vae, name: str) -> None:
    """Check that encode, decode and the losses take and return what the contract says.

    Args:
      name: by which the user named the auto-encoder, for error messages.

    Raises:
      UserError: one of them fails, or returns something else.
    """
    graphdef, variables = nnx.split(vae)
    real = jax.ShapeDtypeStruct((ROWS, *FRAME), jnp.float32)
    stored = jax.ShapeDtypeStruct((ROWS, *FRAME), jnp.uint8)
    with blamed_on(f"{name}: its encode fails"):
        latent = jax.eval_shape(lambda v, frames: nnx.merge(graphdef, v).encode(frames), variables, real)
        z = jax.eval_shape(lambda latent: latent.sample(jax.random.key(0)), latent)
        mode = jax.eval_shape(lambda latent: latent.mode(), latent)
    for what, found in (("sample", z), ("mode", mode)):
        _require_shape(f"{name}: the {what} of what encode returns", found, (vae.config.latent,), "vae.latent says so")
    with blamed_on(f"{name}: its decode fails"):
        decoded = jax.eval_shape(lambda v, z: nnx.merge(graphdef, v).decode(z), variables, z)
    _require_shape(f"{name}: what decode returns", decoded, FRAME, "frames have it")
    for objective in vae.objectives:
        with blamed_on(f"{name}: its {objective.loss} fails"):
            loss, metrics = jax.eval_shape(
                lambda v, frames, objective=objective: objective.of(nnx.merge(graphdef, v))(
                    Batch(frames), Update(jax.random.key(0))
                ),
                variables,
                stored,
            )
        missing = [each for each in METRICS if each not in metrics] if objective.loss == "loss" else []
        if loss.shape != () or missing:
            wrong = f"the metrics lack {', '.join(missing)}" if missing else f"the loss is {loss.shape}, not one number"
            raise UserError(f"{name}: of what its {objective.loss} returns {wrong}; mend it")


def _require_shape(what: str, found: Any, wanted: tuple[int, ...], why: str) -> None:
    if found.shape != (ROWS, *wanted):
        raise UserError(f"{what} has shape {found.shape[1:]} for each frame, but it must be {wanted}: {why}; mend it")
