"""VQ-VAE: z consists of vectors from a codebook, and M predicts which ones.

van den Oord et al. 2017, "Neural Discrete Representation Learning" (arXiv 1711.00937), sections 3.1 and 3.2. There each
place of a map is quantised; here z is divided into parts as in product quantisation, but all by the same codebook.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, Key

from wm_jax.config.vaes import VqConfig
from wm_jax.models.latents import Codes, LatentKind
from wm_jax.models.straight_through import straight_through
from wm_jax.models.vae.codebook import Codebook
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.losses import reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.models.vae.places import require_whole_parts
from wm_jax.utils.errors import UserError


class Vq(Vae):
    """Prior: uniform over all codes in the KL, and over those in use where z is drawn from it (with `restarts` a code
    that is not is soon moved to where it is).
    """

    config: VqConfig

    def __init__(self, config: VqConfig, rngs: nnx.Rngs):
        """The networks and the codebook.

        Raises:
          UserError: `latent` is not a multiple of `codes_per_frame`, or a code would lie across two parts of z.
        """
        size, rest = divmod(config.latent, config.codes_per_frame)
        if rest:
            raise UserError(
                f"vae.latent {config.latent}: it cannot be divided into {config.codes_per_frame} codes; give a "
                "multiple of vae.codes_per_frame"
            )
        require_whole_parts(config, size, "a code")
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
        """The codes nearest to the parts of the encoder's output, and their vectors (eq. 1 and 2)."""
        indices = self.codebook.nearest(self._parts(output)).reshape(len(output), self.config.codes_per_frame)
        return indices, self._vectors(indices)

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def embed(self, target: Int32[Array, "B G"]) -> Float[Array, "B Z"]:
        """See `Vae`: the vectors of these codes."""
        return self._vectors(target)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Codes drawn uniformly from those that are in use."""
        logits = jnp.log(self.codebook.in_use())
        return self._vectors(jax.random.categorical(key, logits, shape=(count, self.config.codes_per_frame)))

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Eq. 3: error + codebook term + commitment, each summed over pixels or latents and averaged over the batch.

        The paper averages the latter two over a frame's codes: its weight of 0.25 is 0.25 / codes_per_frame here.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`), kl (of a chosen code from
          the uniform distribution over all codes, the same for every frame; section 3.1) and those of `batch_usage`.
        """
        output = self.output(self.encoder(batch.encoder_input))
        indices, vectors = self.nearest(output)
        z = straight_through(vectors, output)  # section 3.2
        error, metrics = reconstruction_error(self.decode(z), batch, self.config)
        commitment = jnp.mean(jnp.sum(jnp.square(output - jax.lax.stop_gradient(vectors)), axis=1))
        loss = error + self.config.commitment_weight * commitment
        if self.config.codebook == "learned":  # else moving averages take the place of this term (appendix A.1)
            loss += jnp.mean(jnp.sum(jnp.square(jax.lax.stop_gradient(output) - vectors), axis=1))
        if update.training:
            self.codebook.observe(self._parts(output), indices.reshape(-1), update.key)
        kl = jnp.float32(self.config.codes_per_frame * math.log(self.config.codes))
        return loss, {"loss": loss, **metrics, "kl": kl, **batch_usage(indices, self.config.codes)}

    def _parts(self, z: Array) -> Array:
        """[B, Z] as [B * G, S]."""
        return z.reshape(-1, self.config.latent // self.config.codes_per_frame)

    def _vectors(self, indices: Array) -> Array:
        """The vectors [B, Z] of codes [B, G]."""
        return self.codebook.vectors[indices].reshape(len(indices), self.config.latent)


def batch_usage(indices: Int32[Array, "B G"], codes: int) -> Metrics:
    """How many of the codes a batch uses.

    Returns:
      perplexity: exp(entropy), the number of codes with the same entropy if all were used equally often; codes_in_use:
      how many are used at all.
    """
    counts = jnp.bincount(indices.reshape(-1), length=codes).astype(jnp.float32)
    entropy = jnp.sum(jax.scipy.special.entr(counts / indices.size))
    return {"perplexity": jnp.exp(entropy), "codes_in_use": jnp.sum(counts > 0).astype(jnp.float32)}
