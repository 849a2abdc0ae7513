"""Auto-encoders behind one contract; `make_vae` builds the one that the settings name."""

from typing import Any, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float, Key, UInt8

from wm_jax.config import VaeConfig
from wm_jax.models.vae.losses import Posterior
from wm_jax.models.vae.vanilla import Vanilla
from wm_jax.models.variables import value_and_grad

__all__ = ["Posterior", "Vae", "loss_and_grad", "make_vae"]


@runtime_checkable
class Vae(Protocol):
    """What every auto-encoder offers.

    It may have other variables beside its parameters (`models.variables`): only `loss` in training changes them, and
    only there is anything dropped at random, or normalised by the batch.
    """

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
    variables: Any,
    frames: UInt8[Array, "B 64 64 3"],
    key: Key[Array, ""],
    still: UInt8[Array, "B 64 64 3"] | None = None,
) -> tuple[dict[str, Float[Array, ""]], Any, Any]:
    """The training loss and its gradient; to be called inside `jax.jit`.

    Args:
      graphdef, variables: of `nnx.split(make_vae(...))`.
      key: one per update.
      still: see `Vae.loss`.

    Returns:
      (metrics, gradients like the parameters, other variables after the update): see `models.variables`.
    """
    _, metrics, gradients, others = value_and_grad(graphdef, variables, lambda vae: vae.loss(frames, key, still=still))
    return metrics, gradients, others
