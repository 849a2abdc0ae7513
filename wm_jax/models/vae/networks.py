"""The encoders and decoders that all auto-encoders share, by their names in the settings.

An encoder has `features`, how many numbers it makes of a frame, and `head` for layers from these; a call makes them. A
decoder is called with z, and with what else its auto-encoder decodes.
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
    """The encoder that the settings name: `features` of a frame, and `head` for layers from these."""
    return ENCODERS[config.encoder](config, rngs)


def make_decoder(inputs: int, config: BuiltInVaeConfig, rngs: nnx.Rngs) -> AnyDecoder:
    """The decoder that the settings name, from so many numbers."""
    return DECODERS[config.decoder](inputs, config, rngs)
