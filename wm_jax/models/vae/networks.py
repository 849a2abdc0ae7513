"""The encoders and decoders that all auto-encoders can be made of, by their names in the settings.

An encoder maps frames to `features` numbers each, and makes layers from these (`head`). A decoder maps z, and a
context if its auto-encoder has one, to frames.
"""

from flax import nnx

from wm_jax.config.vaes import BuiltInVaeConfig
from wm_jax.models.vae.local import LocalDecoder, LocalEncoder
from wm_jax.models.vae.paper import Decoder, Encoder
from wm_jax.models.vae.residual import GridDecoder, GridEncoder, ResidualDecoder, ResidualEncoder

AnyEncoder = Encoder | ResidualEncoder
AnyDecoder = Decoder | LocalDecoder | ResidualDecoder
ENCODERS = {"paper": Encoder, "local": LocalEncoder, "residual": ResidualEncoder, "grid": GridEncoder}
DECODERS = {"paper": Decoder, "local": LocalDecoder, "residual": ResidualDecoder, "grid": GridDecoder}


def make_encoder(config: BuiltInVaeConfig, rngs: nnx.Rngs) -> AnyEncoder:
    """The encoder that the settings name."""
    return ENCODERS[config.encoder](config, rngs)


def make_decoder(inputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs, context: int = 0) -> AnyDecoder:
    """The decoder that the settings name.

    Args:
      inputs: numbers that it decodes, such as Z.
      context: numbers that it is given besides, which belong to no place.
    """
    return DECODERS[config.decoder](inputs, config, rngs, context)
