"""What sections of settings are made of: their types of numbers, what marks them, and how a section chooses its type.

Settings are frozen: a stage can't change them.
"""

import difflib
import functools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

# Upper bounds are far above what anyone trains; beyond them is a slip of the finger that would fill the memory.
Count = Annotated[int, Field(gt=0, le=10**9)]
LARGEST = 65_536
"""What a size is at most."""
Size = Annotated[int, Field(gt=0, le=LARGEST)]
SizeOrZero = Annotated[int, Field(ge=0, le=LARGEST)]
EpisodeCount = Annotated[int, Field(gt=0, le=10**6)]
Threads = Annotated[int, Field(ge=0, le=1024)]
NonNegative = Annotated[int, Field(ge=0, le=2**63 - 1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(coerce_numbers_to_str=True)]
MANY = 8
"""From so many names on, a complaint does not list them all."""
MUTABLE = "mutable"
"""Marks the settings that may change when work is resumed: how far, how fast, by what program."""


@dataclass(frozen=True)
class Known:
    """Marks a setting that names something built in, or a custom class as MODULE:CLASS.

    table: returns the built-in names and what they stand for. It is called late, so that it may be defined later.
    """

    table: Callable[[], Mapping[str, Any]]

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are built in."""
        return tuple(self.table())

    def check(self, value: str) -> str:
        """The name, if it can be one."""
        if value in self.names or re.fullmatch(r"[\w.]+:\w+", value):
            return value
        near = difflib.get_close_matches(value, self.names, 1)
        built_in = " or ".join(near or self.names) if len(self.names) < MANY or near else "one that --help lists"
        raise ValueError(f"input should be {built_in}, or MODULE:CLASS of your own")


def built_in_or_custom(table: Callable[[], Mapping[str, Any]]) -> Any:
    """The type of such a setting."""
    known = Known(table)
    return Annotated[str, AfterValidator(known.check), known]


def _mapping(value: Any) -> Any:
    """None counts as an empty mapping; anything else must be one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("give NAME=VALUE, or in YAML a mapping")
    return value


Arguments = Annotated[dict[str, JsonValue], BeforeValidator(_mapping)]
"""NAME=VALUE words, or a mapping in YAML."""


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


START_FROM = "folder of a run whose weights it begins with, of the same sizes (default: random ones)"
"""What the setting of that name is."""


class TrainingConfig(Section):
    """What every training has."""

    batch: Size = Field(default=100, description="frames, or sequences, per update")
    steps: Annotated[Count, MUTABLE] = Field(default=1_000_000, description="updates")
    learning_rate: Positive = Field(default=1e-4, description="Adam's step size")
    final_learning_rate: Positive | None = Field(default=None, description="cosine decay to this (default: constant)")
    steps_per_dispatch: Annotated[Count, MUTABLE] = Field(default=20, description="updates fused into one device call")
    save_every: Annotated[Count, MUTABLE] = Field(default=1000, description="updates between checkpoints")
    report_every: Annotated[Count, MUTABLE] = Field(default=1000, description="updates between held-out evaluations")
    start_from: Annotated[str | None, MUTABLE] = Field(default=None, description=START_FROM)

    def shape(self) -> dict[str, Any]:
        """What decides the network before it is trained: all but how it is trained, as far as it is not the default."""
        others = {name: value for name, value in self.fixed().items() if name not in TrainingConfig.model_fields}
        return {name: value for name, value in others.items() if value != type(self).model_fields[name].default}


@dataclass(frozen=True)
class Choice:
    """How one setting of a section chooses the section's type, which has the settings that go with it.

    key: that setting.
    built_in: its known values, and the type that each chooses.
    custom: the type for a user's own class, MODULE:CLASS; also for invalid values, which its validation reports.
    """

    key: str
    built_in: Mapping[str, type[Section]]
    custom: type[Section]

    def type_for(self, settings: Any) -> type[Section]:
        """The type of the section that has these settings."""
        if isinstance(settings, Section):
            return type(settings)
        default = self.custom.model_fields[self.key].default
        name = settings.get(self.key, default) if isinstance(settings, Mapping) else ""
        return self.built_in.get(name, self.custom) if isinstance(name, str) else self.custom

    def tag(self, settings: Any) -> str:
        """Its name, by which pydantic finds it."""
        return self.type_for(settings).__name__


def alternatives(choice: Choice) -> Any:
    """The type of a section that is of one of several types, for pydantic."""
    types = dict.fromkeys((*choice.built_in.values(), choice.custom))
    tagged = [Annotated[each, Tag(each.__name__)] for each in types]
    return Annotated[functools.reduce(operator.or_, tagged), Discriminator(choice.tag)]


def section_types(field: FieldInfo) -> tuple[type[Section], ...]:
    """The types that a group of settings may have; none for a setting by itself."""
    return tuple(
        each for each in _alternatives(field.annotation) if isinstance(each, type) and issubclass(each, Section)
    )


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without their marks; of anything else itself."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [found for each in get_args(annotation) for found in _alternatives(each)]
    return [annotation]


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The values of an enumerated setting, the built-in ones where custom classes are possible; of any other, none."""
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    return next((mark.names for mark in field.metadata if isinstance(mark, Known)), ())


def takes_several(annotation: Any) -> bool:
    """Is a setting of this type a row of values, or of NAME=VALUE?"""
    return any(get_origin(part) in (tuple, dict) for part in (annotation, *get_args(annotation)))
