"""The settings of auto-encoders without noise: a frame's z is a point."""

from typing import Annotated, Literal

from pydantic import Field

from wm_jax.config.base import Size
from wm_jax.config.vaes.common import BuiltInVaeConfig, Weight


class WaeConfig(BuiltInVaeConfig):
    """V, a WAE-MMD: no noise; all z together look like draws from N(0, 1)."""

    divergence: Weight = Field(default=100.0, description="lambda, weight of how far all z are from N(0, 1), as MMD")
    kernel: Literal["imq", "rbf"] = Field(default="imq", description="of the MMD: inverse multiquadratic, or Gaussian")


class SwaeConfig(BuiltInVaeConfig):
    """V, a sliced-Wasserstein auto-encoder: no noise; all z look like N(0, 1) from any direction."""

    divergence: Weight = Field(default=100.0, description="lambda, weight of how far all z are from N(0, 1)")
    projections: Size = Field(default=200, description="random directions to look from in each update")
    power: Annotated[float, Field(ge=1)] = Field(default=2.0, description="p of the Wasserstein distance W_p^p")


class RaeConfig(BuiltInVaeConfig):
    """V, without noise: the size of codes is held down, and the decoder is kept smooth instead."""

    beta: Weight = Field(
        default=0.01, description="weight of half of the codes' squared length beside the summed error"
    )
    regulariser: Literal["weights", "gradient", "none"] = Field(
        default="weights",
        description="what keeps the decoder smooth: weights: their squares cost; gradient: how much pictures change "
        "with z does; none",
    )
    decoder_weight: Weight | None = Field(
        default=None, description="its weight (default: 1e-4 for weights, 1e-2 for gradient)"
    )
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="of the moving averages over updates that say how codes are distributed"
    )


class AaeConfig(BuiltInVaeConfig):
    """V, an adversarial auto-encoder: codes without noise, which a discriminator holds near N(0, 1)."""

    adversary: Weight = Field(default=10.0, description="weight of deceiving the discriminator beside the summed error")
    discriminator_layers: Size = Field(default=2, description="hidden layers of the discriminator")
    discriminator_width: Size = Field(default=1000, description="units of each of them")
