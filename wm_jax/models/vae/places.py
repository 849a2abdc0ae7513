"""The layers between z and the networks: one for all of z, or a small one for each place of a grid and its part of z.

The parts of the places come first, place by place, and after them what belongs to the whole frame, such as the colour
of a background that is the same everywhere (the setting `global_latent`).
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.models.vae.layers import Dense
from wm_jax.utils.errors import UserError


class EachPlace(nnx.Module):
    """One linear layer that is applied to each place of a grid, like a 1x1 convolution."""

    def __init__(self, places: int, inputs: int, outputs: int, rngs: nnx.Rngs):
        """The layer.

        Args:
          inputs, outputs: numbers of each place.
        """
        self.places, self.inputs, self.outputs = places, inputs, outputs
        self.dense = Dense(inputs, outputs, rngs)

    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        """From the numbers of all places, place by place, to the outputs of all places in the same order."""
        each = self.dense(x.reshape(len(x) * self.places, self.inputs))
        return each.reshape(len(x), self.places * self.outputs)


class PlacedHead(nnx.Module):
    """From features to numbers: those of a place from its own features, those of the whole frame from all of them."""

    def __init__(self, places: int, features: int, outputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        """The layers.

        Args:
          features: of all places together, as `outputs`.

        Raises:
          UserError: the outputs can't be shared out.
        """
        each = shared_out(outputs, places, config, f"encoder {config.encoder}")
        self.each = EachPlace(places, features // places, each, rngs)
        self.whole = Dense(features, config.global_latent, rngs) if config.global_latent else None

    def __call__(self, x: Float[Array, "B F"]) -> Float[Array, "B O"]:
        """Of the features, which lie place by place."""
        each = self.each(x)
        return each if self.whole is None else jnp.concatenate([each, self.whole(x)], axis=1)


class WholeStart(Dense):
    """The first layer of a decoder without places, from all of z and the context."""

    def __call__(self, x: Float[Array, "B I"], context: Float[Array, "B context"] | None = None) -> Float[Array, "B O"]:
        """The weighted sums of both."""
        return super().__call__(beside(x, context))


class PlacedStart(nnx.Module):
    """From z to a decoder's first image: each place sees its part of z, that of the whole frame, and the context."""

    def __init__(self, places: int, inputs: int, context: int, channels: int, config: BuiltInVaeConfig, rngs: nnx.Rngs):
        """The layer.

        Args:
          inputs: numbers of z.
          context: further numbers that belong to no place.

        Raises:
          UserError: the inputs can't be shared out.
        """
        each = shared_out(inputs, places, config, f"decoder {config.decoder}")
        self.placed = places * each
        self.each = EachPlace(places, each + config.global_latent + context, channels, rngs)

    def __call__(self, z: Float[Array, "B I"], context: Float[Array, "B context"] | None = None) -> Float[Array, "B O"]:
        """The image's channels, place by place."""
        everywhere = beside(z[:, self.placed :], context)
        parts = z[:, : self.placed].reshape(len(z), self.each.places, -1)
        repeated = jnp.broadcast_to(everywhere[:, None, :], (*parts.shape[:2], everywhere.shape[1]))
        return self.each(jnp.concatenate([parts, repeated], axis=2).reshape(len(z), -1))


def beside(z: Float[Array, "B I"], context: Float[Array, "B context"] | None) -> Float[Array, "B _"]:
    """The numbers of z, and after them the context if there is one."""
    return z if context is None else jnp.concatenate([z, context], axis=1)


def shared_out(numbers: int, places: int, config: BuiltInVaeConfig, network: str) -> int:
    """How many of the numbers each place gets, besides those of the whole frame.

    Args:
      network: as the settings name it, such as `encoder grid`.

    Raises:
      UserError: what remains is not a multiple of the places.
    """
    whole = config.global_latent
    each, rest = divmod(numbers - whole, places)
    if rest or each < 1:
        besides = f" beside {whole} of the whole frame (vae.global_latent)" if whole else ""
        raise UserError(
            f"vae.{network}: {numbers} numbers cannot be shared out among {places} places{besides}; give a vae.latent "
            f"that makes {'the rest' if whole else 'them'} a multiple of {config.places}, or another network"
        )
    return each


def require_whole_parts(config: BuiltInVaeConfig, size: int, part: str) -> None:
    """Refuse a share of the whole frame that ends within a part of z.

    Args:
      size: numbers of each part.
      part: what it is, for the user.

    Raises:
      UserError: it does.
    """
    if config.places > 1 and config.global_latent % size:
        raise UserError(
            f"vae.global_latent {config.global_latent}: {part} is {size} numbers; give a multiple of that, or 0"
        )


def shares_near(wanted: int, at_most: int, config: BuiltInVaeConfig) -> int:
    """How many numbers, about as wanted, the networks of the settings can share out.

    Returns:
      The least such number that is not below `wanted`, unless that is above `at_most`: then the largest that is not; 0
      where there is none.
    """
    places, whole = config.places, config.global_latent if config.places > 1 else 0
    shares = min(max(-(-(wanted - whole) // places), 1), (at_most - whole) // places)
    return shares * places + whole if shares > 0 else 0


def too_small(config: BuiltInVaeConfig, levels: int) -> UserError:
    """The error for a z that is too small for so many levels."""
    because = ""
    if config.places > 1:
        whole = f" and vae.global_latent {config.global_latent}" if config.global_latent else ""
        because = f", since its bottom level takes a multiple of {config.places}{whole}"
    return UserError(f"vae.latent {config.latent}: it is not enough for {levels} levels{because}; give more")
