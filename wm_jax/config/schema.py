"""The settings of every stage: types, defaults and descriptions. `layers.py` says where their values come from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from wm_jax.config.base import (
    MUTABLE,
    START_FROM,
    Arguments,
    Choice,
    Count,
    EpisodeCount,
    Fraction,
    NonNegative,
    Positive,
    Section,
    Size,
    SizeOrZero,
    Threads,
    TrainingConfig,
    Word,
    alternatives,
    built_in_or_custom,
    section_types,
)
from wm_jax.config.vaes import VARIANTS, CustomVaeConfig, VaeConfig, VanillaConfig

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
    kwargs: Arguments = Field(
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
    skill: Annotated[int, Field(ge=1, le=5)] = Field(
        default=4, description="DoomTakeCover: how hard it is; 4 is the game of the paper"
    )
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
    noise: Annotated[float, Field(ge=0), MUTABLE] = Field(
        default=0.0,
        description="agent: each episode is played by another C, whose weights have normal noise of up to this "
        "deviation (compare controller.sigma): more is seen than where one C gets",
    )
    dream_share: Annotated[float, Field(ge=0, le=1), MUTABLE] = Field(
        default=0.5,
        description="agent that was evolved in the dream: share of the episodes that are played by what the dream "
        "alone would have kept; what it promises and the game does not keep is what M has to learn",
    )
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
    random_start: Annotated[bool | None, MUTABLE] = Field(
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


class EncodeConfig(Section):
    """The latents of every frame."""

    batch: Size = Field(default=256, description="frames per device call")


class MemoryConfig(TrainingConfig):
    """M, the mixture-density recurrent network."""

    cell: built_in_or_custom(lambda: CELLS) = Field(  # pyright: ignore[reportInvalidTypeForm]
        default="lstm", description="recurrent cell; one of your own: MODULE:CLASS (docs/architecture.md)"
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
    steps: Annotated[Count, MUTABLE] = Field(default=4000, description="updates")
    learning_rate: Positive = Field(default=1e-3, description="Adam's step size")
    clip: Positive = Field(default=1.0, description="gradients are clipped to this absolute value")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="share of M's outputs that predictions do without: others for each training window, and in dreams "
        "for each dream, which makes these harder to cheat",
    )
    steps_per_dispatch: Annotated[Count, MUTABLE] = Field(default=5, description="updates fused into one device call")
    save_every: Annotated[Count, MUTABLE] = Field(default=200, description="updates between checkpoints")
    report_every: Annotated[Count, MUTABLE] = Field(default=200, description="updates between held-out evaluations")
    fast_kernels: Annotated[bool, MUTABLE] = Field(
        default=True,
        description="our LSTM instead of a plain scan (on CPU in C, elsewhere with a hand-derived gradient), and on "
        "CPU our mixture densities in C",
    )


class CustomMemoryConfig(MemoryConfig):
    """M, the mixture-density recurrent network, with a cell of your own."""

    options: Arguments = Field(default={}, description="arguments of the cell's class, NAME=VALUE")


CELLS: dict[str, type[MemoryConfig]] = {"lstm": MemoryConfig, "gru": MemoryConfig}
"""The value of `memory.cell` -> the type of the settings."""


class ControllerConfig(Section):
    """C, the controller, and its evolution."""

    inputs: Literal["z", "zh", "zhc"] = Field(
        default="zh", description="z alone, z and M's output h, or also M's cell c"
    )
    hidden: SizeOrZero = Field(default=0, description="size of one hidden tanh layer (0: linear)")
    world: Literal["trained", "random"] = Field(
        default="trained", description="random: untrained V and M, for the ablation"
    )
    arena: Literal["game", "dream"] = Field(
        default="game", description="where candidates play: the game, or the game as M dreams it"
    )
    memory_reset: NonNegative = Field(default=0, description="reset M's state every so many steps in play (0: never)")
    sample_latent: bool = Field(default=False, description="act on a sampled z instead of its mean")
    sample_action: bool = Field(
        default=False,
        description="draw one of the game's actions, each as likely as the softmax of C's outputs says, instead of "
        "taking the one with the largest output: C then starts as random play, and does not get stuck",
    )
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
    random_start: bool = Field(
        default=False,
        description="training episodes begin anywhere (see collect.random_start), such as at any time of Enduro's "
        "day, so that short ones see all of it",
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
    start_from: Annotated[str | None, MUTABLE] = Field(default=None, description=START_FROM)


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
    dream_choice: bool = Field(
        default=False,
        description="of an agent that was evolved in the dream, also score the controller that the dream alone would "
        "have kept, on the same seeds",
    )
    looked_at: Annotated[int, Field(ge=0, le=64)] = Field(
        default=4, description="games of the agent along which V's error and M's surprise are measured (0: none)"
    )
    video: bool = Field(default=False, description="write an MP4 of one game with its reconstruction beside it")


Ends = Literal["threshold", "sampled", "never"]
"""When dreams end."""


class DreamConfig(Section):
    """The dream: the game as M knows it."""

    temperature: Positive = Field(
        default=1.0,
        description="how uncertain the dream is: divides the log odds of what may follow, and multiplies deviations by "
        "its square root (1: as M learned; higher is harder, and harder to cheat)",
    )
    ends: Ends = Field(
        default="threshold",
        description="a dream ends where M's odds of an end, in which one counts memory.done_weight times, are above "
        "1 (the paper's way), or as often as M says, or after its steps alone",
    )
    episode_steps: Count | None = Field(default=None, description="longest dream (default: the game's episode)")
    warm_up: NonNegative = Field(
        default=0,
        description="real frames that M has seen before the dream begins (not the agent's own, with "
        "controller.memory_reset)",
    )
    random_start: bool | None = Field(
        default=None,
        description="dreams begin at any frame of the replays instead of at the first ones of episodes (default: as "
        "controller.random_start)",
    )
    members: Annotated[int, Field(ge=1, le=16)] = Field(
        default=1,
        description="so many M's, of which one is drawn for each dream; train_memory trains them, each from a seed of "
        "its own",
    )
    disagreement: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="so many times as far as they are apart (deviation of the expected z, mean over its numbers) is "
        "taken off the reward of a step",
    )


class FilmConfig(Section):
    """Films of the dream."""

    steps: Annotated[int, Field(ge=2, le=100_000)] = Field(default=400, description="steps of the film")
    warm_up: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=30,
        description="of them, those in which M sees the real game before it dreams on; of a short game a third at most",
    )
    temperatures: tuple[Positive, ...] = Field(
        default=(0.1, 0.5, 1.0, 1.15, 1.3), description="of the dreams that are shown side by side"
    )
    actions: Literal["agent", "random"] = Field(
        default="agent", description="who acts: the run's agent if it has one, or the exploring policy of collect"
    )


class HostsConfig(Section):
    """Several processes, one per host, that work on one run together (docs/scaling.md)."""

    coordinator: str | None = Field(
        default=None, description="HOST:PORT where process 0 listens; auto: as Slurm, Open MPI or the TPU slice says"
    )
    count: Annotated[int, Field(ge=1, le=65_536)] | None = Field(default=None, description="how many processes")
    index: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        default=None, description="which of them this is, from 0"
    )


CHOICES = {
    "vae": Choice("variant", VARIANTS, CustomVaeConfig),
    "memory": Choice("cell", CELLS, CustomMemoryConfig),
}
"""The sections whose settings depend on one of them."""
if TYPE_CHECKING:
    AnyVae = VaeConfig
    AnyMemory = MemoryConfig
else:
    AnyVae, AnyMemory = (alternatives(CHOICES[section]) for section in ("vae", "memory"))


class Config(Section):
    """Everything that decides what a run does."""

    game: str = Field(
        description="carracing, doomtakecover, enduro or another Atari game, a Procgen game, gymnasium:ID or "
        "jax:MODULE:CLASS"
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
    vae: AnyVae = VanillaConfig()
    encode: EncodeConfig = EncodeConfig()
    memory: AnyMemory = MemoryConfig()
    controller: ControllerConfig = ControllerConfig()
    dream: DreamConfig = DreamConfig()
    film: FilmConfig = FilmConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


RENAMED = {
    "collect.anywhere": "collect.random_start",
    "controller.anywhere": "controller.random_start",
    "vae.adversary": "vae.adversary_weight",
    "vae.commitment": "vae.commitment_weight",
    "vae.diagonal": "vae.diagonal_weight",
    "vae.dimension_wise": "vae.dimension_wise_weight",
    "vae.divergence": "vae.divergence_weight",
    "vae.features": "vae.feature_weight",
    "vae.mutual_information": "vae.mutual_information_weight",
    "vae.off_diagonal": "vae.off_diagonal_weight",
    "vae.pixels": "vae.pixel_weight",
    "vae.structure": "vae.structure_weight",
    "vae.total_correlation": "vae.total_correlation_weight",
}
"""Settings by what they were called when older artifacts recorded them."""
RENAMED_VALUES = {("vae.frames", "fresh"): "generated"}
"""Likewise values of settings."""


def current_names(section: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings of a section by what they are called now.

    Args:
      section: its name; "" where the settings are named as `section.key`.
    """
    prefix = f"{section}." if section else ""
    current = {}
    for name, value in recorded.items():
        key = RENAMED.get(prefix + name, prefix + name)
        current[key.removeprefix(prefix)] = RENAMED_VALUES.get((key, value), value) if isinstance(value, str) else value
    return current


def types_of(section: str) -> tuple[type[Section], ...]:
    """The types that a group of settings may have; none for what is no group."""
    field = Config.model_fields.get(section)
    return () if field is None else section_types(field)


def all_fields(section: str) -> dict[str, FieldInfo]:
    """The settings of a group, those of all its types."""
    return {name: field for each in reversed(types_of(section)) for name, field in each.model_fields.items()}


def chosen_type(section: str, settings: Mapping[str, Any]) -> type[Section]:
    """The type of a group of settings that these choose, such as that of a V by their `variant`."""
    return CHOICES[section].type_for(settings) if section in CHOICES else types_of(section)[0]


def default_of(key: str) -> Any:
    """The default of a setting as `section.key`; None for what is no setting."""
    section, _, name = key.partition(".")
    field = all_fields(section).get(name)
    return None if field is None else field.default


def field_names() -> tuple[str, ...]:
    """Every setting as `section.key`, whatever type of its section has it."""
    names: dict[str, None] = {}
    for name in Config.model_fields:
        names |= dict.fromkeys([f"{name}.{key}" for key in all_fields(name)] or [name])
    return tuple(names)
