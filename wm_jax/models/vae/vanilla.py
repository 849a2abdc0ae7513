"""The paper's V: a Gaussian auto-encoder with squared error (Ha & Schmidhuber 2018, A.1).

The loss is eq. 10 of Kingma & Welling 2014 with a weight beta on the KL (Higgins et al. 2017) and a floor under it. The
floor is not in the paper, but in its authors' code: 0.5 nats per latent dimension.
"""

from wm_jax.config.vaes import VanillaConfig
from wm_jax.models.vae.gaussian import PenalisedGaussianVae


class Vanilla(PenalisedGaussianVae):
    """Prior N(0, 1)."""

    config: VanillaConfig
