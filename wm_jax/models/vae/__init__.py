"""Auto-encoders behind one contract; `make_vae` builds the one that the settings name."""

from typing import Any, Protocol

import jax
from flax import nnx

from wm_jax.config import VaeConfig
from wm_jax.models.vae.losses import Posterior
from wm_jax.models.vae.vanilla import Vanilla

__all__ = ["Posterior", "Vae", "loss_and_grad", "make_vae"]


class Vae(Protocol):
    """What every auto-encoder offers. B batch, Z latent."""

    config: VaeConfig

    def encode(self, frames: jax.Array) -> Posterior:
        """Float frames [B, 64, 64, 3] in [0, 1] -> Posterior of [B, Z]."""
        ...

    def decode(self, z: jax.Array) -> jax.Array:
        """Z [B, Z] -> frames [B, 64, 64, 3] in [0, 1]."""
        ...

    def loss(
        self, frames: jax.Array, key: jax.Array, *, training: bool = True
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """uint8 frames [B, 64, 64, 3] -> scalar loss; scalar metrics with at least loss, reconstruction, kl."""
        ...


VARIANTS = {"vanilla": Vanilla}


def make_vae(config: VaeConfig, rngs: nnx.Rngs) -> Vae:
    """The auto-encoder of `config.variant`, an NNX module with fresh weights."""
    return VARIANTS[config.variant](config, rngs)


def loss_and_grad(
    graphdef: nnx.GraphDef, params: Any, frames: jax.Array, key: jax.Array
) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Any]:
    """The training loss and its gradient; to be called inside `jax.jit`.

    Args:
      graphdef, params: of `nnx.split(make_vae(...))`.
      frames: uint8 [B, 64, 64, 3].
      key: one per update.

    Returns:
      ((loss, metrics), gradients shaped like params).
    """

    def loss(params: Any, frames: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        return nnx.merge(graphdef, params).loss(frames, key)

    return jax.value_and_grad(loss, has_aux=True)(params, frames, key)
