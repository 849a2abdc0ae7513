"""Two stages: a second, small auto-encoder learns how the codes of the first are distributed, and draws new ones.

Dai & Wipf 2019, "Diagnosing and Enhancing VAE Models" (arXiv 1903.05789), section 4. There the second stage begins when
the first has ended; here it learns beside it, from codes that lend it no gradient.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import TwoStageConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Objective, Update
from wm_jax.models.vae.gaussian import GaussianLayer, GaussianVae, Scalar
from wm_jax.models.vae.layers import Perceptron
from wm_jax.models.vae.losses import LEAST_VARIANCE, kl_to_standard_normal, log_normal, pressure

OF_SECOND = nnx.PathContains("second")


class TwoStage(GaussianVae):
    """Z is the first stage's; the second's u only serves to draw it: p(u) p(z | u) p(x | z)."""

    config: TwoStageConfig
    objectives = (
        Objective("loss", nnx.All(nnx.Param, nnx.Not(OF_SECOND))),
        Objective("second_loss", nnx.All(nnx.Param, OF_SECOND)),
    )

    def __init__(self, config: TwoStageConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.second = SecondStage(config.latent, config.hidden, rngs)

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """U from N(0, 1), and z given u."""
        u_key, z_key = jax.random.split(key)
        u = jax.random.normal(u_key, (count, self.config.latent), jnp.float32)
        return self.second.decode(u).sample(z_key)

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Beta * max(KL, free_nats * Z): of the first stage, a prior N(0, 1)."""
        kl = kl_to_standard_normal(posterior)
        return pressure(kl, self.config, update.step), {"kl": jnp.mean(kl)}

    def second_loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """The second stage's negative ELBO of codes that are drawn from q(z | x), in nats: a mean over B."""
        code_key, own = jax.random.split(update.key)
        z = jax.lax.stop_gradient(self.encode(batch.seen).sample(code_key))
        error, kl = self.second.negative_elbo(z, own)
        loss = jnp.mean(error + kl)
        return loss, {"second_loss": loss, "second_reconstruction": jnp.mean(error), "second_kl": jnp.mean(kl)}


class SecondStage(nnx.Module):
    """An auto-encoder of codes: u has as many numbers as z, and p(z | u) one variance that is learned."""

    def __init__(self, size: int, hidden: int, rngs: nnx.Rngs):
        self.encode = GaussianLayer(size, [hidden, hidden], size, rngs)  # q(u | z)
        self.mean = Perceptron((size, hidden, hidden, size), rngs)
        self.log_variance = nnx.Param(jnp.zeros((), jnp.float32))

    def decode(self, u: Float[Array, "B Z"]) -> Gaussian:
        """p(z | u)."""
        mean = self.mean(u)
        # Where the first stage's codes come to lie on fewer dimensions, its best value is 0.
        log_variance = jnp.logaddexp(self.log_variance[...], jnp.log(jnp.float32(LEAST_VARIANCE)))
        return Gaussian(mean, jnp.broadcast_to(log_variance, mean.shape))

    def negative_elbo(self, z: Float[Array, "B Z"], key: Key[Array, ""]) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """(-log p(z | u) of one u from q(u | z), KL(q(u | z) || N(0, 1))), each summed over z's or u's numbers."""
        posterior = self.encode(z)
        given = self.decode(posterior.sample(key))
        return -jnp.sum(log_normal(z, *given), axis=1), kl_to_standard_normal(posterior)
