"""What the settings of auto-encoders share; each type has the settings that its auto-encoder uses and no others.

The first line of a type's docstring is what `--help` says of it.
"""

from collections.abc import Mapping
from math import lcm
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from wm_jax.config.base import (
    LARGEST,
    MUTABLE,
    Arguments,
    Count,
    NonNegative,
    Positive,
    Size,
    SizeOrZero,
    TrainingConfig,
    built_in_or_custom,
)

Weight = Annotated[float, Field(ge=0)]
Network = Literal["paper", "local", "residual", "grid"]
GRID_SIDES = {"local": 6, "grid": 4}
"""The networks in which each place of a square grid has a part of z, and the sides of these grids."""
Likelihood = Literal["gaussian", "laplace", "logcosh", "cross_entropy", "calibrated"]
VARIANTS: dict[str, type["VaeConfig"]] = {}
"""The value of `vae.variant` -> the type of its settings. Filled by the package's `__init__.py`, which imports all."""


class VaeConfig(TrainingConfig):
    """The settings of every auto-encoder, custom ones included."""

    variant: built_in_or_custom(lambda: VARIANTS) = Field(  # pyright: ignore[reportInvalidTypeForm]
        default="vanilla", description="which auto-encoder; one of your own: MODULE:CLASS (docs/architecture.md)"
    )
    latent: Size = Field(default=32, description="size of z")
    width: Annotated[float, Field(gt=0, le=64)] = Field(
        default=1.0, description="multiplies every channel count of the paper's network"
    )
    moving_weight: Weight = Field(
        default=0.0,
        description="extra weight of pixels that move, so that small objects are not lost: to miss such a pixel costs "
        "about this in squared error, however little it stands out; useful are 0.1 to 2 (0: none)",
    )
    rare_weight: Weight = Field(
        default=0.0,
        description="extra weight of pixels whose colour is among the rarest, which cover 2 % of the game's pixels; "
        "it is added to the usual weight of 1; useful are 1 to 30 (0: none)",
    )
    noise_patches: bool | Literal["common"] = Field(
        default=False,
        description="replace 5-pixel squares of the encoder's input by noise: true: on a fixed 6x6 grid; common: "
        "wherever all frames are alike",
    )
    flips: Literal["none", "left_right", "up_down", "both"] = Field(
        default="none",
        description="mirror half of the training frames, for games that look no different in a mirror: V then learns "
        "more from few levels",
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
        description="repeat training frames with many pixels that move, or of a rare colour",
    )
    bfloat16: bool = Field(default=True, description="convolutions multiply in bfloat16 where the device can")
    fast_kernels: Annotated[bool, MUTABLE] = Field(
        default=True, description="on CPU, our convolutions in C instead of XLA's"
    )


class CustomVaeConfig(VaeConfig):
    """V, an auto-encoder of your own."""

    options: Arguments = Field(default={}, description="arguments of the class, NAME=VALUE")


class BuiltInVaeConfig(VaeConfig):
    """The settings of every built-in auto-encoder."""

    encoder: Network = Field(
        default="paper",
        description="paper: four convolutions; local: three, with a part of z for each place of a 6x6 grid; residual: "
        "deeper, with normalisation; grid: residual, with a part of z for each place of a 4x4 grid",
    )
    decoder: Network = Field(default="paper", description="the same networks in reverse")
    global_latent: SizeOrZero = Field(
        default=0,
        description="numbers behind the others of z that belong to the whole frame, such as a background's colour, "
        "where the others belong to places; without effect unless a network is local or grid",
    )
    likelihood: Likelihood = Field(
        default="gaussian",
        description="reconstruction error: gaussian: squared; laplace: absolute; logcosh: smooth mix of both; "
        "cross_entropy: colours as probabilities; calibrated: gaussian with the variance that fits each batch best",
    )
    sharpness: Positive = Field(
        default=10.0, description="of logcosh: errors above about 1 / this are absolute, smaller ones squared"
    )

    @property
    def places(self) -> int:
        """What the networks take of z, but for `global_latent`, must be a multiple of this."""
        return _places({"encoder": self.encoder, "decoder": self.decoder})


class BetaConfig(BuiltInVaeConfig):
    """The settings of auto-encoders with a KL."""

    beta: Weight = Field(default=1.0, description="weight of the KL (summed) beside the summed error")
    warm_up: NonNegative = Field(
        default=0,
        description="updates in which the weights of the KL and of all other terms on z rise from 0 (0: none)",
    )


class KlConfig(BetaConfig):
    """The settings of auto-encoders whose loss has the KL as a term of its own."""

    free_nats: Weight = Field(default=0.5, description="no KL penalty below this many nats per latent dimension")
    capacity: Weight | None = Field(
        default=None, description="target KL in nats: the term becomes beta * |KL - capacity| (default: no target)"
    )
    capacity_steps: NonNegative = Field(default=10_000, description="updates in which the capacity rises from 0")


class SampledKlConfig(KlConfig):
    """The settings of auto-encoders whose KL is estimated from one sample of z for each frame.

    A floor under such an estimate makes it too large on average, so there is none by default.
    """

    free_nats: Weight = Field(
        default=0.0, description="no KL penalty below this many nats per latent dimension; biased, as KL is estimated"
    )


def for_places(least: int, size: int, settings: Mapping[str, Any]) -> int:
    """The least number of parts of z that the networks can share out: at least `least` by place, and the frame's own.

    Args:
      size: numbers of each part.
      settings: of an auto-encoder, as they are given: of any types, and without defaults.
    """
    places = _places(settings)
    whole = number_given(BuiltInVaeConfig, settings, "global_latent") if places > 1 else 0
    return -(-least // places) * places + -(-whole // size)


def _places(settings: Mapping[str, Any]) -> int:
    return lcm(*(GRID_SIDES.get(str(settings.get(network)), 1) ** 2 for network in ("encoder", "decoder")))


def number_given(section: type[BuiltInVaeConfig], settings: Mapping[str, Any], name: str) -> int:
    """A setting that is a whole number, as it is given or by default.

    The default stands for a value that is none, or out of all bounds: the check of that setting refuses it.
    """
    default = section.model_fields[name].default
    try:
        value = TypeAdapter(int).validate_python(settings.get(name, default))
    except ValidationError:
        return default
    return value if 0 < value <= LARGEST else default


def with_sizes(settings: Mapping[str, Any], **sizes: int) -> Mapping[str, Any]:
    """The settings with sizes that follow from others, unless these make them too large: then as they are given."""
    return {**settings, **sizes} if max(sizes.values()) <= LARGEST else settings
