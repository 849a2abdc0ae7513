"""The contract of every auto-encoder: what it offers, and what its losses are given."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key, UInt8

from wm_jax.config.vaes import VaeConfig
from wm_jax.models.latents import Latent, LatentKind
from wm_jax.models.preprocess import to_float

Scalar = Float[Array, ""]
Metrics = dict[str, Scalar]
"""Figures of one batch by their names."""


class Batch(NamedTuple):
    """A batch of frames that a loss is computed on.

    frames: the frames as they are stored.
    noisy_input: the frames with noise, in [0, 1], for the encoder; None where there is no noise.
    weights: the weight of each pixel's error; None where all weigh 1.
    condition: what is known of each frame beside its pixels, such as the action before it; None where nothing is.
    """

    frames: UInt8[Array, "B side side 3"]
    noisy_input: Float[Array, "B side side 3"] | None = None
    weights: Float[Array, "B side side 1"] | None = None
    condition: Float[Array, "B condition"] | None = None

    @property
    def target(self) -> Float[Array, "B side side 3"]:
        """The frames in [0, 1], which the decoder is to reproduce."""
        return to_float(self.frames)

    @property
    def encoder_input(self) -> Float[Array, "B side side 3"]:
        """`noisy_input` if there is one, else the target; in [0, 1]."""
        return self.target if self.noisy_input is None else self.noisy_input


class Update(NamedTuple):
    """The training update that a loss is computed in.

    key: for all random numbers of this loss.
    step: the number of updates before this one.
    data_size: frames in the training set; 0 where new ones are generated all the time.
    training: False when a loss is only measured. z is still sampled; but variables other than parameters (batch
      statistics, moving averages) do not change, and relaxed classes and dropped conditions are off.
    """

    key: Key[Array, ""]
    step: Int32[Array, ""] | int = 0
    data_size: int = 0
    training: bool = True


class Objective(NamedTuple):
    """A loss and the parameters that it trains, with an optimiser of their own.

    loss: the name of a method of the auto-encoder, not the method itself: a subclass may have another one.
    learned: the parameters, as an NNX filter.
    """

    loss: str = "loss"
    learned: Any = nnx.Param

    def of(self, vae: "Vae") -> Callable[[Batch, Update], tuple[Scalar, Metrics]]:
        """The method of an auto-encoder."""
        return getattr(vae, self.loss)


DEFAULT_OBJECTIVE = Objective()
"""`Vae.loss`, which trains all parameters."""


def two_objectives(part: str) -> tuple[Objective, Objective]:
    """The objectives of an auto-encoder with a part that has a loss of its own, such as a discriminator.

    Args:
      part: the attribute that holds this part.

    Returns:
      `loss` for all parameters outside of the part, and `<part>_loss` for those inside.
    """
    inside = nnx.PathContains(part)
    return Objective("loss", nnx.All(nnx.Param, nnx.Not(inside))), Objective(f"{part}_loss", nnx.All(nnx.Param, inside))


class Vae(nnx.Module):
    """An auto-encoder.

    Beside its parameters it may have other variables (`models.variables`); only losses in training change them.

    Attributes:
      config: the settings.
      conditioned_on: what `Batch.condition` holds in training. "action": the action before each frame as M sees it,
        zeros where there is none. encode, decode and losses must also work without it. None: there is no condition.
      objectives: the losses, which train one after the other on every batch. Nearly all auto-encoders have one.
    """

    config: VaeConfig
    conditioned_on: ClassVar[Literal["action"] | None] = None
    objectives: ClassVar[tuple[Objective, ...]] = (DEFAULT_OBJECTIVE,)

    @property
    def latent_kind(self) -> LatentKind:
        """What M and C must know about the latents: z is `config.latent` numbers, unless this says otherwise."""
        return LatentKind(self.config.latent)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Latent:
        """The latents of frames in [0, 1]: mostly the posterior q(z | x)."""
        raise NotImplementedError

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        raise NotImplementedError

    def embed(self, target: Float[Array, "B Z"] | Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """Map M's prediction target (`Latent.target`) to z: the identity where z is numbers, the classes' vectors where
        it consists of classes. So a prediction of M's becomes M's next input, and can be decoded.
        """
        return target

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples of z without any frame, to decode pictures from: of N(0, 1), unless this says otherwise."""
        return jax.random.normal(key, (count, self.config.latent), jnp.float32)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """The loss, and at least the metrics loss, reconstruction and kl."""
        raise NotImplementedError
