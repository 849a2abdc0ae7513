"""Inverse autoregressive flow: a few steps turn a Gaussian into a posterior whose latents depend on each other.

Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow" (arXiv 1606.04934). The network
of a step is masked as in Germain et al. 2015, "MADE" (arXiv 1502.03509).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import IafConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import GaussianVae
from wm_jax.models.vae.layers import Dense, normal
from wm_jax.models.vae.losses import kl_term, log_density, reconstruction_error

OPEN = 2.0
"""What is added to a gate before its sigmoid, so that a step changes little at first (section 4 asks for 1 to 2)."""


class Iaf(GaussianVae):
    """Prior N(0, 1); posterior: z = f(z0) with z0 from the base N(mean, exp(log_var)), and f all steps of the flow."""

    config: IafConfig

    def __init__(self, config: IafConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        # A layer over all features, not a head: the context belongs to the whole frame, not to places of a grid.
        self.context = Dense(self.encoder.features, config.context, rngs)
        self.steps = nnx.List(Step(config, rngs, backwards=bool(i % 2)) for i in range(config.flows))

    def encode(self, frames: Float[Array, "B side side 3"]) -> Gaussian:
        """A Gaussian approximation of the posterior of frames in [0, 1], which can be stored without the flow.

        Each latent has the mean and the variance that it has under the flow linearised at the base's mean,
        sum_j J_ij^2 exp(log_var_j) with the Jacobian J; what latents have in common is lost. `loss` uses the flow
        itself.
        """
        base, context = self.base(frames)
        jacobian = jax.vmap(jax.jacfwd(lambda z, context: self.flow(z[None], context[None])[0][0]))(base.mean, context)
        variance = jnp.einsum("bij,bj->bi", jnp.square(jacobian), jnp.exp(base.log_var))
        return Gaussian(self.flow(base.mode(), context)[0], jnp.log(variance))

    def base(self, frames: Float[Array, "B side side 3"]) -> tuple[Gaussian, Float[Array, "B context"]]:
        """The Gaussian that the flow starts from, and the context: what else its steps are told about each frame."""
        features = self.encoder(frames)
        return Gaussian(self.mean(features), self.log_var(features)), self.context(features)

    def flow(
        self, z: Float[Array, "B Z"], context: Float[Array, "B context"]
    ) -> tuple[Float[Array, "B Z"], Float[Array, "B Z"]]:
        """The z after all steps; and log sigma summed over the steps, whose sum over latents is log |det Jacobian|."""
        log_slope = jnp.zeros_like(z)
        for step in self.steps:
            z, log_sigma = step(z, context)
            log_slope += log_sigma
        return z, log_slope

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + the KL's term (`losses.kl_term`), each summed over pixels or latents and averaged over the batch.

        The KL, and so the metric kl, is estimated from one z for each frame.
        """
        base, context = self.base(batch.encoder_input)
        z0 = base.sample(update.key)
        z, log_slope = self.flow(z0, context)
        log_q = log_density(z0, *base) - jnp.sum(log_slope, axis=1)  # eq. 11
        kl = log_q - log_density(z, 0.0, 0.0)
        error, metrics = reconstruction_error(self.decode(z), batch, self.config)
        loss = error + kl_term(kl, self.config, update.step)
        return loss, {"loss": loss, **metrics, "kl": jnp.mean(kl)}


class Step(nnx.Module):
    """One step of the flow: the gate and the shift of each number depend on the numbers before it, and on the context.

    backwards: the numbers count from the last to the first. Steps take turns in this, so that every number can depend
      on all others.
    """

    def __init__(self, config: IafConfig, rngs: nnx.Rngs, *, backwards: bool):
        latent, hidden = config.latent, config.hidden
        self.backwards = backwards
        self.inner = normal(rngs, (latent, hidden), latent)
        self.of_context = Dense(config.context, hidden, rngs)
        self.shift, self.gate = (normal(rngs, (hidden, latent), hidden, gain=0.01) for _ in range(2))
        self.shift_bias, self.gate_bias = (nnx.Param(jnp.zeros(latent, jnp.float32)) for _ in range(2))

    def __call__(
        self, z: Float[Array, "B Z"], context: Float[Array, "B context"]
    ) -> tuple[Float[Array, "B Z"], Float[Array, "B Z"]]:
        """The next z, and log sigma: the log of the diagonal of the step's Jacobian, which is triangular."""
        into, out = masks(z.shape[1], self.inner.shape[1], backwards=self.backwards)
        hidden = jax.nn.elu(z @ (self.inner[...] * into) + self.of_context(context))
        m = hidden @ (self.shift[...] * out) + self.shift_bias[...][None]
        s = hidden @ (self.gate[...] * out) + self.gate_bias[...][None] + OPEN
        return jax.nn.sigmoid(s) * z + jax.nn.sigmoid(-s) * m, jax.nn.log_sigmoid(s)  # eq. 14, algorithm 1


def masks(latent: int, hidden: int, *, backwards: bool) -> tuple[Float[np.ndarray, "Z H"], Float[np.ndarray, "H Z"]]:
    """1 where a weight may be: into a hidden unit of degree d from the first d numbers, out of it to all after these.

    So each number depends only on those before it. Units of degree 0 see the context alone. Degrees are evenly spaced,
    also where there are fewer units than numbers.
    """
    place = np.arange(latent)[::-1] if backwards else np.arange(latent)
    degree = np.arange(hidden) * latent // hidden
    return (place[:, None] < degree).astype(np.float32), (degree[:, None] <= place).astype(np.float32)
