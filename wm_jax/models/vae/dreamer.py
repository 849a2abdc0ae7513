"""DreamerV3's latents: groups of classes with straight-through gradients and 1 % uniform mixing.

Hafner et al. 2023, "Mastering Diverse Domains through World Models" (arXiv 2301.04104). There the prior is predicted by
the recurrent model, and two KL terms pull posterior and prior together, the prior ten times as strongly (in the paper's
last version). Here M is trained afterwards, so the prior is uniform: the term that trains the prior is gone, and the
other one, which keeps frames predictable there, limits here how much z says about frames. The networks are those of all
our auto-encoders.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wm_jax.config.vaes import DreamerConfig
from wm_jax.models.latents import Classes
from wm_jax.models.vae.classes import ClassesVae
from wm_jax.utils.errors import UserError


class Dreamer(ClassesVae):
    """Prior: uniform."""

    config: DreamerConfig

    def __init__(self, config: DreamerConfig, rngs: nnx.Rngs):
        """The networks.

        Raises:
          UserError: `latent` is not `groups` times `classes`.
        """
        if config.latent != config.groups * config.classes:
            raise UserError(
                f"vae.latent {config.latent}: {config.groups} groups (vae.groups) of {config.classes} classes "
                f"(vae.classes) make {config.groups * config.classes}; give that, or others"
            )
        super().__init__(config, config.groups, config.classes, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Classes:
        """The posterior q(z | x) of frames x in [0, 1], mixed with a share of the uniform distribution (unimix).

        So no class is ever impossible. There this keeps the KL from a learned prior from growing without bound; from a
        uniform prior it is bounded in any case.
        """
        probabilities = jax.nn.softmax(super().encode(frames).logits, axis=-1)
        return Classes(jnp.log((1 - self.config.unimix) * probabilities + self.config.unimix / self.classes))

    @property
    def kl_parts(self) -> int:
        """See `ClassesVae`: free nats are those of a whole frame, max(1, KL), as in the representation loss."""
        return 1
