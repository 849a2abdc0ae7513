"""VampPrior: the prior is not a fixed Gaussian but a mixture of the posteriors of learned pictures (pseudo-inputs).

Tomczak & Welling 2018, "VAE with a VampPrior" (arXiv 1705.07120), with some 500 of them; the authors' code keeps them
in [0, 1] by clipping, ours by a sigmoid.

The pseudo-inputs are encoded in every update beside the batch: 50 of them beside 100 frames make the encoder's work
half as large again.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import VampConfig
from wm_jax.models.latents import Gaussian
from wm_jax.models.vae.contract import Metrics, Scalar, Update
from wm_jax.models.vae.gaussian import PenalisedGaussianVae
from wm_jax.models.vae.losses import kl_term, log_density
from wm_jax.utils.sizes import FRAME


class Vamp(PenalisedGaussianVae):
    """Prior 1/C sum_c q(z|u_c) of the pseudo-inputs u_c."""

    config: VampConfig

    def __init__(self, config: VampConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.pseudo_inputs = nnx.Param(jax.random.normal(rngs.params(), (config.components, *FRAME), jnp.float32))

    def components(self) -> Gaussian:
        """The posteriors q(z|u_c) of the pseudo-inputs, which a sigmoid keeps in [0, 1]."""
        return self.encode(jax.nn.sigmoid(self.pseudo_inputs[...]))

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples of components that are chosen uniformly."""
        which_key, noise_key = jax.random.split(key)
        mean, log_var = self.components()
        which = jax.random.randint(which_key, (count,), 0, len(mean))
        return Gaussian(mean[which], log_var[which]).sample(noise_key)

    def penalty(self, posterior: Gaussian, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """The term of KL(q(z|x) || prior) (`losses.kl_term`).

        The KL from a mixture has no closed form: it is estimated from one z for each frame.
        """
        kl = log_density(z, *posterior) - log_mixture(z, self.components())
        return kl_term(kl, self.config, update.step), {"kl": jnp.mean(kl)}


def log_mixture(z: Float[Array, "B Z"], components: Gaussian) -> Float[Array, "B"]:
    """log(1/C sum_c N(z; component c)): the log density of all Z latents together, in nats."""
    mean, log_var = components
    each = log_density(z[:, None], mean[None], log_var[None])  # [B, C]
    return jax.nn.logsumexp(each, axis=1) - math.log(len(mean))
