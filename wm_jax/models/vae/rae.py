"""Regularised auto-encoder: no noise; codes are held together, the decoder is kept smooth, and z's density is fitted.

Ghosh, Sajjadi, Vergari, Black & Scholkopf 2020, "From Variational to Deterministic Autoencoders" (arXiv 1903.12436).
Of the paper's regularisers the spectral norm is left out, and its density that is fitted after training is kept here
by moving averages while V trains: one Gaussian with a full covariance.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import RaeConfig
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import Scalar
from wm_jax.models.vae.losses import error, squared_error
from wm_jax.models.vae.point import PointVae

DECODER_WEIGHT = {"weights": 1e-4, "gradient": 1e-2, "none": 0.0}
STEP = 0.03
"""Of the difference that stands for a derivative: pictures change in it by far more than bfloat16 rounds them."""


class Average(nnx.Variable):
    """A moving average over the updates of training."""


class Rae(PointVae):
    """Z itself, and a Gaussian over it to draw from."""

    config: RaeConfig

    def __init__(self, config: RaeConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        # Of z and of z z^T; they begin as those of N(0, 1), so that there is a density before the first update.
        self.first = Average(jnp.zeros(config.latent, jnp.float32))
        self.second = Average(jnp.eye(config.latent, dtype=jnp.float32))

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Z from the Gaussian over codes (section 4, with one component)."""
        mean = self.first[...]
        variances, axes = jnp.linalg.eigh(self.second[...] - jnp.outer(mean, mean))
        noise = jax.random.normal(key, (count, self.config.latent), jnp.float32)
        return mean[None, :] + (noise * jnp.sqrt(jnp.maximum(variances, 0.0))[None, :]) @ axes.T

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + beta |z|^2 / 2 + lambda R (section 3): sums over pixels or latents, averaged over B.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike), kl and regulariser (R, of
          whatever weight). There is no KL: in its place stands |z|^2 / 2, the codes' negative log density under
          N(0, 1) but for its constant.
        """
        config = self.config
        z = self.encode(batch.seen).mode()
        decoded, target = self.decode(z), batch.target
        size = 0.5 * jnp.sum(jnp.square(z), axis=1)
        regulariser = self._regulariser(z, decoded, update)
        weight = DECODER_WEIGHT[config.regulariser] if config.decoder_weight is None else config.decoder_weight
        each = error(decoded, target, batch.weights, config) + config.beta * size
        loss = jnp.mean(each) + weight * regulariser
        if update.training:
            self._remember(jax.lax.stop_gradient(z))
        reconstruction = jnp.mean(squared_error(decoded, target))
        return loss, {"loss": loss, "reconstruction": reconstruction, "kl": jnp.mean(size), "regulariser": regulariser}

    def _regulariser(self, z: Float[Array, "B Z"], decoded: Float[Array, "B side side 3"], update: Update) -> Scalar:
        match self.config.regulariser:
            case "weights":  # |theta|^2
                squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(nnx.state(self.decoder, nnx.Param))]
                return jnp.sum(jnp.stack(squares))
            case "gradient":  # |dD/dz|^2: E |J v|^2 over v from N(0, 1) is the sum of all derivatives' squares.
                direction = jax.random.normal(update.key, z.shape, z.dtype)
                ahead = self.decode(z + STEP * direction)  # our kernels are differentiated once, so J v by a difference
                return jnp.mean(squared_error(ahead, decoded)) / STEP**2
            case "none":
                return jnp.float32(0.0)

    def _remember(self, z: Float[Array, "B Z"]) -> None:
        """Let the moving averages move."""
        old, new = self.config.decay, 1 - self.config.decay
        self.first[...] = old * self.first[...] + new * jnp.mean(z, axis=0)
        self.second[...] = old * self.second[...] + new * (z.T @ z) / len(z)
