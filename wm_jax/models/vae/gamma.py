"""A Gamma distribution over each latent in the Gaussian's place: z is positive, and near 0 where nothing is to be said.

Figurnov et al. 2018, "Implicit Reparameterization Gradients" (arXiv 1805.08498), whose gradient `jax.random.gamma` has.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import GammaConfig
from wm_jax.models.latents import Gamma
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.losses import error, pressure, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder

LEAST = 1e-3
"""What z's mean is at least, and what any z counts as at least: M may come to expect negative ones."""


class GammaVae(Vae):
    """Prior Gamma(prior_concentration, prior_rate); posterior Gamma(concentration > 1, rate)."""

    config: GammaConfig

    def __init__(self, config: GammaConfig, rngs: nnx.Rngs):
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.log_precision = self.encoder.head(config.latent, rngs)
        self.mean = self.encoder.head(config.latent, rngs)
        self.decoder = make_decoder(config.latent, config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Gamma:
        """What frames in [0, 1] say about z: its mean, and how narrow it is; either can change without the other."""
        features = self.encoder(frames)
        concentration = 1 + jnp.exp(self.log_precision(features))
        mean = LEAST + jax.nn.softplus(self.mean(features))
        return Gamma(concentration, concentration / mean)

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]; of numbers that are positive the decoder sees the logarithms."""
        return self.decoder(jnp.log(jnp.maximum(z, LEAST)))

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """From the prior's distribution."""
        shape = (count, self.config.latent)
        return jax.random.gamma(key, self.config.prior_concentration, shape, jnp.float32) / self.config.prior_rate

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + beta * max(KL, free_nats * Z), each summed over pixels or latents and averaged over B."""
        posterior = self.encode(batch.seen)
        kl = kl_of_gammas(posterior, self.config.prior_concentration, self.config.prior_rate)
        decoded, target = self.decode(posterior.sample(update.key)), batch.target
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + pressure(kl, self.config, update.step)
        return loss, {"loss": loss, "reconstruction": jnp.mean(squared_error(decoded, target)), "kl": jnp.mean(kl)}


def kl_of_gammas(posterior: Gamma, concentration: float, rate: float) -> Float[Array, "B"]:
    """KL(posterior || Gamma(concentration, rate)) in nats, summed over latents: E_q[log q - log p], with E_q[z] = a / b
    and E_q[log z] = digamma(a) - log b.
    """
    a, b = jnp.asarray(posterior.concentration), jnp.asarray(posterior.rate)
    of_shapes = (a - concentration) * digamma(a) - gammaln(a) + math.lgamma(concentration)
    of_rates = concentration * jnp.log(b / rate) + a * (rate / b - 1)
    return jnp.sum(of_shapes + of_rates, axis=1)
