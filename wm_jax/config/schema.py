"""Typed settings of every stage, layered: the defaults here < configs/<family>.yaml < configs/<game>.yaml <
configs/presets/<preset>.yaml < the game's own `presets:` block < the command line.

Every unknown key is an error that names its nearest match. Settings are frozen: a stage can't change them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeGuard, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

# Upper bounds are far above what anyone trains; beyond them is a slip of the finger that would fill the memory.
Count = Annotated[int, Field(gt=0, le=10**9)]
Size = Annotated[int, Field(gt=0, le=65_536)]
EpisodeCount = Annotated[int, Field(gt=0, le=10**6)]
Threads = Annotated[int, Field(ge=0, le=1024)]
NonNegative = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(coerce_numbers_to_str=True)]
MUTABLE = "free"
"""Marks the settings that may change while what they made is gone on with: how far, how fast, by what program."""
# evosax's, but for those that need several populations at once (SV_CMA_ES, SV_Open_ES), have no starting point
# (RandomSearch), or want the number of generations beforehand (DiffusionEvolution).
# fmt: off
Strategy = Literal[
    "ARS", "ASEBO", "CMAAnchoredLES", "CMA_ES", "CR_FM_NES", "DES", "DifferentialEvolution", "ESMC", "EvoTF_ES",
    "GESMR_GA", "GradientlessDescent", "GuidedES", "HillClimbing", "LES", "LGA", "LM_MA_ES", "MA_ES", "MR15_GA",
    "NoiseReuseES", "Open_ES", "PGPE", "PSO", "PersistentES", "Rm_ES", "SAMR_GA", "SNES", "Sep_CMA_ES", "SimpleES",
    "SimpleGA", "SimulatedAnnealing", "iAMaLGaM_Full", "iAMaLGaM_Univariate", "xNES",
]
# fmt: on


@dataclass(frozen=True)
class Known:
    """Marks a setting that names one of ours, or a class of the user's own as MODULE:CLASS."""

    names: tuple[str, ...]

    def check(self, value: str) -> str:
        """The name, if it can be one."""
        if value in self.names or re.fullmatch(r"[\w.]+:\w+", value):
            return value
        ours = " or ".join(self.names)
        raise ValueError(f"input should be {ours}, or MODULE:CLASS of your own")


def _known(*names: str) -> Any:
    known = Known(names)
    return Annotated[str, AfterValidator(known.check), known]


def _arguments(value: Any) -> Any:
    """Nothing is a mapping too; words that are none have not got through `arguments_of`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("give NAME=VALUE, or in YAML a mapping")
    return value


class Section(BaseModel):
    """A frozen group of settings; unknown keys raise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's `yes` is no number."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("true and false (or yes, no, on, off) are no value for this")
        return value

    def __hash__(self) -> int:
        """Of equal settings it is equal; mappings among them have none of their own."""
        return hash(self.model_dump_json())

    def fixed(self) -> dict[str, Any]:
        """The settings that must stay the same while what they made is gone on with."""
        free = {name for name, field in type(self).model_fields.items() if MUTABLE in field.metadata}
        return self.model_dump(mode="json", exclude=free)


class EnvConfig(Section):
    """The game: how it is opened and what of it is seen."""

    backend: Literal["device", "envpool", "gymnasium"] = Field(
        default="envpool",
        description="where the game of training runs; device: in JAX, for CarRacing and jax:MODULE:CLASS",
    )
    crop: tuple[int, int, int, int] | None = Field(
        default=None,
        description="top, bottom, left, right: the rows and columns kept of the screen (default: the game's own)",
    )
    actions: tuple[Word, ...] | None = Field(
        default=None,
        description="names of the discrete actions to keep, or all (default: the game's own choice); Gymnasium's are "
        "numbers: --env.actions=-1,0",
    )
    kwargs: Annotated[dict[str, JsonValue], BeforeValidator(_arguments)] = Field(
        default={},
        description="gymnasium:ID and jax:MODULE:CLASS: arguments of the environment, NAME=VALUE with values as in "
        "YAML, as in continuous=false lap_complete_percent=0.9",
    )
    observation: str | None = Field(
        default=None,
        description="Gymnasium by ID: which entry of Dict observations is the picture (default: the only image)",
    )
    pixels: Literal["observation", "render"] = Field(
        default="observation",
        description="Gymnasium by ID: what is seen; render: what the environment draws, for those whose observations "
        "are no images",
    )
    episode_steps: Count | None = Field(
        default=None, description="longest episode, in agent steps, if the game's own is not shorter (default: that)"
    )
    difficulty: Literal["easy", "hard"] = Field(default="easy", description="Procgen: difficulty")
    levels: NonNegative = Field(
        default=200, description="Procgen: number of training levels (0: all that lie before the test levels)"
    )
    first_level: NonNegative = Field(default=0, description="Procgen: first training level")
    test_first_level: NonNegative = Field(
        default=1_000_000, description="Procgen: first level of the unseen test range, which is unlimited upwards"
    )
    sticky: Fraction = Field(default=0.25, description="Atari: probability that the previous action is repeated")
    frame_skip: Count = Field(default=4, description="Atari: emulator frames for one agent step")
    threads: Annotated[Threads, MUTABLE] = Field(
        default=0, description="threads of the environment pool (0: one per core); the device needs none"
    )
    timeout: Annotated[float, Field(ge=0), MUTABLE] = Field(
        default=300.0,
        description="seconds that a Gymnasium environment may take in a worker process to open, to reset or for a step "
        "(0: any time)",
    )


