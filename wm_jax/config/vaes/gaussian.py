"""The settings of auto-encoders with a Gaussian posterior for each frame: other penalties, errors and conditions."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from wm_jax.config.base import Size
from wm_jax.config.vaes.common import KlConfig, Likelihood, SampledKlConfig, Weight


class VanillaConfig(KlConfig):
    """V, the paper's: a Gaussian posterior for each frame, kept near N(0, 1) by the KL."""


class BetaTcConfig(SampledKlConfig):
    """V, a beta-TC-VAE: of the KL's three parts, the total correlation of z's dimensions weighs most."""

    mutual_information_weight: Weight = Field(
        default=1.0, description="weight of the mutual information of frame and z"
    )
    total_correlation_weight: Weight = Field(
        default=6.0, description="weight of the total correlation of z's dimensions"
    )
    dimension_wise_weight: Weight = Field(default=1.0, description="weight of each dimension's own KL from the prior")
    sampling: Literal["weighted", "stratified"] = Field(
        default="weighted", description="estimate of q(z) from a batch: minibatch-weighted or -stratified sampling"
    )


class FactorConfig(KlConfig):
    """V, a FactorVAE: a discriminator keeps z's dimensions independent."""

    total_correlation_weight: Weight = Field(
        default=6.4, description="weight of the total correlation of z's dimensions"
    )
    discriminator_layers: Size = Field(
        default=3, description="hidden layers of the discriminator (the paper has twice as many)"
    )
    discriminator_width: Size = Field(default=1000, description="units of each of these layers")


class DipConfig(KlConfig):
    """V, a DIP-VAE: over all frames, z's dimensions are uncorrelated and have a variance of 1."""

    version: Literal["I", "II"] = Field(
        default="I", description="which covariance is penalised: I: of the posteriors' means; II: of z itself"
    )
    off_diagonal_weight: Weight = Field(default=10.0, description="weight of the sum of squared covariances")
    diagonal_weight: Weight | None = Field(
        default=None,
        description="weight of the sum of squared differences of variances from 1 (default: 10 times that of the "
        "covariances for I, the same for II)",
    )


class InfoConfig(KlConfig):
    """V, an InfoVAE: what z says about each frame, and the distribution of all z, have weights of their own."""

    alpha: Annotated[float, Field(le=1)] = Field(
        default=0.0, description="weight of the mutual information of frame and z: the KL weighs (1 - this) * beta"
    )
    divergence_weight: Weight = Field(
        default=101.0,
        validate_default=True,
        description="lambda, weight of the distance of all z together from N(0, 1): the MMD weighs alpha + this - 1",
    )
    kernel: Literal["imq", "rbf"] = Field(
        default="imq", description="kernel of the MMD: inverse multiquadratic, or Gaussian"
    )

    @field_validator("divergence_weight")
    @classmethod
    def _keep_mmd_minimised(cls, value: float, info: ValidationInfo) -> float:
        """The MMD's weight must not be negative."""
        alpha = info.data.get("alpha", 0.0)
        if alpha + value < 1:
            raise ValueError(f"the MMD would be maximised; give at least 1 - vae.alpha, which is {1 - alpha:g}")
        return value


class LogCoshConfig(KlConfig):
    """V, a log-cosh VAE: errors are squared where they are small, absolute where they are large."""

    likelihood: Likelihood = Field(default="logcosh", description="reconstruction error; logcosh makes it this V")


class MsSsimConfig(KlConfig):
    """V, an MS-SSIM VAE: reconstructions are compared by structure on three scales, beside pixel by pixel."""

    structure_weight: Weight = Field(
        default=300.0, description="weight of 1 - MS-SSIM, which is 0 to 1 for a frame, beside the KL (summed)"
    )
    pixel_weight: Weight = Field(
        default=1.0, description="weight of the pixel error (0: MS-SSIM alone, which hardly sees colours)"
    )


class DfcConfig(KlConfig):
    """V, a deep feature consistent VAE: reconstructions are also compared by the features of a random network."""

    pixel_weight: Weight = Field(default=1.0, description="weight of the pixel error (the paper has none)")
    feature_weight: Weight = Field(
        default=0.5, description="weight of the feature error, of which each of three layers adds about a pixel error"
    )


class VaeGanConfig(KlConfig):
    """V, a VAE/GAN: reconstructions are also compared by the features of a discriminator of real and decoded frames."""

    pixel_weight: Weight = Field(default=1.0, description="weight of the pixel error (the paper has none)")
    feature_weight: Weight = Field(default=1.0, description="weight of the error of the discriminator's features")
    adversary_weight: Weight = Field(
        default=1.0,
        description="weight of deceiving the discriminator: the paper's 1 / gamma, which is 1e5 to 1e6 in its authors' "
        "code beside features of another scale",
    )


class TwoStageConfig(KlConfig):
    """V, the paper's, and a second, small auto-encoder of z, from which new z are drawn that look more like frames."""

    likelihood: Likelihood = Field(
        default="calibrated",
        description="reconstruction error of the first stage; calibrated keeps its z precise, as the method needs",
    )
    hidden: Size = Field(
        default=512, description="units of each of the second stage's two hidden layers (the paper has three of 1024)"
    )


class ConditionalConfig(KlConfig):
    """V, whose decoder is told the action before the frame, so that z need not hold it."""

    condition: Size = Field(default=18, description="the most numbers that an action may consist of")
    unconditioned: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1,
        description="share of the training frames that are decoded without the action, as in all later stages",
    )
