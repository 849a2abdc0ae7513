"""The settings of auto-encoders whose z consists of codes or of classes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wm_jax.config.base import Fraction, Positive, Size
from wm_jax.config.vaes.common import BuiltInVaeConfig, KlConfig, Weight, for_places, number_given, with_sizes

PARTS, CODE_SIZE = 32, 8
"""Codes or groups of classes of a frame, and numbers of a code, unless the settings say otherwise."""


class VqConfig(BuiltInVaeConfig):
    """V, a VQ-VAE: z consists of vectors from a codebook, each the nearest to a part of the encoder's output."""

    latent: Size = Field(default=PARTS * CODE_SIZE, description="size of z, which its vectors share evenly")
    codes_per_frame: Size = Field(
        default=PARTS, description="vectors that z consists of (and with the networks local one for each of 36 places)"
    )
    codes: Size = Field(default=512, description="vectors in the codebook")
    codebook: Literal["learned", "averages"] = Field(
        default="learned",
        description="how the codebook is updated: learned: by gradient; averages: by moving averages of the vectors "
        "assigned to each code",
    )
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="decay per update of the moving averages, which also count how often codes are chosen"
    )
    commitment_weight: Weight = Field(
        default=0.25,
        description="weight of the squared distance of the encoder's output from the chosen vectors, summed over z "
        "(the paper averages over a frame's codes)",
    )
    restarts: bool = Field(
        default=True,
        description="replace codes that are almost never chosen by random encoder outputs of the batch",
    )

    @model_validator(mode="before")
    @classmethod
    def _fit_networks(cls, settings: Any) -> Any:
        """Where the size of z or the number of codes is not given, it follows from the other and the places."""
        if "codes_per_frame" in settings:
            codes = number_given(cls, settings, "codes_per_frame")
            return settings if "latent" in settings else with_sizes(settings, latent=codes * CODE_SIZE)
        codes = for_places(PARTS, CODE_SIZE, settings)
        if "latent" not in settings:
            return with_sizes(settings, codes_per_frame=codes, latent=codes * CODE_SIZE)
        fits = number_given(cls, settings, "latent") % codes == 0
        return with_sizes(settings, codes_per_frame=codes) if fits else settings


class FsqConfig(BuiltInVaeConfig):
    """V, with finite scalar quantisation: each number of z is rounded to one of a few levels."""

    levels: Annotated[tuple[Annotated[int, Field(ge=2, le=65_536)], ...], Field(min_length=1)] = Field(
        default=(8, 5, 5, 5), description="levels of each number of a code; z consists of such codes"
    )


class ClassesConfig(KlConfig):
    """The settings of auto-encoders whose z has groups of classes."""

    @model_validator(mode="before")
    @classmethod
    def _fit_networks(cls, settings: Any) -> Any:
        """Where the size of z is not given, it follows from the classes and the places of the networks."""
        if "latent" in settings:
            return settings
        return with_sizes(settings, **cls._sizes(settings, number_given(cls, settings, "classes")))

    @classmethod
    def _sizes(cls, settings: Mapping[str, Any], classes: int) -> dict[str, int]:
        """The size of z, and whatever else it is made of that is not given either."""
        raise NotImplementedError


class CategoricalConfig(ClassesConfig):
    """V, a categorical VAE: z consists of groups of classes, relaxed by Gumbel-softmax in training."""

    latent: Size = Field(
        default=512, description="size of z: groups * classes (default: 32 groups; with the networks local 36)"
    )
    free_nats: Weight = Field(default=0.0, description="no KL penalty below this many nats per group")
    classes: Size = Field(default=16, description="classes of each group")
    temperature: Positive = Field(default=1.0, description="temperature of the relaxed classes in the first update")
    final_temperature: Positive = Field(default=0.5, description="lowest temperature")
    anneal_rate: Weight = Field(default=1e-4, description="rate of its exponential decay per update")
    straight_through: bool = Field(
        default=False, description="decode one-hot classes in training too, with the gradient of the relaxed ones"
    )

    @classmethod
    def _sizes(cls, settings: Mapping[str, Any], classes: int) -> dict[str, int]:
        return {"latent": for_places(PARTS, classes, settings) * classes}


class JointConfig(ClassesConfig):
    """V, a JointVAE: z has a Gaussian part and a few groups of classes, each part with a target KL of its own."""

    latent: Size = Field(
        default=42,
        description="size of z: of its Gaussian part and groups * classes (default: 32 numbers and the classes; with "
        "the networks local 36 and these)",
    )
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

    @classmethod
    def _sizes(cls, settings: Mapping[str, Any], classes: int) -> dict[str, int]:
        return {"latent": for_places(PARTS, 1, settings) + number_given(cls, settings, "groups") * classes}


class DreamerConfig(ClassesConfig):
    """V, with DreamerV3's latents: groups of classes, with straight-through gradients and 1 % uniform mixing."""

    latent: Size = Field(default=1024, description="size of z: groups * classes (default: just these)")
    beta: Weight = Field(default=0.1, description="weight of the KL (summed) beside the summed error")
    free_nats: Weight = Field(default=1.0, description="no KL penalty below this many nats per frame")
    groups: Size = Field(
        default=PARTS, description="groups of classes that z consists of (and with the networks local 36)"
    )
    classes: Size = Field(default=32, description="classes of each group")
    unimix: Fraction = Field(default=0.01, description="share of the uniform distribution mixed into the posterior")

    @classmethod
    def _sizes(cls, settings: Mapping[str, Any], classes: int) -> dict[str, int]:
        if "groups" in settings:
            return {"latent": number_given(cls, settings, "groups") * classes}
        groups = for_places(PARTS, classes, settings)
        return {"groups": groups, "latent": groups * classes}
