"""What every auto-encoder offers, and what its loss is given."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key, UInt8

from wm_jax.config.vaes import VaeConfig
from wm_jax.models.latents import Latent, LatentKind
from wm_jax.models.preprocess import to_float


class Batch(NamedTuple):
    """What a loss is taken of.

    frames: as the replays hold them; what is to be drawn.
    noised: in [0, 1], what is to be encoded in their place; None for themselves.
    weights: what the error of each pixel counts; None where all count 1.
    condition: what is known of each frame beside it, such as the action before it; None where nothing is.
    """

    frames: UInt8[Array, "B side side 3"]
    noised: Float[Array, "B side side 3"] | None = None
    weights: Float[Array, "B side side 1"] | None = None
    condition: Float[Array, "B K"] | None = None

    @property
    def target(self) -> Float[Array, "B side side 3"]:
        """The frames in [0, 1]."""
        return to_float(self.frames)

    @property
    def seen(self) -> Float[Array, "B side side 3"]:
        """What is to be encoded, in [0, 1]."""
        return self.target if self.noised is None else self.noised


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
      conditioned_on: what its losses are told of each frame beside it (`Batch.condition`): action: the one before it,
        as M sees actions, zeros where there is none. They must do without it, too: only training has it.
      objectives: what it is trained by, one after the other on every batch; nearly always one loss for all parameters.
    """

    config: VaeConfig
    conditioned_on: ClassVar[Literal["action"] | None] = None
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

    def embed(self, target: Float[Array, "B Z"] | Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """The z that a target of M's stands for (`Latent.target`): itself where z is numbers.

        Auto-encoders whose latents are classes say what z these are. By it what M predicts becomes a picture, and M's
        next input.
        """
        return target

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Z drawn without a frame, for pictures of what V believes in: N(0, 1) unless it says otherwise."""
        return jax.random.normal(key, (count, self.config.latent), jnp.float32)

    def loss(self, batch: Batch, update: Update) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss; and metrics with at least loss, reconstruction, kl."""
        raise NotImplementedError
