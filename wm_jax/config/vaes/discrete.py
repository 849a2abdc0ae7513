"""The settings of auto-encoders whose z consists of codes or classes."""

from typing import Annotated, Literal

from pydantic import Field

from wm_jax.config.base import Fraction, Positive, Size
from wm_jax.config.vaes.common import BuiltInVaeConfig, KlConfig, Weight


class VqConfig(BuiltInVaeConfig):
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


class FsqConfig(BuiltInVaeConfig):
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
    """V, a JointVAE: z has a Gaussian part and a few groups of classes, each part with a target KL of its own."""

    beta: Weight = Field(
        default=100.0,
        description="weight of each KL's distance from its capacity (gamma); with --vae.capacity none it weighs the "
        "KLs themselves: give about 1 then",
    )
    capacity: Weight | None = Field(
        default=50.0, description="target KL in nats of the Gaussian part (none: no targets, for both parts)"
    )
    class_capacity: Weight = Field(
        default=10.0, description="target KL in nats of the classes, at most groups * log(classes)"
    )
    free_nats: Weight = Field(
        default=0.0,
        description="without targets: no KL penalty below this many nats per number of the Gaussian part and per group",
    )
    groups: Size = Field(default=1, description="groups of classes, at the end of z")
    classes: Size = Field(default=10, description="classes of each group")
    temperature: Positive = Field(default=0.67, description="temperature of the relaxed classes in training")


class DreamerConfig(KlConfig):
    """V, with DreamerV3's latents: choices between classes, straight-through, none of them ever quite sure."""

    latent: Size = Field(default=1024, description="size of z: groups * classes")
    beta: Weight = Field(default=0.1, description="weight of KL (summed) beside the summed error")
    free_nats: Weight = Field(default=1.0, description="KL floor of a frame: max(KL, this)")
    groups: Size = Field(default=32, description="choices that z consists of")
    classes: Size = Field(default=32, description="classes of each choice")
    unimix: Fraction = Field(default=0.01, description="part of the uniform distribution in what the encoder says")
