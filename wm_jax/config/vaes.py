"""The settings of every auto-encoder; `models/vae/` has a file of the same name for each.

A type has the settings that its auto-encoder uses and no others; its first line is what `--help` says of it.
`VARIANTS` at the end is the one list of names.
"""

from typing import Annotated, Literal

from pydantic import Field

from wm_jax.config.base import (
    MUTABLE,
    Arguments,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Size,
    TrainingConfig,
    known_or_own,
)

Weight = Annotated[float, Field(ge=0)]
Likelihood = Literal["gaussian", "laplace", "logcosh", "cross_entropy", "calibrated"]


class VaeConfig(TrainingConfig):
    """What every auto-encoder has, one of your own too."""

    variant: known_or_own(lambda: VARIANTS) = Field(  # pyright: ignore[reportInvalidTypeForm]
        default="vanilla", description="which auto-encoder; one of your own: MODULE:CLASS (docs/architecture.md)"
    )
    latent: Size = Field(default=32, description="size of z")
    width: Annotated[float, Field(gt=0, le=64)] = Field(
        default=1.0, description="multiplies every channel count of the paper's network"
    )
    moving_weight: Weight = Field(
        default=0.0,
        description="what it costs to lose a pixel that moves, however little it stands out, beside 1 for an error as "
        "large as can be, so that small things are not left out; 0.1 to 2 (0: as any other pixel)",
    )
    rare_weight: Weight = Field(
        default=0.0,
        description="likewise of a pixel whose colour is among the rarest 2 % of the game's, added to the weight of "
        "any other, 1; 1 to 30 (0: as any other pixel)",
    )
    noise_patches: bool | Literal["common"] = Field(
        default=False,
        description="replace 5-pixel squares of the input by noise: true: a fixed 6x6 grid; common: wherever the "
        "frames are all alike",
    )
    steps: Annotated[Count, MUTABLE] = Field(
        default=1_000_000, description="updates (the paper's ten epochs over 10,000 episodes)"
    )
    report_every: Annotated[Count, MUTABLE] = Field(
        default=1000, description="updates between held-out evaluations and reconstruction sheets"
    )
    frames: Literal["replays", "generated"] = Field(
        default="replays",
        description="what to train on; generated: new episodes all the time, where the game is on the device",
    )
    prefer: Literal["none", "moving", "rare"] = Field(
        default="none",
        description="draw those training frames more often in which much moves, or much has a rare colour",
    )
    bfloat16: bool = Field(default=True, description="convolutions multiply in bfloat16 where the device can")
    fast_kernels: Annotated[bool, MUTABLE] = Field(
        default=True, description="on CPU, our convolutions in C instead of XLA's"
    )


class OwnVaeConfig(VaeConfig):
    """V, an auto-encoder of your own."""

    options: Arguments = Field(default={}, description="arguments of the class, NAME=VALUE")


class OurVaeConfig(VaeConfig):
    """What those of ours have in common."""

    encoder: Literal["paper", "local", "residual", "grid"] = Field(
        default="paper",
        description="paper: four convolutions; local: three, with a part of z for each place of a 6x6 grid; residual: "
        "deeper, with normalisation; grid: residual, with a part of z for each place of a 4x4 grid",
    )
    decoder: Literal["paper", "local", "residual", "grid"] = Field(
        default="paper", description="likewise, the other way round"
    )
    likelihood: Likelihood = Field(
        default="gaussian",
        description="what the error is: gaussian: squared; laplace: absolute; logcosh: between these; cross_entropy: "
        "of each colour as a probability; calibrated: gaussian, whose variance is the best for each batch",
    )
    sharpness: Positive = Field(
        default=10.0, description="of logcosh: errors well above one part in this many count by their size"
    )


class BetaConfig(OurVaeConfig):
    """What those with a KL have in common."""

    beta: Weight = Field(default=1.0, description="weight of KL (summed) beside the summed error")
    warm_up: NonNegative = Field(default=0, description="updates in which the weight of KL rises from 0 (0: none)")


class KlConfig(BetaConfig):
    """What those have in common whose KL is a term of its own."""

    free_nats: Weight = Field(default=0.5, description="KL floor per latent dimension: max(KL, this * z)")
    capacity: Weight | None = Field(
        default=None, description="aim at this KL in nats instead: beta * |KL - capacity| (default: at none)"
    )
    capacity_steps: NonNegative = Field(default=10_000, description="updates in which the capacity rises from 0")


class VanillaConfig(KlConfig):
    """V, the paper's: a Gaussian for each frame, kept near N(0, 1) by the KL."""


class BetaTcConfig(KlConfig):
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
        default="I", description="whose covariance: I: the means'; II: that of z, posteriors' variances included"
    )
    off_diagonal: Weight = Field(default=10.0, description="weight of the covariances, squared and summed")
    diagonal: Weight = Field(default=5.0, description="weight of what variances differ from 1, squared and summed")