class CollectConfig(Section):
    """Replays: episodes of an exploring policy."""

    episodes: Annotated[EpisodeCount, MUTABLE] = Field(
        default=10_000, description="at least so many episodes in the store, train and test together"
    )
    frames: Annotated[NonNegative, MUTABLE] = Field(
        default=0, description="and at least so many recorded frames: where episodes are short, more are played"
    )
    policy: Annotated[Literal["held", "brownian", "uniform", "agent"], MUTABLE] = Field(
        default="held",
        description="held: random action kept for a random while; brownian: wandering, for discrete actions as held; "
        "agent: the run's trained agent, which gets to what random play hardly sees (CarRacing's later bends, Enduro's "
        "second day, later rooms)",
    )
    hold: Annotated[Positive, MUTABLE] = Field(default=8.0, description="mean steps for which `held` keeps an action")
    episode_steps: Count | None = Field(
        default=4000,
        description="most recorded steps of an episode: it is played to its end, and of a longer one windows are kept "
        "that lie all over it, the end among them (none: all of it)",
    )
    window: Count = Field(default=1000, description="steps of such a window")
    test_fraction: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.05, description="share of the episodes kept for testing; the first one always is"
    )
    slots: Annotated[Size, MUTABLE] = Field(default=64, description="episodes played side by side; they make one shard")
    anywhere: Annotated[bool | None, MUTABLE] = Field(
        default=None,
        description="begin episodes anywhere instead of at the beginning: on CarRacing's track, at any time of a game "
        "of Atari in which nobody acts (default: games on the device do that can, for random play hardly gets far)",
    )
    replace_lost: Annotated[bool, MUTABLE] = Field(
        default=False,
        description="let the policy play others in place of lost episodes whose agent is no longer there",
    )


class DataConfig(Section):
    """How frames reach the device."""

    device_budget_gb: Positive = Field(
        default=4.0,
        description="frames (uint8) and latents live on the device when they fit this budget, else are streamed ahead",
    )


class VaeConfig(Section):
    """V, the variational auto-encoder."""

    variant: _known("vanilla") = Field(  # pyright: ignore[reportInvalidTypeForm]
        default="vanilla", description="which auto-encoder; one of your own: MODULE:CLASS (docs/architecture.md)"
    )
    options: Annotated[dict[str, JsonValue], BeforeValidator(_arguments)] = Field(
        default={}, description="arguments of an auto-encoder of your own, NAME=VALUE"
    )
    latent: Size = Field(default=32, description="size of z")
    width: Annotated[float, Field(gt=0, le=64)] = Field(
        default=1.0, description="multiplies every channel count of the paper's network"
    )
    beta: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="weight of KL (summed) beside the summed squared error"
    )
    free_nats: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="KL floor per latent dimension: max(KL, this * z)"
    )
    noise_patches: bool = Field(
        default=False, description="replace a 6x6 grid of 5-pixel squares by noise in the input"
    )
    moving_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="what it costs to lose a pixel that moves, however little it stands out, beside 1 for an error as "
        "large as can be, so that small things are not left out; 0.1 to 2 (0: as any other pixel)",
    )
    batch: Size = Field(default=100, description="frames per update")
    frames: Literal["replays", "fresh"] = Field(
        default="replays",
        description="what to train on; fresh: new episodes all the time, where the game is on the device",
    )
    steps: Annotated[Count, MUTABLE] = Field(
        default=1_000_000, description="updates (the paper's ten epochs over 10,000 episodes)"
    )
    learning_rate: Positive = Field(default=1e-4, description="Adam's step size")
    final_learning_rate: Positive | None = Field(default=None, description="cosine decay to this (default: constant)")
    steps_per_dispatch: Annotated[Count, MUTABLE] = Field(default=20, description="updates fused into one device call")
    save_every: Annotated[Count, MUTABLE] = Field(default=1000, description="updates between checkpoints")
    report_every: Annotated[Count, MUTABLE] = Field(
        default=1000, description="updates between held-out evaluations and reconstruction sheets"
    )
    bfloat16: bool = Field(default=True, description="on accelerators, convolutions compute in bfloat16")
    fast_kernels: Annotated[bool, MUTABLE] = Field(
        default=True, description="on CPU, our convolutions in C instead of XLA's"
    )


