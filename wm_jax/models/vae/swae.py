"""Sliced-Wasserstein auto-encoder: projected on any direction, the z of a batch are distributed like the prior's.

Kolouri et al. 2018, "Sliced-Wasserstein Autoencoder" (arXiv 1804.01947). In one dimension optimal transport is sorting.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import SwaeConfig
from wm_jax.models.vae.contract import Metrics, Scalar, Update
from wm_jax.models.vae.point import PenalisedPointVae


class Swae(PenalisedPointVae):
    """Prior N(0, 1)."""

    config: SwaeConfig

    def penalty(self, z: Float[Array, "B Z"], update: Update) -> tuple[Scalar, Metrics]:
        """The penalty lambda SW(q(z), p(z)), algorithm 1: a mean over directions and frames. The metric kl is SW.

        A shift of all Z coordinates by 1 makes it 1 (with p = 2), not Z. Beside an error averaged over a frame's 12,288
        numbers, the same lambda would weigh 12,288 times as much.
        """
        config = self.config
        prior_key, direction_key = jax.random.split(update.key)
        directions = random_directions(direction_key, config.projections, config.latent)
        divergence = sliced_wasserstein(z, self.prior(prior_key, len(z)), directions, config.power)
        return config.divergence_weight * divergence, {"kl": divergence}


def random_directions(key: Key[Array, ""], count: int, size: int) -> Float[Array, "count size"]:
    """Points on the unit sphere, drawn uniformly."""
    drawn = jax.random.normal(key, (count, size), jnp.float32)
    return drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)


def sliced_wasserstein(
    a: Float[Array, "B Z"], b: Float[Array, "B Z"], directions: Float[Array, "L Z"], power: float
) -> Scalar:
    """W_p^p between the projections of both sets, averaged over the directions: the i-th smallest ones are paired.

    Args:
      power: p.
    """
    a_sorted, b_sorted = (jnp.sort(directions @ each.T, axis=1) for each in (a, b))
    return jnp.mean(jnp.abs(a_sorted - b_sorted) ** power)
