"""What the settings of auto-encoders share; each type has the settings that its auto-encoder uses and no others.

The first line of a type's docstring is what `--help` says of it.
"""

from typing import Annotated, Literal

from pydantic import Field

from wm_jax.config.base import (
    MUTABLE,
    Arguments,
    Count,
    NonNegative,
    Positive,
    Size,
    TrainingConfig,
    built_in_or_custom,
)

Weight = Annotated[float, Field(ge=0)]
Likelihood = Literal["gaussian", "laplace", "logcosh", "cross_entropy", "calibrated"]
VARIANTS: dict[str, type["VaeConfig"]] = {}
"""The value of `vae.variant` -> the type of its settings. Filled by the package's `__init__.py`, which imports all."""


class VaeConfig(TrainingConfig):
    """What every auto-encoder has, one of your own too."""

    variant: built_in_or_custom(lambda: VARIANTS) = Field(  # pyright: ignore[reportInvalidTypeForm]
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


class CustomVaeConfig(VaeConfig):
    """V, an auto-encoder of your own."""

    options: Arguments = Field(default={}, description="arguments of the class, NAME=VALUE")


class BuiltInVaeConfig(VaeConfig):
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


class BetaConfig(BuiltInVaeConfig):
    """What those with a KL have in common."""

    beta: Weight = Field(default=1.0, description="weight of KL (summed) beside the summed error")
    warm_up: NonNegative = Field(
        default=0,
        description="updates in which the weights of the KL and of all other terms on z rise from 0 (0: none)",
    )


class KlConfig(BetaConfig):
    """What those have in common whose KL is a term of its own."""

    free_nats: Weight = Field(default=0.5, description="KL floor per latent dimension: max(KL, this * z)")
    capacity: Weight | None = Field(
        default=None, description="aim at this KL in nats instead: beta * |KL - capacity| (default: at none)"
    )
    capacity_steps: NonNegative = Field(default=10_000, description="updates in which the capacity rises from 0")


class SampledKlConfig(KlConfig):
    """What those share whose KL is estimated from one sample of z for each frame.

    A floor under such an estimate makes it too large on average, so there is none by default.
    """

    free_nats: Weight = Field(
        default=0.0, description="no KL penalty below this many nats per latent dimension; biased, as KL is estimated"
    )