class EncodeConfig(Section):
    """The latents of every frame."""

    batch: Size = Field(default=256, description="frames per device call")


class MemoryConfig(Section):
    """M, the mixture-density recurrent network."""

    cell: _known("lstm", "gru") = Field(  # pyright: ignore[reportInvalidTypeForm]
        default="lstm", description="recurrent cell; one of your own: MODULE:CLASS (docs/architecture.md)"
    )
    options: Annotated[dict[str, JsonValue], BeforeValidator(_arguments)] = Field(
        default={}, description="arguments of a cell of your own, NAME=VALUE"
    )
    hidden: Size = Field(default=256, description="size of h")
    mixtures: Size = Field(default=5, description="Gaussians per latent dimension")
    reward_head: bool = Field(default=False, description="also predict the reward")
    done_head: bool = Field(default=False, description="also predict the end of the episode")
    done_weight: Positive = Field(default=10.0, description="weight of an ending step in the done loss")
    sequence: Size = Field(default=1000, description="steps per training sequence")
    carry_state: bool = Field(
        default=False, description="carry the state over consecutive windows instead of starting from zero"
    )
    batch: Size = Field(default=100, description="sequences per update")
    steps: Annotated[Count, MUTABLE] = Field(default=4000, description="updates")
    learning_rate: Positive = Field(default=1e-3, description="Adam's step size")
    final_learning_rate: Positive | None = Field(default=None, description="cosine decay to this (default: constant)")
    clip: Positive = Field(default=1.0, description="gradients are clipped to this absolute value")
    steps_per_dispatch: Annotated[Count, MUTABLE] = Field(default=5, description="updates fused into one device call")
    save_every: Annotated[Count, MUTABLE] = Field(default=200, description="updates between checkpoints")
    report_every: Annotated[Count, MUTABLE] = Field(default=200, description="updates between held-out evaluations")
    fast_kernels: Annotated[bool, MUTABLE] = Field(
        default=True,
        description="our LSTM instead of a plain scan: on CPU in C, elsewhere with a hand-derived gradient",
    )


class ControllerConfig(Section):
    """C, the controller, and its evolution."""

    inputs: Literal["z", "zh", "zhc"] = Field(
        default="zh", description="z alone, z and M's output h, or also M's cell c"
    )
    hidden: Annotated[int, Field(ge=0, le=65_536)] = Field(
        default=0, description="size of one hidden tanh layer (0: linear)"
    )
    world: Literal["trained", "random"] = Field(
        default="trained", description="random: untrained V and M, for the ablation"
    )
    memory_reset: NonNegative = Field(default=0, description="reset M's state every so many steps in play (0: never)")
    sample_latent: bool = Field(default=False, description="act on a sampled z instead of its mean")
    gas: Literal["sigmoid", "tanh"] = Field(
        default="sigmoid", description="CarRacing's gas: sigmoid(x), or tanh: (tanh x + 1) / 2"
    )
    strategy: Strategy = Field(default="CMA_ES", description="how to search")
    population: Annotated[int, Field(ge=2, le=65_536)] = Field(default=64, description="candidates per generation")
    episodes: Size = Field(default=16, description="episodes per candidate")
    seeds: Literal["shared", "paired", "own"] = Field(
        default="shared",
        description="who plays the same episodes: all candidates; pairs of them (i and i + population / 2); nobody",
    )
    sigma: Positive = Field(default=0.1, description="initial standard deviation of the search")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="this times its mean squared weight is taken off a candidate's score"
    )
    rounding: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="weights play, and are kept, as multiples of this (0: as they are)"
    )
    generations: Annotated[Count, MUTABLE] = Field(default=1800, description="generations")
    episode_steps: Count | None = Field(
        default=None, description="longest episode in training, unless the game's is shorter"
    )
    short_generations: NonNegative = Field(
        default=0, description="so many generations at the beginning play short episodes, while crashes come early"
    )
    short_steps: Count = Field(default=600, description="longest of the short episodes")
    anywhere: bool = Field(
        default=False,
        description="training episodes begin anywhere (see collect.anywhere), such as at any time of Enduro's day, so "
        "that short ones see all of it",
    )
    patience: NonNegative = Field(
        default=0, description="end a training episode after this many steps without reward (0: never)"
    )
    slots: Annotated[Size, MUTABLE] = Field(
        default=1024, description="most environments stepped side by side (on the device, rounded up to 16, 32, ...)"
    )
    evaluate_every: Annotated[Count, MUTABLE] = Field(
        default=25, description="generations between evaluations of the distribution's mean"
    )
    evaluate_episodes: Size = Field(default=32, description="episodes of that evaluation, always the same ones")
    confirm_episodes: Size | None = Field(
        default=None,
        description="other episodes, on which the kept mean is scored once, at the end (default: evaluate_episodes)",
    )
    save_every: Annotated[Count, MUTABLE] = Field(default=1, description="generations between checkpoints")


