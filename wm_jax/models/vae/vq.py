"""VQ-VAE: z consists of vectors out of a codebook, so that M predicts which ones.

van den Oord et al. 2017, "Neural Discrete Representation Learning" (arXiv 1711.00937). There a map of vectors is
quantised; here the parts of one vector are, all by the same codebook (product quantisation).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import VqConfig
from wm_jax.models.latents import Codes, LatentKind
from wm_jax.models.vae.codebook import Codebook
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.losses import error, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.utils.errors import UserError


class Vq(Vae):
    """Prior: every code that is in use alike."""

    config: VqConfig

    def __init__(self, config: VqConfig, rngs: nnx.Rngs):
        size, beyond = divmod(config.latent, config.codes_per_frame)
        if beyond:
            raise UserError(
                f"vae.latent {config.latent}: {config.codes_per_frame} codes of a frame can't share that evenly; give "
                "a multiple of vae.codes_per_frame"
            )
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.output = self.encoder.head(config.latent, rngs)
        self.codebook = Codebook(config, size, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)

    @property
    def latent_kind(self) -> LatentKind:
        """See `Vae`."""
        return LatentKind(self.config.latent, (self.config.codes_per_frame, self.config.codes))

    def encode(self, frames: Float[Array, "B side side 3"]) -> Codes:
        """The codes of frames in [0, 1]."""
        return Codes(*self.nearest(self.output(self.encoder(frames))))

    def nearest(self, output: Float[Array, "B Z"]) -> tuple[Int32[Array, "B G"], Float[Array, "B Z"]]:
        """The codes nearest to the parts of what the encoder says, and their vectors (eq. 1 and 2)."""
        indices = self.codebook.nearest(self._parts(output)).reshape(len(output), self.config.codes_per_frame)
        return indices, self._together(indices)

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def embed(self, target: Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """See `Vae`: the vectors of these entries."""
        return self._together(target)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Codes drawn uniformly among those that training has come to use."""
        odds = jnp.log(self.codebook.in_use())
        return self._together(jax.random.categorical(key, odds, shape=(count, self.config.codes_per_frame)))

    def loss(self, batch: Batch, update: Update) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Eq. 3: error + codebook + commitment, each summed over pixels or latents and averaged over B.

        Returns:
          The loss, and metrics. Beside loss and reconstruction these are kl: from all codes alike, the same for every
          frame (section 3.2); perplexity: how many codes would be as uncertain, were they chosen alike; codes_in_use:
          how many the batch chose at all.
        """
        held = jax.lax.stop_gradient
        output = self.output(self.encoder(batch.seen))
        indices, vectors = self.nearest(output)
        decoded, target = self.decode(output + held(vectors - output)), batch.target  # straight through: section 3.2
        cost = error(decoded, target, batch.weights, self.config)
        cost += self.config.commitment * jnp.sum(jnp.square(output - held(vectors)), axis=1)
        if self.config.codebook == "learned":  # else moving averages stand for this term (appendix A.1)
            cost += jnp.sum(jnp.square(held(output) - vectors), axis=1)
        if update.training:
            self.codebook.observe(self._parts(output), indices.reshape(-1), update.key)
        loss = jnp.mean(cost)
        return loss, {
            "loss": loss,
            "reconstruction": jnp.mean(squared_error(decoded, target)),
            "kl": jnp.float32(self.config.codes_per_frame * math.log(self.config.codes)),
            **usage(indices, self.config.codes),
        }

    def _parts(self, z: Array) -> Array:
        """[B, Z] as [B * G, S]."""
        return z.reshape(-1, self.config.latent // self.config.codes_per_frame)

    def _together(self, indices: Array) -> Array:
        """The vectors [B, Z] of codes [B, G]."""
        return self.codebook.vectors[indices].reshape(len(indices), self.config.latent)


def usage(indices: Int32[Array, "B G"], codes: int) -> dict[str, Float[Array, ""]]:
    """How a batch uses the codes: perplexity, e to their entropy, and codes_in_use."""
    counts = jnp.bincount(indices.reshape(-1), length=codes).astype(jnp.float32)
    entropy = jnp.sum(jax.scipy.special.entr(counts / indices.size))
    return {"perplexity": jnp.exp(entropy), "codes_in_use": jnp.sum(counts > 0).astype(jnp.float32)}
