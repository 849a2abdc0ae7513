"""DFC-VAE: reconstructions are also compared by the features of a fixed convolutional network.

Hou et al. 2017, "Deep Feature Consistent Variational Autoencoder" (arXiv 1610.00291). Their network is VGG, trained on
photographs. Ours has random weights that are never trained, since nothing is downloaded here and games are not
photographs: pictures with similar random features have similar textures and edges, too (He et al. 2016, "A Powerful
Generative Model Using Random Weights for the Deep Image Representation", arXiv 1606.04801).
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import DfcConfig
from wm_jax.models.vae.contract import Batch, Metrics, Scalar
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.layers import ConvStack
from wm_jax.models.variables import Buffer

CHANNELS = (16, 32, 64)
"""Of the random network, whatever the width of the others is."""


class Dfc(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: DfcConfig

    def __init__(self, config: DfcConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.random_features = ConvStack(CHANNELS, config, rngs, Buffer)

    def distance(self, decoded: Float[Array, "B side side 3"], batch: Batch) -> tuple[Scalar, Metrics]:
        """The distance pixel_weight * error + feature_weight * feature error; the paper has no pixel error.

        The feature error is the mean squared error of each of the three layers' outputs, summed over layers as in the
        paper (there with a factor 1/2), and multiplied by the 12,288 numbers of a frame. So each layer's part is about
        as large as a squared error summed over pixels.
        """
        pixel_error, metrics = super().distance(decoded, batch)
        pairs = zip(
            self.random_features.layer_outputs(decoded), self.random_features.layer_outputs(batch.target), strict=True
        )
        errors = [jnp.mean(jnp.square(found - real)) for found, real in pairs]
        feature_error = decoded[0].size * jnp.sum(jnp.stack(errors))
        distance = self.config.pixel_weight * pixel_error + self.config.feature_weight * feature_error
        return distance, metrics | {"features": feature_error}