class EvaluateConfig(Section):
    """The score of the agent."""

    episodes: EpisodeCount = Field(default=100, description="episodes, with the published seeds")
    on: Literal["official", "training", "both"] = Field(
        default="official", description="the official game, or the one that the agent was trained on"
    )
    episode_steps: Count | None = Field(
        default=None, description="longest episode, unless the game's is shorter: then it is no published score"
    )
    workers: Threads = Field(default=0, description="environment processes or threads (0: as env.threads says)")
    baseline: bool = Field(default=True, description="also score the random policy on the same seeds")
    looked_at: Annotated[int, Field(ge=0, le=64)] = Field(
        default=4, description="games of the agent along which V's error and M's surprise are measured (0: none)"
    )
    video: bool = Field(default=False, description="write an MP4 of one game with its reconstruction beside it")


class HostsConfig(Section):
    """Several processes, one per host, that work on one run together (docs/scaling.md)."""

    coordinator: str | None = Field(
        default=None, description="HOST:PORT where process 0 listens; auto: as Slurm, Open MPI or the TPU slice says"
    )
    count: Annotated[int, Field(ge=1, le=65_536)] | None = Field(default=None, description="how many processes")
    index: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        default=None, description="which of them this is, from 0"
    )


class Config(Section):
    """Everything that decides what a run does."""

    game: str = Field(
        description="carracing, enduro or another Atari game, a Procgen game, gymnasium:ID or jax:MODULE:CLASS"
    )
    preset: str = Field(
        default="quick",
        description="smoke (a check), quick (worth watching), gpu (an hour on an accelerator), paper (its experiment)",
    )
    seed: NonNegative = Field(default=0, description="the one seed that every random stream is derived from")
    devices: NonNegative = Field(
        default=0, description="accelerators that share the batches of V and M (0: all that divide them evenly)"
    )
    hosts: HostsConfig = HostsConfig()
    env: EnvConfig = EnvConfig()
    collect: CollectConfig = CollectConfig()
    data: DataConfig = DataConfig()
    vae: VaeConfig = VaeConfig()
    encode: EncodeConfig = EncodeConfig()
    memory: MemoryConfig = MemoryConfig()
    controller: ControllerConfig = ControllerConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def default_of(key: str) -> Any:
    """The default of a setting by its option's name, such as `vae.beta`; None for what is no setting."""
    section, _, name = key.partition(".")
    field = Config.model_fields.get(section)
    if field is None or not is_section(field.annotation):
        return None
    found = field.annotation.model_fields.get(name)
    return None if found is None else found.default


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    """Is this the type of a group of settings?"""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The values of an enumerated setting (ours, where it may also be one of the user's own); of any other, none."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    return next((mark.names for mark in field.metadata if isinstance(mark, Known)), ())


def takes_several(annotation: Any) -> bool:
    """Is a setting of this type a row of values, or of NAME=VALUE?"""
    return any(get_origin(part) in (tuple, dict) for part in (annotation, *get_args(annotation)))


def field_names() -> tuple[str, ...]:
    """Every setting as `section.key`."""
    names = []
    for name, field in Config.model_fields.items():
        if is_section(field.annotation):
            names += [f"{name}.{key}" for key in field.annotation.model_fields]
        else:
            names.append(name)
    return tuple(names)
