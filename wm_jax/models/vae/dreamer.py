"""DreamerV3's latents: choices between classes, with straight-through gradients, and each a little uniform.

Hafner et al. 2023, "Mastering Diverse Domains through World Models" (arXiv 2301.04104). There the prior is what the
recurrent model predicts, and two terms draw posterior and prior together, the prior ten times as strongly. Here M is
trained afterwards, so the prior is uniform: the term that trains the prior is gone, and the weight of the other, which
keeps frames predictable there, says here how much of them is kept at all. The networks are the ones of all variants.
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
    """Prior: all classes alike."""

    config: DreamerConfig

    def __init__(self, config: DreamerConfig, rngs: nnx.Rngs):
        if config.latent != config.groups * config.classes:
            raise UserError(
                f"vae.latent {config.latent}: {config.groups} choices (vae.groups) between {config.classes} classes "
                f"(vae.classes) make {config.groups * config.classes}; give that, or others"
            )
        super().__init__(config, config.groups, config.classes, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Classes:
        """What frames in [0, 1] say about z, a part of it uniform (unimix), so that no KL grows without bound."""
        said = jax.nn.softmax(super().encode(frames).logits, axis=-1)
        return Classes(jnp.log((1 - self.config.unimix) * said + self.config.unimix / self.classes))

    @property
    def floors(self) -> int:
        """Free nats are those of a whole frame: max(1, KL), as in the representation loss."""
        return 1
