"""The settings of auto-encoders with tighter bounds, other priors, other posteriors, or several levels of z."""

from pydantic import Field

from wm_jax.config.base import Count, Fraction, NonNegative, Positive, Size
from wm_jax.config.vaes.common import BetaConfig, KlConfig, SampledKlConfig


class BoundConfig(BetaConfig):
    """What bounds from several samples have in common: in their sums neither a floor nor a capacity has a place."""

    samples: Count = Field(default=5, description="of z for each frame that are weighed against each other")


class IwaeConfig(BoundConfig):
    """V, an IWAE: of several samples of z those count that make the frame likely."""


class MiwaeConfig(BoundConfig):
    """V, a MIWAE: the mean of several IWAE bounds, whose gradient is less noisy."""

    bounds: Count = Field(default=3, description="IWAE bounds that are averaged, each with samples of its own")


class PiwaeConfig(MiwaeConfig):
    """V, a PIWAE: the encoder learns as of a MIWAE, the decoder as of an IWAE with all its samples."""


class CiwaeConfig(BoundConfig):
    """V, a CIWAE: a mixture of the usual bound and of an IWAE's."""

    elbo_weight: Fraction = Field(default=0.5, description="of the usual bound; the IWAE's has the rest")


class VampConfig(SampledKlConfig):
    """V, with a VampPrior: the prior is a mixture of what is encoded of pictures that are learned."""

    components: Count = Field(default=50, description="learned pictures, whose posteriors are the prior")


class IafConfig(SampledKlConfig):
    """V, with inverse autoregressive flow: a Gaussian for each frame is bent until z's numbers depend on each other."""

    flows: Count = Field(default=2, description="steps of the flow")
    hidden: Size = Field(default=128, description="units in each step's network")
    context: Size = Field(default=64, description="numbers that the encoder tells the flow about a frame")


class GammaConfig(KlConfig):
    """V, a Gamma distribution for each frame: z's numbers are positive, and small ones as likely as the prior says."""

    prior_concentration: Positive = Field(default=2.0, description="the prior's shape")
    prior_rate: Positive = Field(default=1.0, description="the prior's inverse scale")


class HierarchicalConfig(SampledKlConfig):
    """V, with two levels of z: the frame decides the bottom one, and this the top one."""

    top: Size | None = Field(default=None, description="how many of z's numbers are its top level (default: a quarter)")
    hidden: Size = Field(default=256, description="units of the networks between the levels")


class LadderConfig(KlConfig):
    """V, a ladder VAE: several levels of z, each by what the frame and the level above say of it."""

    depth: Size = Field(default=3, description="levels of z, each with about twice as many numbers as the one above")
    hidden: Size = Field(default=256, description="units of the networks between the levels")
    warm_up: NonNegative = Field(
        default=5000, description="updates in which the weight of KL rises from 0, so that no level dies (0: none)"
    )
