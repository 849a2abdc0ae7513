"""DFC-VAE: pictures shall also be alike in the eyes of a convolutional network that was there before.

Hou et al. 2017, "Deep Feature Consistent Variational Autoencoder" (arXiv 1610.00291). Their network is VGG, trained on
photographs. Ours is random and stays so, since there is nothing to download and no photograph in a game: what is near
in random features is alike in texture and edges, too (He et al. 2016, "A Powerful Generative Model Using Random Weights
for the Deep Image Representation", arXiv 1606.04801).
"""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import DfcConfig
from wm_jax.kernels import native
from wm_jax.kernels.conv import Layer, convolutions
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.layers import compute_type, normal
from wm_jax.models.vae.losses import error, kl_to_standard_normal, pressure, squared_error

CHANNELS = (16, 32, 64)
KERNEL = 4


class Fixed(nnx.Variable):
    """Drawn with the parameters and saved with them, but never learned."""


class Dfc(GaussianVae):
    """Prior N(0, 1)."""

    config: DfcConfig

    def __init__(self, config: DfcConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.onlooker = Onlooker(config, rngs)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Pixels * error + features * feature error + beta * KL, the first summed over pixels.

        The feature error is the mean squared one of each layer, summed over layers as in the paper (there with 1/2),
        and multiplied by the numbers in a frame, which makes it about as large as a squared error summed over pixels.
        """
        config, posterior = self.config, self.encode(batch.seen)
        decoded, target = self.decode(posterior.sample(update.key)), batch.target
        features = target[0].size * sum(
            jnp.mean(jnp.square(ours - real), axis=(1, 2, 3))
            for ours, real in zip(self.onlooker(decoded), self.onlooker(target), strict=True)
        )
        pixels = error(decoded, target, batch.weights, config)
        kl = kl_to_standard_normal(posterior)
        loss = jnp.mean(config.pixels * pixels + config.features * features) + pressure(kl, config, update.step)
        reconstruction = jnp.mean(squared_error(decoded, target))
        return loss, {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": jnp.mean(kl),
            "features": jnp.mean(features),
        }


class Onlooker(nnx.Module):
    """Frames to the features of three layers: k4 s2 convolutions with ReLU and random weights, of any width alike."""

    def __init__(self, config: DfcConfig, rngs: nnx.Rngs):
        self.fast = config.fast_kernels and native.available()
        self.dtype = compute_type(config)
        shapes = [(KERNEL, KERNEL, inputs, outputs) for inputs, outputs in pairwise((3, *CHANNELS))]
        kernels = [normal(rngs, shape, KERNEL * KERNEL * shape[2], gain=2.0)[...] for shape in shapes]
        self.kernels = nnx.List(Fixed(kernel) for kernel in kernels)

    def __call__(self, frames: Float[Array, "B side side 3"]) -> list[Float[Array, "B _h _w _C"]]:
        """The features of frames in [0, 1], layer by layer."""
        layers = []
        for kernel in self.kernels:
            layer = Layer(kernel[...], jnp.zeros(kernel.shape[-1], jnp.float32))
            frames = convolutions(frames, [layer], fast=self.fast, dtype=self.dtype)
            layers.append(frames)
        return layers
