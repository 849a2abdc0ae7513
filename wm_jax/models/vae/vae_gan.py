"""VAE/GAN: pictures shall be alike in the features by which a discriminator tells drawn ones from real ones.

Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric" (arXiv 1512.09300).
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import VaeGanConfig
from wm_jax.kernels import native
from wm_jax.kernels.conv import Layer, convolutions
from wm_jax.models.vae.contract import Batch, Objective, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.layers import Dense, compute_type, normal
from wm_jax.models.vae.losses import error, kl_to_standard_normal, pressure, squared_error
from wm_jax.utils.sizes import SIDE

JUDGED_BY = nnx.PathContains("discriminator")
CHANNELS = (16, 32, 64)
KERNEL = 4
LEAST = 1e-6
"""Below a mean square of this, features of a frame count as none."""


class VaeGan(GaussianVae):
    """Prior N(0, 1)."""

    config: VaeGanConfig
    objectives = (
        Objective("loss", nnx.All(nnx.Param, nnx.Not(JUDGED_BY))),
        Objective("discriminator_loss", nnx.All(nnx.Param, JUDGED_BY)),
    )

    def __init__(self, config: VaeGanConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.discriminator = FrameDiscriminator(config, rngs)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Features * L_like + pixels * error + adversary * deceiving + beta * KL (algorithm 1).

        L_like is half the squared error of the discriminator's features, summed over them; the error is summed
        over pixels, and Larsen et al. have none: at first the features are random, and what they overlook is lost.
        Deceiving, -log D of what is drawn from codes and from the prior, is in place of their log(1 - D), for its
        gradients while D is sure; it teaches the decoder alone. Adam takes adversary 1 / gamma for their gamma.
        """
        config, posterior = self.config, self.encode(batch.seen)
        z, target = posterior.sample(update.key), batch.target
        decoded = self.decode(z)
        features, real = (self.discriminator.features(frames) for frames in (decoded, target))
        like = 0.5 * jnp.sum(jnp.square(features - real), axis=1)
        of_prior = self.prior(jax.random.fold_in(update.key, 1), len(z))
        drawn = (self.decode(each) for each in (jax.lax.stop_gradient(z), of_prior))
        deceiving = sum(-jax.nn.log_sigmoid(self.discriminator(frames)) for frames in drawn)
        kl = kl_to_standard_normal(posterior)
        loss = jnp.mean(
            config.features * like
            + config.pixels * error(decoded, target, batch.weights, config)
            + config.adversary * deceiving
        ) + pressure(kl, config, update.step)
        reconstruction = jnp.mean(squared_error(decoded, target))
        metrics = {"features": jnp.mean(like), "deceiving": jnp.mean(deceiving)}
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": jnp.mean(kl), **metrics}

    def discriminator_loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """-log D(x) - log(1 - D(x of z)) - log(1 - D(x of the prior)), means over B (algorithm 1)."""
        z = self.encode(batch.seen).sample(update.key)
        of_prior = self.prior(jax.random.fold_in(update.key, 1), len(z))
        real, drawn, dreamt = (
            self.discriminator(frames) for frames in (batch.target, self.decode(z), self.decode(of_prior))
        )
        log = jax.nn.log_sigmoid
        loss = -jnp.mean(log(real) + log(-drawn) + log(-dreamt))
        return loss, {"discriminator_loss": loss}


class FrameDiscriminator(nnx.Module):
    """Frames to the log odds that they are real: three k4 s2 convolutions with ReLU, whose result are the features."""

    def __init__(self, config: VaeGanConfig, rngs: nnx.Rngs):
        self.fast = config.fast_kernels and native.available()
        self.dtype = compute_type(config)
        self.kernels, self.biases = nnx.List(), nnx.List()
        side = SIDE
        for inputs, outputs in pairwise((3, *CHANNELS)):
            self.kernels.append(normal(rngs, (KERNEL, KERNEL, inputs, outputs), KERNEL**2 * inputs, gain=2.0))
            self.biases.append(nnx.Param(jnp.zeros(outputs, jnp.float32)))
            side = (side - KERNEL) // 2 + 1
        self.last = Dense(side * side * CHANNELS[-1], 1, rngs)

    def features(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B F"]:
        """Of frames in [0, 1], divided by their root mean square: else their error would grow as D grows sure."""
        layers = [Layer(kernel[...], bias[...]) for kernel, bias in zip(self.kernels, self.biases, strict=True)]
        raw = convolutions(frames, layers, fast=self.fast, dtype=self.dtype).reshape(len(frames), -1)
        return raw * jax.lax.rsqrt(jnp.mean(jnp.square(raw), axis=1, keepdims=True) + LEAST)

    def __call__(self, frames: Float[Array, "B side side 3"]) -> Float[Array, "B"]:
        """Log odds."""
        return self.last(self.features(frames))[:, 0]
