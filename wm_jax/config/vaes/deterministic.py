"""The settings of auto-encoders without noise: a frame's z is a point."""

from typing import Annotated, Literal

from pydantic import Field

from wm_jax.config.base import Size
from wm_jax.config.vaes.common import BuiltInVaeConfig, Weight


class WaeConfig(BuiltInVaeConfig):
    """V, a WAE-MMD: no noise; all z together are distributed like samples of N(0, 1)."""

    divergence_weight: Weight = Field(
        default=100.0, description="lambda, weight of the distance of all z together from N(0, 1), their MMD"
    )
    kernel: Literal["imq", "rbf"] = Field(
        default="imq", description="kernel of the MMD: inverse multiquadratic, or Gaussian"
    )


class SwaeConfig(BuiltInVaeConfig):
    """V, a sliced-Wasserstein auto-encoder: no noise; in any direction, all z are distributed like N(0, 1)."""

    divergence_weight: Weight = Field(
        default=100.0, description="lambda, weight of the distance of all z together from N(0, 1)"
    )
    projections: Size = Field(default=200, description="random directions that z is projected on in each update")
    power: Annotated[float, Field(ge=1)] = Field(default=2.0, description="p of the Wasserstein distance W_p^p")


class RaeConfig(BuiltInVaeConfig):
    """V, a regularised auto-encoder: no noise; z is kept small and the decoder smooth instead."""

    beta: Weight = Field(default=0.01, description="weight of half the squared length of z beside the summed error")
    regulariser: Literal["weights", "gradient", "none"] = Field(
        default="weights",
        description="weights: L2 penalty on the decoder's weights; gradient: penalty on the decoder's Jacobian; none",
    )
    decoder_weight: Weight | None = Field(
        default=None, description="weight of the regulariser (default: 1e-4 for weights, 1e-2 for gradient)"
    )
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="decay per update of the moving averages that estimate the distribution of z"
    )


class AaeConfig(BuiltInVaeConfig):
    """V, an adversarial auto-encoder: no noise; a discriminator keeps the distribution of z near N(0, 1)."""

    adversary_weight: Weight = Field(
        default=10.0, description="weight of deceiving the discriminator beside the summed error (not the paper's)"
    )
    discriminator_layers: Size = Field(default=2, description="hidden layers of the discriminator")
    discriminator_width: Size = Field(default=1000, description="units of each of these layers")
