"""Two stages: a second, small auto-encoder learns the distribution of the first one's z, and draws new ones from it.

Dai & Wipf 2019, "Diagnosing and Enhancing VAE Models" (arXiv 1903.05789), section 4. There the second stage is trained
after the first; here it is trained beside it, without any gradient to the first. Their second stage has three hidden
layers of 1024 units with ReLU and passes its input on past them; ours has two of 512 with tanh, and does not.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import TwoStageConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, two_objectives
from wm_jax.models.vae.gaussian import GaussianLayer, PenalisedGaussianVae
from wm_jax.models.vae.layers import Perceptron
from wm_jax.models.vae.losses import kl_to_standard_normal, log_density

LEAST_Z_VARIANCE = 1e-6
"""The learned variance of p(z | u) is at least this. Where z lies on fewer dimensions than it has, its optimum is 0."""


class TwoStage(PenalisedGaussianVae):
    """z is the first stage's, with the prior N(0, 1). New z are drawn by the second stage: p(u) p(z | u)."""

    config: TwoStageConfig
    objectives = two_objectives("second")

    def __init__(self, config: TwoStageConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.second = SecondStage(config.latent, config.hidden, rngs)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples of p(z | u) with u from N(0, 1)."""
        u_key, z_key = jax.random.split(key)
        u = jax.random.normal(u_key, (count, self.config.latent), jnp.float32)
        return self.second.decode(u).sample(z_key)

    def second_loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """The second stage's negative ELBO of samples z of q(z | x), in nats, averaged over the batch."""
        z_key, u_key = jax.random.split(update.key)
        z = jax.lax.stop_gradient(self.encode(batch.encoder_input).sample(z_key))
        error, kl = self.second.negative_elbo(z, u_key)
        loss = jnp.mean(error + kl)
        return loss, {"second_loss": loss, "second_reconstruction": jnp.mean(error), "second_kl": jnp.mean(kl)}


class SecondStage(nnx.Module):
    """An auto-encoder of z: u has as many numbers as z, and p(z | u) has one learned variance."""

    def __init__(self, size: int, hidden: int, rngs: nnx.Rngs):
        self.encode = GaussianLayer(size, [hidden, hidden], size, rngs)  # q(u | z)
        self.mean = Perceptron((size, hidden, hidden, size), rngs)
        self.log_variance = nnx.Param(jnp.zeros((), jnp.float32))

    def decode(self, u: Float[Array, "B Z"]) -> Gaussian:
        """p(z | u)."""
        mean = self.mean(u)
        log_variance = jnp.logaddexp(self.log_variance[...], jnp.log(jnp.float32(LEAST_Z_VARIANCE)))
        return Gaussian(mean, jnp.broadcast_to(log_variance, mean.shape))

    def negative_elbo(self, z: Float[Array, "B Z"], key: Key[Array, ""]) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """(-log p(z | u) for one u from q(u | z), KL(q(u | z) || N(0, 1))), each summed over the numbers of z or u."""
        posterior = self.encode(z)
        given_u = self.decode(posterior.sample(key))
        return -log_density(z, *given_u), kl_to_standard_normal(posterior)
