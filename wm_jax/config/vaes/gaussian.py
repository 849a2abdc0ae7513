"""The settings of auto-encoders with a Gaussian posterior for each frame: other penalties, errors and conditions."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from wm_jax.config.base import Size
from wm_jax.config.vaes.common import KlConfig, Likelihood, SampledKlConfig, Weight


class VanillaConfig(KlConfig):
    """V, the paper's: a Gaussian for each frame, kept near N(0, 1) by the KL."""


class BetaTcConfig(SampledKlConfig):
    """V, a beta-TC-VAE: of the KL's three parts, what z's dimensions know of each other weighs most."""

    mutual_information: Weight = Field(default=1.0, description="weight of the mutual information of frame and z")
    total_correlation: Weight = Field(default=6.0, description="weight of what z's dimensions know of each other")
    dimension_wise: Weight = Field(default=1.0, description="weight of each dimension's own KL from the prior")
    sampling: Literal["weighted", "stratified"] = Field(
        default="weighted", description="how a batch stands for the data in the estimate of q(z)"
    )


class FactorConfig(KlConfig):
    """V, a FactorVAE: a discriminator sees to it that z's dimensions know nothing of each other."""

    total_correlation: Weight = Field(default=6.4, description="weight of what z's dimensions know of each other")
    discriminator_layers: Size = Field(default=3, description="hidden layers of the discriminator")
    discriminator_width: Size = Field(default=1000, description="units of each of them")


class DipConfig(KlConfig):
    """V, a DIP-VAE: z's dimensions are uncorrelated over all frames, with a variance of 1."""

    version: Literal["I", "II"] = Field(
        default="I", description="which covariance is penalised: I: of the posteriors' means; II: of z itself"
    )
    off_diagonal: Weight = Field(default=10.0, description="weight of the sum of squared covariances")
    diagonal: Weight | None = Field(
        default=None,
        description="weight of the sum of squared differences of variances from 1 (default: 10 times off_diagonal for "
        "I, the same for II)",
    )


class InfoConfig(KlConfig):
    """V, an InfoVAE: what z says about each frame, and the distribution of all z, have weights of their own."""

    alpha: Annotated[float, Field(le=1)] = Field(
        default=0.0, description="weight of the mutual information of frame and z: the KL weighs (1 - this) * beta"
    )
    divergence: Weight = Field(
        default=101.0,
        validate_default=True,
        description="lambda, weight of the distance of all z together from N(0, 1): the MMD weighs alpha + this - 1",
    )
    kernel: Literal["imq", "rbf"] = Field(default="imq", description="of the MMD: inverse multiquadratic, or Gaussian")

    @field_validator("divergence")
    @classmethod
    def _keep_mmd_minimised(cls, value: float, info: ValidationInfo) -> float:
        """The MMD's weight must not be negative."""
        alpha = info.data.get("alpha", 0.0)
        if alpha + value < 1:
            raise ValueError(f"the MMD would be maximised; give at least 1 - vae.alpha, which is {1 - alpha:g}")
        return value


class LogCoshConfig(KlConfig):
    """V, a log-cosh VAE: errors count by their square where they are small, by their size where they are large."""

    likelihood: Likelihood = Field(default="logcosh", description="what the error is; logcosh makes it this V")


class MsSsimConfig(KlConfig):
    """V, an MS-SSIM VAE: pictures shall be alike in structure, on three scales, rather than pixel by pixel."""

    structure: Weight = Field(
        default=300.0, description="weight of 1 - MS-SSIM, which is 0 to 1 for a frame, beside KL (summed)"
    )
    pixels: Weight = Field(
        default=1.0,
        description="weight of the error of single pixels beside it (0: MS-SSIM alone, which hardly sees colours)",
    )


class DfcConfig(KlConfig):
    """V, a deep feature consistent VAE: pictures shall also be alike in the eyes of a random network."""

    pixels: Weight = Field(default=1.0, description="weight of the error of single pixels")
    features: Weight = Field(default=0.5, description="weight of the error of features, which is about as large")


class VaeGanConfig(KlConfig):
    """V, a VAE/GAN: pictures shall be alike in the features of a discriminator that tells drawn ones from real ones."""

    pixels: Weight = Field(default=1.0, description="weight of the error of single pixels (the paper has none)")
    features: Weight = Field(default=1.0, description="weight of the error of the discriminator's features")
    adversary: Weight = Field(default=1.0, description="weight of deceiving the discriminator; the paper's 1 / gamma")


class TwoStageConfig(KlConfig):
    """V, the paper's, and a second one on its codes: pictures drawn from it alone look more like frames."""

    likelihood: Likelihood = Field(
        default="calibrated", description="what the error is, as of any other; here calibrated, or codes stay blurred"
    )
    hidden: Size = Field(default=512, description="units of each of the second one's two hidden layers")


class ConditionalConfig(KlConfig):
    """V, whose decoder is told the action before the frame, so that z need not hold it."""

    condition: Size = Field(default=18, description="how many numbers an action may be")
    unconditioned: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="part of the training frames that are drawn without it, as all later stages do"
    )
