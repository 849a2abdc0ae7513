"""The encoders and decoders that all auto-encoders can be made of, by their names in the settings.

An encoder maps frames to `features` numbers each, and makes layers from these (`head`). A decoder maps z, and whatever
else its auto-encoder decodes, to frames.
"""

from flax import nnx

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.models.vae.local import LocalDecoder, LocalEncoder
from wm_jax.models.vae.paper import Decoder, Encoder
from wm_jax.models.vae.residual import GridDecoder, GridEncoder, ResidualDecoder, ResidualEncoder
from wm_jax.utils.errors import UserError

AnyEncoder = Encoder | ResidualEncoder
AnyDecoder = Decoder | LocalDecoder | ResidualDecoder
ENCODERS = {"paper": Encoder, "local": LocalEncoder, "residual": ResidualEncoder, "grid": GridEncoder}
DECODERS = {"paper": Decoder, "local": LocalDecoder, "residual": ResidualDecoder, "grid": GridDecoder}
BY_PLACE = ("local", "grid")
"""The networks in which each place of a grid has a part of z."""


def make_encoder(config: BuiltInVaeConfig, rngs: nnx.Rngs) -> AnyEncoder:
    """The encoder that the settings name."""
    return ENCODERS[config.encoder](config, rngs)


def make_decoder(inputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs) -> AnyDecoder:
    """The decoder that the settings name.

    Args:
      inputs: numbers that it decodes, such as Z.
    """
    return DECODERS[config.decoder](inputs, config, rngs)


def refuse_decoder_by_place(config: BuiltInVaeConfig, why: str) -> None:
    """Refuse a decoder that takes a part of its inputs at each place, for inputs that are not ordered by place.

    Args:
      why: they are not, for the user.

    Raises:
      UserError: the settings name such a decoder.
    """
    if config.decoder in BY_PLACE:
        raise UserError(
            f"vae.decoder {config.decoder}: each place of its grid takes a part of z, but {why}; give paper or residual"
        )
