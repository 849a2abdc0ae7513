"""Auto-encoders behind one contract; `make_vae` builds the one that the settings name."""

from typing import Any, Protocol, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Float, Key, UInt8

from wm_jax.config import VaeConfig
from wm_jax.models.vae.losses import Posterior
from wm_jax.models.vae.vanilla import Vanilla

__all__ = ["Posterior", "Vae", "loss_and_grad", "make_vae"]


@runtime_checkable
class Vae(Protocol):
    """What every auto-encoder offers."""

    config: VaeConfig

    def encode(self, frames: Float[Array, "B 64 64 3"]) -> Posterior:
        """What frames in [0, 1] say about z."""
        ...

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B 64 64 3"]:
        """Frames in [0, 1]."""
        ...

    def loss(
        self,
        frames: UInt8[Array, "B 64 64 3"],
        key: Key[Array, ""],
        *,
        training: bool = True,
        still: UInt8[Array, "B 64 64 3"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss; and metrics with at least loss, reconstruction, kl.

        Args:
          still: the background of every frame, where the pixels that differ from it count more.
        """
        ...


VARIANTS = {"vanilla": Vanilla}


def make_vae(config: VaeConfig, rngs: nnx.Rngs) -> Vae:
    """The auto-encoder of `config.variant`, an NNX module with fresh weights."""
    return VARIANTS[config.variant](config, rngs)


def loss_and_grad(
    graphdef: nnx.GraphDef,
    params: Any,
    frames: UInt8[Array, "B 64 64 3"],
    key: Key[Array, ""],
    still: UInt8[Array, "B 64 64 3"] | None = None,
) -> tuple[tuple[Float[Array, ""], dict[str, Float[Array, ""]]], Any]:
    """The training loss and its gradient; to be called inside `jax.jit`.

    Args:
      graphdef, params: of `nnx.split(make_vae(...))`.
      key: one per update.
      still: see `Vae.loss`.

    Returns:
      ((loss, metrics), gradients shaped like params).
    """

    def loss(params: Any, frames: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        return nnx.merge(graphdef, params).loss(frames, key, still=still)

    return jax.value_and_grad(loss, has_aux=True)(params, frames, key)
