"""MS-SSIM VAE: reconstructions are compared by their structure on several scales rather than pixel by pixel.

The similarity: Wang, Simoncelli & Bovik 2003, "Multi-scale structural similarity for image quality assessment"; each
scale: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity". As the error of an
auto-encoder: Snell et al. 2017, "Learning to generate images with perceptual similarity metrics" (arXiv 1511.06409).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wm_jax.config.vaes import MsSsimConfig
from wm_jax.models.straight_through import straight_through
from wm_jax.models.vae.contract import Batch, Metrics, Scalar
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.utils.ssim import C1, C2, gaussian_windows

EXPONENTS = np.asarray((0.0448, 0.2856, 0.3001), np.float32)
"""Of the scales, from fine to coarse (Wang et al. 2003, 3.2). The paper has five; but the window needs 11 pixels, and
of the sides 64, 32, 16, 8 and 4 only the first three have as many. These exponents are divided by their sum, since the
paper's five sum to 1."""
LEAST = 0.01
"""Lower similarities, which may be negative, are raised to this: a power of a negative number would be NaN."""


class MsSsim(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: MsSsimConfig

    def distance(self, decoded: Float[Array, "B side side 3"], batch: Batch) -> tuple[Scalar, Metrics]:
        """The distance structure_weight * (1 - MS-SSIM) + pixel_weight * error.

        MS-SSIM is a mean between 0 and 1 for each frame, so the weight is what a completely different frame costs
        beside the summed KL: at 300, one nat is worth 1/300 of similarity. The error is summed over pixels. Snell et
        al. have none; MS-SSIM hardly sees a colour that is wrong everywhere, so it is much as in Zhao et al. 2017,
        "Loss Functions for Image Restoration with Neural Networks" (arXiv 1511.08861; there the absolute error).
        """
        pixel_error, metrics = super().distance(decoded, batch)
        similarity = jnp.mean(ms_ssim(decoded, batch.target, batch.weights))
        distance = self.config.structure_weight * (1.0 - similarity) + self.config.pixel_weight * pixel_error
        return distance, metrics | {"ms_ssim": similarity}


def ms_ssim(
    x: Float[Array, "B side side 3"],
    y: Float[Array, "B side side 3"],
    weights: Float[Array, "B side side 1"] | None = None,
) -> Float[Array, "B"]:
    """The multi-scale structural similarity of pictures in [0, 1], averaged over colours; 1 where they are equal.

    Args:
      weights: of pixels. A window weighs as much as its pixels do on average.
    """
    exponents = EXPONENTS / EXPONENTS.sum()
    weights = jnp.ones((1, *x.shape[1:3], 1), x.dtype) if weights is None else weights
    result = jnp.ones_like(x[:, 0, 0])
    for scale, exponent in enumerate(exponents):
        if scale:
            x, y, weights = halved(x), halved(y), halved(weights)
        luminance, contrast_structure = ssim_factors(x, y)
        coarsest = scale == len(exponents) - 1
        similarity = luminance * contrast_structure if coarsest else contrast_structure
        window_weights = blurred(weights)
        mean = jnp.sum(window_weights * similarity, axis=(1, 2)) / jnp.sum(window_weights, axis=(1, 2))
        result *= _floored(mean) ** exponent  # Wang et al. 2003, eq. 7
    return jnp.mean(result, axis=1)


def ssim_factors(
    x: Float[Array, "B s s 3"], y: Float[Array, "B s s 3"]
) -> tuple[Float[Array, "B w w 3"], Float[Array, "B w w 3"]]:
    """Luminance, and contrast times structure, of each window (Wang et al. 2004, eqs. 6, 9, 10, with C3 = C2 / 2)."""
    moments = jnp.concatenate((x, y, x * x + y * y, x * y), axis=3)
    mean_x, mean_y, mean_of_squares, mean_of_product = jnp.split(blurred(moments), 4, axis=3)
    squares, product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    luminance = (2.0 * product + C1) / (squares + C1)
    return luminance, (2.0 * (mean_of_product - product) + C2) / (mean_of_squares - squares + C2)


def blurred(x: Float[Array, "B s s C"]) -> Float[Array, "B w w C"]:
    """The weighted means of all windows that lie within the picture.

    They are computed in full precision, because variances are differences of them. As matrix products, and with their
    gradients, they take 11 million multiplications for each frame, a tenth of the networks'. But these products are
    small, on twelve maps that are read and written several times: on a CPU an update takes half as long again.
    """
    windows = gaussian_windows(x.shape[1]).astype(np.float32)
    return jnp.einsum("pi,bijc,qj->bpqc", windows, x, windows, precision=jax.lax.Precision.HIGHEST)


def halved(x: Float[Array, "B s s C"]) -> Float[Array, "B h h C"]:
    """The means of 2x2 pixels."""
    batch, side, _, channels = x.shape
    return jnp.mean(x.reshape(batch, side // 2, 2, side // 2, 2, channels), axis=(2, 4))


def _floored(similarity: Float[Array, "B 3"]) -> Float[Array, "B 3"]:
    """At least `LEAST`. The gradient ignores the floor, so that lower similarities can rise again."""
    return straight_through(jnp.maximum(similarity, LEAST), similarity)
