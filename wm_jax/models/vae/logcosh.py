"""Log-cosh VAE: the error is squared where it is small and absolute where it is large.

Chen et al. 2019, "Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder" (openreview.net/forum?id=rkglvsC9Ym).
"""

from wm_jax.config.vaes import LogCoshConfig
from wm_jax.models.vae.gaussian import PenalisedGaussianVae


class LogCosh(PenalisedGaussianVae):
    """Prior N(0, 1); the error is sum log(cosh(a e)) / a, with a the `sharpness` (`losses.frame_errors`)."""

    config: LogCoshConfig
