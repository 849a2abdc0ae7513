"""A hierarchy of two levels: z1 is decoded, and its prior is learned given the level above, z2.

Rezende, Mohamed & Wierstra 2014, "Stochastic Backpropagation and Approximate Inference in Deep Generative Models"
(arXiv 1401.4082), for p(z2) p(z1 | z2) p(x | z1); Burda, Grosse & Salakhutdinov 2016 (arXiv 1509.00519), section 2,
for q(z1 | x) q(z2 | z1).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import HierarchicalConfig
from wm_jax.models.latents import Gaussian, Levels
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.gaussian import GaussianLayer
from wm_jax.models.vae.losses import kl_term, kl_to_standard_normal, log_density, reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.models.vae.places import shares_near, too_small
from wm_jax.utils.errors import UserError


class Hierarchical(Vae):
    """z is (z2, z1), of which only z1 is decoded."""

    config: HierarchicalConfig

    def __init__(self, config: HierarchicalConfig, rngs: nnx.Rngs):
        """The networks.

        Raises:
          UserError: the top level leaves nothing of `latent` for the bottom one.
        """
        self.config = config
        self.top = top = _top(config)
        bottom = config.latent - top
        self.encoder = make_encoder(config, rngs)
        self.mean = self.encoder.head(bottom, rngs)
        self.log_var = self.encoder.head(bottom, rngs)
        self.up = GaussianLayer(bottom, [config.hidden], top, rngs)  # q(z2 | z1)
        self.down = GaussianLayer(top, [config.hidden], bottom, rngs)  # p(z1 | z2)
        self.decoder = make_decoder(bottom, config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Levels:
        """q(z1 | x) of frames x in [0, 1], and q(z2 | z1) at the mean of z1."""
        bottom = self._bottom(frames)
        return Levels((self.up(bottom.mode()), bottom))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z[:, self.top :])

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples drawn from the top down."""
        top_key, bottom_key = jax.random.split(key)
        z2 = jax.random.normal(top_key, (count, self.top), jnp.float32)
        return jnp.concatenate([z2, self.down(z2).sample(bottom_key)], axis=1)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + the KL's term (`losses.kl_term`), each summed over pixels or latents and averaged over the batch.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`), kl (of both levels, in
          nats before any weight or floor; estimated from one sample for each frame, so it can be negative) and kl_top.
        """
        bottom_key, top_key = jax.random.split(update.key)
        q1 = self._bottom(batch.encoder_input)
        z1 = q1.sample(bottom_key)
        q2 = self.up(z1)
        z2 = q2.sample(top_key)
        error, metrics = reconstruction_error(self.decoder(z1), batch, self.config)
        # E log q(z1 | x) / p(z1 | z2) + KL(q(z2 | z1) || N(0, 1)). The first has no closed form: z2 depends on z1.
        bottom = log_density(z1, *q1) - log_density(z1, *self.down(z2))
        top = kl_to_standard_normal(q2)
        kl = bottom + top
        loss = error + kl_term(kl, self.config, update.step)
        return loss, {"loss": loss, **metrics, "kl": jnp.mean(kl), "kl_top": jnp.mean(top)}

    def _bottom(self, frames: Float[Array, "B side side 3"]) -> Gaussian:
        """q(z1 | x)."""
        features = self.encoder(frames)
        return Gaussian(self.mean(features), self.log_var(features))


def _top(config: HierarchicalConfig) -> int:
    """How many numbers of z are its top level."""
    latent = config.latent
    if config.top is not None:
        if config.top >= latent:
            raise UserError(f"vae.top {config.top}: nothing is left of vae.latent {latent} for the bottom level")
        return config.top
    bottom = shares_near(latent - max(latent // 4, 1), latent - 1, config)
    if not bottom:
        raise too_small(config, 2)
    return latent - bottom
