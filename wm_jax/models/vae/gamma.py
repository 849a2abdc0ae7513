"""A gamma distribution over each latent in place of the Gaussian: z is positive.

Where a frame says nothing, the posterior is like the prior: Gamma(2, 1) by default, with mode 1 and mean 2. Figurnov et
al. 2018, "Implicit Reparameterization Gradients" (arXiv 1805.08498), give the gradient of a sample that
`jax.random.gamma` implements.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import GammaConfig
from wm_jax.models.latents import Gamma
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.losses import kl_term, reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder

LEAST = 1e-3
"""The least mean of z, and the least z that the decoder distinguishes: M may predict negative ones."""


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
        """The posterior q(z | x) of frames x in [0, 1].

        The networks give its mean and how narrow it is, so that either can change without the other.
        """
        features = self.encoder(frames)
        concentration = 1 + jnp.exp(self.log_precision(features))
        mean = LEAST + jax.nn.softplus(self.mean(features))
        return Gamma(concentration, concentration / mean)

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1], decoded from log z."""
        return self.decoder(jnp.log(jnp.maximum(z, LEAST)))

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples of the prior's gamma distribution."""
        shape = (count, self.config.latent)
        return jax.random.gamma(key, self.config.prior_concentration, shape, jnp.float32) / self.config.prior_rate

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + the KL's term (`losses.kl_term`), each summed over pixels or latents and averaged over the batch."""
        posterior = self.encode(batch.encoder_input)
        kl = kl_of_gammas(posterior, self.config.prior_concentration, self.config.prior_rate)
        error, metrics = reconstruction_error(self.decode(posterior.sample(update.key)), batch, self.config)
        loss = error + kl_term(kl, self.config, update.step)
        return loss, {"loss": loss, **metrics, "kl": jnp.mean(kl)}


def kl_of_gammas(posterior: Gamma, concentration: float, rate: float) -> Float[Array, "B"]:
    """KL(posterior || Gamma(concentration, rate)) in nats, summed over latents.

    E_q[log q - log p] for q = Gamma(a, b), with E_q[z] = a / b and E_q[log z] = digamma(a) - log b.
    """
    a, b = jnp.asarray(posterior.concentration), jnp.asarray(posterior.rate)
    of_shapes = (a - concentration) * digamma(a) - gammaln(a) + math.lgamma(concentration)
    of_rates = concentration * jnp.log(b / rate) + a * (rate / b - 1)
    return jnp.sum(of_shapes + of_rates, axis=1)
