"""Inverse autoregressive flow: a posterior whose numbers depend on each other, made of a Gaussian in a few steps.

Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow" (arXiv 1606.04934).
The network of a step is masked as in Germain et al. 2015, "MADE" (arXiv 1502.03509).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import IafConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.layers import Dense, normal
from wm_jax.models.vae.losses import error, log_normal, pressure, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder

OPEN = 2.0
"""What is added to a gate before its sigmoid, so that a step changes little at first (section 4 asks for 1 to 2)."""


class Iaf(Vae):
    """Prior N(0, 1); posterior f(z_0) with z_0 of N(mean, exp(log_var)) and f the steps one after the other."""

    config: IafConfig

    def __init__(self, config: IafConfig, rngs: nnx.Rngs):
        self.config = config
        self.encoder = make_encoder(config, rngs)
        self.mean = self.encoder.head(config.latent, rngs)
        self.log_var = self.encoder.head(config.latent, rngs)
        self.context = self.encoder.head(config.context, rngs)
        self.steps = nnx.List(Step(config, rngs, backwards=bool(i % 2)) for i in range(config.flows))
        self.decoder = make_decoder(config.latent, config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Gaussian:
        """About the Gaussian that the posterior is: f at the base's mean, where each step is taken for linear and its
        Jacobian for its diagonal. It can be stored and drawn from without the flow; `loss` uses f itself.
        """
        base, context = self.base(frames)
        z, log_slope = self.flow(base.mode(), context)
        return Gaussian(z, base.log_var + 2 * log_slope)

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z)

    def base(self, frames: Float[Array, "B side side 3"]) -> tuple[Gaussian, Float[Array, "B context"]]:
        """What the flow begins with, and what it is told about each frame."""
        features = self.encoder(frames)
        return Gaussian(self.mean(features), self.log_var(features)), self.context(features)

    def flow(
        self, z: Float[Array, "B Z"], context: Float[Array, "B context"]
    ) -> tuple[Float[Array, "B Z"], Float[Array, "B Z"]]:
        """Z after all steps; and log sigma, summed over the steps: of each step's Jacobian log |det| is their sum."""
        log_slope = jnp.zeros_like(z)
        for step in self.steps:
            z, log_sigma = step(z, context)
            log_slope += log_sigma
        return z, log_slope

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + beta * max(KL, free_nats * Z), each summed over pixels or latents and averaged over B. The KL is that
        of one z for each frame, and so is the metric kl.
        """
        base, context = self.base(batch.seen)
        z0 = base.sample(update.key)
        z, log_slope = self.flow(z0, context)
        log_q = jnp.sum(log_normal(z0, *base) - log_slope, axis=1)  # eq. 11
        kl = log_q - jnp.sum(log_normal(z, 0.0, 0.0), axis=1)
        decoded, target = self.decode(z), batch.target
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + pressure(kl, self.config, update.step)
        return loss, {"loss": loss, "reconstruction": jnp.mean(squared_error(decoded, target)), "kl": jnp.mean(kl)}


class Step(nnx.Module):
    """One step of the flow: each number by a gate and a shift that depend on those before it, and on the frame.

    backwards: before it is what comes after it, so that with the steps taken in turn every number reaches all others.
    """

    def __init__(self, config: IafConfig, rngs: nnx.Rngs, *, backwards: bool):
        latent, hidden = config.latent, config.hidden
        self.backwards = backwards
        self.inner = normal(rngs, (latent, hidden), latent)
        self.told = Dense(config.context, hidden, rngs)
        self.shift, self.gate = (normal(rngs, (hidden, latent), hidden, gain=0.01) for _ in range(2))
        self.shift_bias, self.gate_bias = (nnx.Param(jnp.zeros(latent, jnp.float32)) for _ in range(2))

    def __call__(
        self, z: Float[Array, "B Z"], context: Float[Array, "B context"]
    ) -> tuple[Float[Array, "B Z"], Float[Array, "B Z"]]:
        """The next z, and log sigma: the logarithms of the diagonal of its Jacobian, which is triangular."""
        into, out = masks(z.shape[1], self.inner.shape[1], backwards=self.backwards)
        hidden = jax.nn.elu(z @ (self.inner[...] * into) + self.told(context))
        m = hidden @ (self.shift[...] * out) + self.shift_bias[...][None]
        s = hidden @ (self.gate[...] * out) + self.gate_bias[...][None] + OPEN
        return jax.nn.sigmoid(s) * z + jax.nn.sigmoid(-s) * m, jax.nn.log_sigmoid(s)  # eq. 14, algorithm 1


def masks(latent: int, hidden: int, *, backwards: bool) -> tuple[Float[np.ndarray, "Z H"], Float[np.ndarray, "H Z"]]:
    """1 where a weight may be: into a hidden unit of degree d from the first d numbers, out of it to all from the d-th.

    So number i depends on those before it. Units of degree 0 see the context alone.
    """
    place = np.arange(latent)[::-1] if backwards else np.arange(latent)
    degree = np.arange(hidden) % latent
    return (place[:, None] < degree).astype(np.float32), (degree[:, None] <= place).astype(np.float32)
