"""What every auto-encoder offers, and what its loss is given."""

from typing import Any, ClassVar, NamedTuple

from flax import nnx
from jaxtyping import Array, Float, Int32, Key, UInt8

from wm_jax.config.schema import VaeConfig
from wm_jax.models.latents import Latent, LatentKind


class Batch(NamedTuple):
    """What a loss is taken of.

    frames: as the replays hold them.
    still: the background of every frame, where the pixels that differ from it count more.
    """

    frames: UInt8[Array, "B side side 3"]
    still: UInt8[Array, "B side side 3"] | None = None


class Update(NamedTuple):
    """The update that a loss is taken in.

    key: its own.
    step: how many updates came before it.
    data_size: frames of the training set; 0 where these are generated without end.
    training: False for figures on held-out frames: nothing is dropped, noised or normalised by the batch.
    """

    key: Key[Array, ""]
    step: Int32[Array, ""] | int = 0
    data_size: int = 0
    training: bool = True


class Objective(NamedTuple):
    """One of the losses that an auto-encoder is trained by, each with an optimiser of its own.

    loss: name of the method.
    learned: NNX's filter of the parameters that it changes.
    """

    loss: str = "loss"
    learned: Any = nnx.Param


THE_LOSS = Objective()
"""The one that most have: `Vae.loss`, of all parameters."""


class Vae(nnx.Module):
    """An auto-encoder.

    It may have other variables beside its parameters (`models.variables`): only losses in training change them.

    Attributes:
      config: its settings.
      objectives: what it is trained by, one after the other on every batch; nearly always one loss for all parameters.
    """

    config: VaeConfig
    objectives: ClassVar[tuple[Objective, ...]] = (THE_LOSS,)

    @property
    def latent_kind(self) -> LatentKind:
        """What M and C must know of what `encode` returns."""
        return LatentKind(self.config.latent)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Latent:
        """What frames in [0, 1] say about z."""
        raise NotImplementedError

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        raise NotImplementedError

    def loss(self, batch: Batch, update: Update) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss; and metrics with at least loss, reconstruction, kl."""
        raise NotImplementedError
