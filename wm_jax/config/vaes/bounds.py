"""The settings of auto-encoders with tighter bounds, other priors, other posteriors, or several levels of z."""

from typing import Annotated

from pydantic import Field

from wm_jax.config.base import Count, Fraction, NonNegative, Positive, Size
from wm_jax.config.vaes.common import BetaConfig, KlConfig, SampledKlConfig


class BoundConfig(BetaConfig):
    """The settings of bounds from several samples: the KL is no term of these, so it has no floor and no capacity."""

    samples: Count = Field(default=5, description="samples of z for each frame (and for each bound)")


class IwaeConfig(BoundConfig):
    """V, an IWAE: a tighter bound from several weighted samples of z."""


class MiwaeConfig(BoundConfig):
    """V, a MIWAE: the mean of several IWAE bounds, whose gradient is less noisy."""

    bounds: Count = Field(default=3, description="IWAE bounds that are averaged, each with samples of its own")


class PiwaeConfig(MiwaeConfig):
    """V, a PIWAE: the encoder is trained as in a MIWAE, the decoder as in an IWAE with all samples."""


class CiwaeConfig(BoundConfig):
    """V, a CIWAE: a mixture of the usual bound and IWAE's."""

    elbo_weight: Fraction = Field(default=0.5, description="weight of the usual bound; IWAE's has the rest of 1")


class VampConfig(SampledKlConfig):
    """V, with a VampPrior: the prior is a mixture of the posteriors of learned pictures."""

    components: Count = Field(default=50, description="learned pictures")


class IafConfig(SampledKlConfig):
    """V, with inverse autoregressive flow: its steps make latents of the Gaussian posterior depend on each other."""

    flows: Count = Field(default=2, description="steps of the flow")
    hidden: Size = Field(default=128, description="units in each step's network")
    context: Size = Field(default=64, description="numbers that the encoder tells the flow about a frame")


class GammaConfig(KlConfig):
    """V, with gamma-distributed latents: z is positive."""

    prior_concentration: Annotated[float, Field(gt=1)] = Field(
        default=2.0, description="concentration (shape) of the prior, above 1 as those of the posterior are"
    )
    prior_rate: Positive = Field(default=1.0, description="rate (inverse scale) of the prior")


class HierarchicalConfig(SampledKlConfig):
    """V, with two levels of z: the bottom one is decoded, and its prior is learned given the top one."""

    top: Size | None = Field(default=None, description="numbers of z that are its top level (default: a quarter)")
    hidden: Size = Field(default=256, description="units of the networks between the levels")


class LadderConfig(SampledKlConfig):
    """V, a ladder VAE: each level's posterior combines what the frame and the level above say about it."""

    depth: Size = Field(default=3, description="levels of z, each with about twice as many numbers as the one above")
    hidden: Size = Field(default=256, description="units of the networks between the levels")
    warm_up: NonNegative = Field(
        default=5000, description="updates in which the weight of the KL rises from 0, so that no level dies (0: none)"
    )