class InfoConfig(KlConfig):
    """V, an InfoVAE: what a frame's z tells, and how all z together lie, are weighed apart."""

    alpha: Annotated[float, Field(le=1)] = Field(
        default=-9.0, description="what the mutual information of frame and z is worth: the KL weighs (1 - this) * beta"
    )
    divergence: Weight = Field(
        default=110.0, description="lambda, weight of how far all z are from N(0, 1): the MMD weighs alpha + this - 1"
    )
    kernel: Literal["imq", "rbf"] = Field(default="imq", description="of the MMD: inverse multiquadratic, or Gaussian")


class WaeConfig(OurVaeConfig):
    """V, a WAE-MMD: no noise; all z together look like draws from N(0, 1)."""

    divergence: Weight = Field(default=100.0, description="lambda, weight of how far all z are from N(0, 1), as MMD")
    kernel: Literal["imq", "rbf"] = Field(default="imq", description="of the MMD: inverse multiquadratic, or Gaussian")


class SwaeConfig(OurVaeConfig):
    """V, a sliced-Wasserstein auto-encoder: no noise; all z look like N(0, 1) from any direction."""

    divergence: Weight = Field(default=100.0, description="lambda, weight of how far all z are from N(0, 1)")
    projections: Size = Field(default=200, description="random directions to look from in each update")
    power: Annotated[float, Field(ge=1)] = Field(default=2.0, description="p of the Wasserstein distance W_p^p")


class BoundConfig(BetaConfig):
    """What bounds from several samples have in common: in their sums neither a floor nor a capacity has a place."""

    samples: Count = Field(default=5, description="of z for each frame that are weighed against each other")


class IwaeConfig(BoundConfig):
    """V, an IWAE: of several samples of z those count that make the frame likely."""


class MiwaeConfig(BoundConfig):
    """V, a MIWAE: the mean of several IWAE bounds, whose gradient is less noisy."""

    groups: Count = Field(default=3, description="of samples, each with a bound of its own")


class PiwaeConfig(MiwaeConfig):
    """V, a PIWAE: the encoder learns as of a MIWAE, the decoder as of an IWAE with all its samples."""


class CiwaeConfig(BoundConfig):
    """V, a CIWAE: a mixture of the usual bound and of an IWAE's."""

    elbo_weight: Fraction = Field(default=0.5, description="of the usual bound; the IWAE's has the rest")


class VampConfig(KlConfig):
    """V, with a VampPrior: the prior is a mixture of what is encoded of pictures that are learned."""

    components: Count = Field(default=50, description="learned pictures, whose posteriors are the prior")


class IafConfig(KlConfig):
    """V, with inverse autoregressive flow: a Gaussian for each frame is bent until z's numbers depend on each other."""

    flows: Count = Field(default=2, description="steps of the flow")
    hidden: Size = Field(default=128, description="units in each step's network")
    context: Size = Field(default=64, description="numbers that the encoder tells the flow about a frame")


class GammaConfig(KlConfig):
    """V, a Gamma distribution for each frame: z's numbers are positive, and small ones as likely as the prior says."""

    prior_concentration: Positive = Field(default=2.0, description="the prior's shape")
    prior_rate: Positive = Field(default=1.0, description="the prior's inverse scale")


class VqConfig(OurVaeConfig):
    """V, a VQ-VAE: z consists of vectors out of a codebook, each the nearest to what the encoder says."""

    latent: Size = Field(default=256, description="size of z, that of its vectors together")
    codes_per_frame: Size = Field(default=32, description="vectors that z consists of; they share z evenly")
    codes: Size = Field(default=512, description="vectors in the codebook")
    codebook: Literal["learned", "averages"] = Field(
        default="learned",
        description="how its vectors come to lie where they are needed; learned: by gradient; averages: as moving "
        "averages of what they stand for",
    )
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="what is left of a moving average after an update"
    )
    commitment: Weight = Field(default=0.25, description="weight of the encoder's distance from the vectors chosen")
    restarts: bool = Field(
        default=True, description="put vectors that are hardly ever chosen where one of the batch's parts of z is"
    )


class FsqConfig(OurVaeConfig):
    """V, with finite scalar quantisation: each number of z is rounded to one of a few levels."""

    levels: Annotated[tuple[Annotated[int, Field(ge=2, le=65_536)], ...], Field(min_length=1)] = Field(
        default=(8, 5, 5, 5), description="levels of the numbers that make a code; z consists of such codes"
    )


class CategoricalConfig(KlConfig):
    """V, a categorical VAE: z consists of choices between classes, relaxed by Gumbel-softmax in training."""

    latent: Size = Field(default=512, description="size of z: choices times classes")
    free_nats: Weight = Field(default=0.0, description="KL floor per choice: max(KL, this * choices)")
    classes: Size = Field(default=16, description="classes of each choice")
    temperature: Positive = Field(default=1.0, description="of the relaxed choices in the first update")
    final_temperature: Positive = Field(default=0.5, description="what it falls to at most")
    anneal_rate: Weight = Field(default=1e-4, description="the part of itself that it loses with every update")
    straight_through: bool = Field(
        default=False, description="decode real choices in training too, with the gradient of the relaxed ones"
    )


