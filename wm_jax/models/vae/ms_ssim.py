"""MS-SSIM VAE: pictures shall be alike in structure, on several scales, rather than pixel by pixel.

The similarity: Wang, Simoncelli & Bovik 2003, "Multi-scale structural similarity for image quality assessment"; each
scale: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity". As the error of an
auto-encoder: Snell et al. 2017, "Learning to generate images with perceptual similarity metrics" (arXiv 1511.06409).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.config.vaes import MsSsimConfig
from wm_jax.models.vae.contract import Batch, Update
from wm_jax.models.vae.gaussian import GaussianVae, Scalar
from wm_jax.models.vae.losses import error, kl_to_standard_normal, pressure, squared_error

WINDOW, SIGMA = 11, 1.5
"""Pixels of the Gaussian window's side, and its standard deviation (Wang et al. 2004, III.C)."""
C1, C2 = 0.01**2, 0.03**2
"""They keep flat regions from a division by 0 (likewise; colours go to 1)."""
EXPONENTS = np.asarray((0.0448, 0.2856, 0.3001), np.float32)
"""Of the scales, from fine to coarse (Wang et al. 2003, 3.2). They had five; but the window needs 11 pixels, and of 64,
32, 16, 8 and 4 only the first three sides have as many. Exponents are divided by their sum, as the five sum to 1."""
LEAST = 0.01
"""What a similarity below, which may be negative, counts as: a power of it would be no number."""


class MsSsim(GaussianVae):
    """Prior N(0, 1)."""

    config: MsSsimConfig

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Structure * (1 - MS-SSIM) + pixels * error + beta * KL.

        MS-SSIM is a mean, between 0 and 1 for each frame, so its weight is what a wholly different frame costs beside
        the summed KL: at 300 a nat is worth a 300th of similarity. The error is summed over pixels. Snell et al. have
        none; beside MS-SSIM, which hardly sees a colour that is wrong everywhere, it is as in Zhao et al. 2017, "Loss
        Functions for Image Restoration with Neural Networks" (arXiv 1511.08861).
        """
        config, posterior = self.config, self.encode(batch.seen)
        decoded, target = self.decode(posterior.sample(update.key)), batch.target
        similarity = ms_ssim(decoded, target, batch.weights)
        pixels = error(decoded, target, batch.weights, config)
        kl = kl_to_standard_normal(posterior)
        loss = jnp.mean(config.structure * (1.0 - similarity) + config.pixels * pixels)
        loss += pressure(kl, config, update.step)
        reconstruction = jnp.mean(squared_error(decoded, target))
        return loss, {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": jnp.mean(kl),
            "ms_ssim": jnp.mean(similarity),
        }


def ms_ssim(
    x: Float[Array, "B side side 3"],
    y: Float[Array, "B side side 3"],
    weights: Float[Array, "B side side 1"] | None = None,
) -> Float[Array, "B"]:
    """Similarity of pictures in [0, 1], the mean of their colours'; 1 where they are equal.

    Args:
      weights: of pixels. What a window counts is the mean of these in it, beside the other windows of its picture.
    """
    exponents = EXPONENTS / EXPONENTS.sum()
    weights = jnp.ones((1, *x.shape[1:3], 1), x.dtype) if weights is None else weights
    result = jnp.ones_like(x[:, 0, 0])
    for scale, exponent in enumerate(exponents):
        if scale:
            x, y, weights = halved(x), halved(y), halved(weights)
        luminance, contrast_structure = compared(x, y)
        coarsest = scale == len(exponents) - 1
        similar = luminance * contrast_structure if coarsest else contrast_structure
        windows = blurred(weights)
        mean = jnp.sum(windows * similar, axis=(1, 2)) / jnp.sum(windows, axis=(1, 2))
        result *= _floored(mean) ** exponent  # Wang et al. 2003, eq. 7
    return jnp.mean(result, axis=1)


def compared(
    x: Float[Array, "B s s 3"], y: Float[Array, "B s s 3"]
) -> tuple[Float[Array, "B w w 3"], Float[Array, "B w w 3"]]:
    """Luminance, and contrast times structure, of each window (Wang et al. 2004, eqs. 6, 9, 10, with C3 = C2 / 2)."""
    all_at_once = jnp.concatenate((x, y, x * x + y * y, x * y), axis=3)
    mean_x, mean_y, mean_of_squares, mean_of_product = jnp.split(blurred(all_at_once), 4, axis=3)
    squares, product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    luminance = (2.0 * product + C1) / (squares + C1)
    return luminance, (2.0 * (mean_of_product - product) + C2) / (mean_of_squares - squares + C2)


def blurred(x: Float[Array, "B s s C"]) -> Float[Array, "B w w C"]:
    """The means of all windows that lie within the picture, in full precision: variances are differences of these.

    As matrix products, with their gradients 11 million multiplications of a frame, a tenth of the networks'; but small
    ones, on twelve maps of which each is read and written several times: on a CPU an update takes half as long again.
    """
    window = gaussian_windows(x.shape[1])
    return jnp.einsum("pi,bijc,qj->bpqc", window, x, window, precision=jax.lax.Precision.HIGHEST)


def gaussian_windows(side: int) -> Float[np.ndarray, "w side"]:
    """The windows along an axis, a row for each place: exp(-distance^2 / (2 sigma^2)), with the sum 1."""
    distance = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-np.square(distance) / (2 * SIGMA**2))
    places = range(side - WINDOW + 1)
    return np.stack([np.pad(window / window.sum(), (place, places[-1] - place)) for place in places]).astype(np.float32)


def halved(x: Float[Array, "B s s C"]) -> Float[Array, "B h h C"]:
    """The means of 2x2 pixels."""
    batch, side, _, channels = x.shape
    return jnp.mean(x.reshape(batch, side // 2, 2, side // 2, 2, channels), axis=(2, 4))


def _floored(similarity: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
    """At least `LEAST`; derivatives pass as if there were no floor, so that what lies below finds its way up."""
    return similarity + jax.lax.stop_gradient(jnp.maximum(similarity, LEAST) - similarity)
