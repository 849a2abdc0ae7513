"""Regularised auto-encoder: z without noise is kept small, the decoder is kept smooth, and z's density is estimated.

Ghosh, Sajjadi, Vergari, Black & Scholkopf 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436).
Of the paper's regularisers the spectral norm is left out. Its ex-post density estimation is a Gaussian with a full
covariance here, kept by moving averages while V trains.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import RaeConfig
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update
from wm_jax.models.vae.losses import reconstruction_error, squared_error
from wm_jax.models.vae.point import PointVae
from wm_jax.models.variables import Buffer

DECODER_WEIGHT = {"weights": 1e-4, "gradient": 1e-2, "none": 0.0}
"""The default of `decoder_weight` for each regulariser."""
STEP = 0.03
"""Of the finite difference in place of a derivative: it changes pictures by far more than bfloat16 rounds them."""


class Rae(PointVae):
    """There is no prior; z can be drawn from the Gaussian that is fitted to the z of training."""

    config: RaeConfig

    def __init__(self, config: RaeConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        # Averages of z and of z z^T; they start as those of N(0, 1), so that there is a density from the beginning.
        self.first = Buffer(jnp.zeros(config.latent, jnp.float32))
        self.second = Buffer(jnp.eye(config.latent, dtype=jnp.float32))

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples of the fitted Gaussian (section 4, with one component)."""
        mean = self.first[...]
        variances, axes = jnp.linalg.eigh(self.second[...] - jnp.outer(mean, mean))
        noise = jax.random.normal(key, (count, self.config.latent), jnp.float32)
        return mean[None, :] + (noise * jnp.sqrt(jnp.maximum(variances, 0.0))[None, :]) @ axes.T

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + beta |z|^2 / 2 + lambda R (section 3): error and |z|^2 summed, and averaged over the batch.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`), kl and regulariser (R,
          before its weight). There is no KL: kl is |z|^2 / 2, up to a constant z's negative log density under N(0, 1).
        """
        config = self.config
        z = self.encode(batch.encoder_input).mode()
        decoded = self.decode(z)
        error, metrics = reconstruction_error(decoded, batch, config)
        half_square = 0.5 * jnp.mean(jnp.sum(jnp.square(z), axis=1))
        regulariser = self._regulariser(z, decoded, update)
        weight = DECODER_WEIGHT[config.regulariser] if config.decoder_weight is None else config.decoder_weight
        loss = error + config.beta * half_square + weight * regulariser
        if update.training:
            self._update_averages(jax.lax.stop_gradient(z))
        return loss, {"loss": loss, **metrics, "kl": half_square, "regulariser": regulariser}

    def _regulariser(self, z: Float[Array, "B Z"], decoded: Float[Array, "B side side 3"], update: Update) -> Scalar:
        match self.config.regulariser:
            case "weights":  # |theta|^2
                squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(nnx.state(self.decoder, nnx.Param))]
                return jnp.sum(jnp.stack(squares))
            case "gradient":  # |dD/dz|^2: E |J v|^2 over v from N(0, 1) is the sum of all squared derivatives.
                direction = jax.random.normal(update.key, z.shape, z.dtype)
                # Our kernels can be differentiated only once, so J v is a finite difference.
                ahead = self.decode(z + STEP * direction)
                return jnp.mean(squared_error(ahead, decoded)) / STEP**2
            case "none":
                return jnp.float32(0.0)

    def _update_averages(self, z: Float[Array, "B Z"]) -> None:
        decay = self.config.decay
        self.first[...] = decay * self.first[...] + (1 - decay) * jnp.mean(z, axis=0)
        self.second[...] = decay * self.second[...] + (1 - decay) * (z.T @ z) / len(z)