class JointConfig(KlConfig):
    """V, a JointVAE: z is Gaussian but for a few choices between classes, each part with a capacity of its own."""

    beta: Weight = Field(default=100.0, description="weight of each KL's distance from its capacity (gamma)")
    capacity: Weight | None = Field(
        default=50.0, description="KL in nats that the Gaussian part is to have (none: floors, for both parts)"
    )
    class_capacity: Weight = Field(
        default=10.0, description="likewise of the choices, as far as they can hold it: choices * log(classes)"
    )
    capacity_steps: NonNegative = Field(default=100_000, description="updates in which the capacities rise from 0")
    free_nats: Weight = Field(
        default=0.0, description="without capacities, KL floor per dimension of the Gaussian part, and per choice"
    )
    groups: Size = Field(default=1, description="choices, at the end of z")
    classes: Size = Field(default=10, description="classes of each choice")
    temperature: Positive = Field(default=0.67, description="of the relaxed choices")


class DreamerConfig(KlConfig):
    """V, with DreamerV3's latents: choices between classes, straight-through, none of them ever quite sure."""

    latent: Size = Field(default=1024, description="size of z: groups * classes")
    beta: Weight = Field(default=0.1, description="weight of KL (summed) beside the summed error")
    free_nats: Weight = Field(default=1.0, description="KL floor of a frame: max(KL, this)")
    groups: Size = Field(default=32, description="choices that z consists of")
    classes: Size = Field(default=32, description="classes of each choice")
    unimix: Fraction = Field(default=0.01, description="part of the uniform distribution in what the encoder says")


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


class AaeConfig(OurVaeConfig):
    """V, an adversarial auto-encoder: codes without noise, which a discriminator holds near N(0, 1)."""

    adversary: Weight = Field(default=10.0, description="weight of deceiving the discriminator beside the summed error")
    discriminator: Size = Field(default=1000, description="units in each of the discriminator's two layers")


class VaeGanConfig(KlConfig):
    """V, a VAE/GAN: pictures shall be alike in the features of a discriminator that tells drawn ones from real ones."""

    pixels: Weight = Field(default=1.0, description="weight of the error of single pixels (the paper has none)")
    features: Weight = Field(default=1.0, description="weight of the error of the discriminator's features")
    adversary: Weight = Field(default=1.0, description="weight of deceiving the discriminator; the paper's 1 / gamma")


class HierarchicalConfig(KlConfig):
    """V, with two levels of z: the frame decides the bottom one, and this the top one."""

    top: Size | None = Field(default=None, description="how many of z's numbers are its top level (default: a quarter)")
    hidden: Size = Field(default=256, description="units of the networks between the levels")


class LadderConfig(KlConfig):
    """V, a ladder VAE: several levels of z, each by what the frame and the level above say of it."""

    levels: Size = Field(default=3, description="of z, each with about twice the numbers of the one above")
    hidden: Size = Field(default=256, description="units of the networks between the levels")
    warm_up: NonNegative = Field(
        default=5000, description="updates in which the weight of KL rises from 0, so that no level dies (0: none)"
    )


class TwoStageConfig(KlConfig):
    """V, the paper's, and a second one on its codes: pictures drawn from it alone look more like frames."""

    likelihood: Likelihood = Field(
        default="calibrated", description="what the error is, as of any other; here calibrated, or codes stay blurred"
    )
    hidden: Size = Field(default=512, description="units of each of the second one's two hidden layers")


class RaeConfig(OurVaeConfig):
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


class ConditionalConfig(KlConfig):
    """V, whose decoder is told the action before the frame, so that z need not hold it."""

    condition: Size = Field(default=18, description="how many numbers an action may be")
    unconditioned: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="part of the training frames that are drawn without it, as all later stages do"
    )


VARIANTS: dict[str, type[VaeConfig]] = {
    "vanilla": VanillaConfig,
    "beta_tc": BetaTcConfig,
    "factor": FactorConfig,
    "dip": DipConfig,
    "info": InfoConfig,
    "wae": WaeConfig,
    "swae": SwaeConfig,
    "iwae": IwaeConfig,
    "miwae": MiwaeConfig,
    "piwae": PiwaeConfig,
    "ciwae": CiwaeConfig,
    "vamp": VampConfig,
    "iaf": IafConfig,
    "gamma": GammaConfig,
    "vq": VqConfig,
    "fsq": FsqConfig,
    "categorical": CategoricalConfig,
    "joint": JointConfig,
    "dreamer": DreamerConfig,
    "logcosh": LogCoshConfig,
    "ms_ssim": MsSsimConfig,
    "dfc": DfcConfig,
    "aae": AaeConfig,
    "vae_gan": VaeGanConfig,
    "hierarchical": HierarchicalConfig,
    "ladder": LadderConfig,
    "two_stage": TwoStageConfig,
    "rae": RaeConfig,
    "conditional": ConditionalConfig,
}
"""The value of `vae.variant` -> the type of the settings."""
