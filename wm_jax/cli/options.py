"""Parsing a command line: the options that are not settings, and the settings in force."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from wm_jax.cli.commands import MAINTENANCE, described
from wm_jax.config.base import MANY, Section, TrainingConfig, choices, section_types, takes_several
from wm_jax.config.layers import load, presets, user_layers
from wm_jax.config.schema import CHOICES, Config, all_fields, field_names
from wm_jax.config.text import arguments_of, nearest, shown
from wm_jax.envs.names import canonical_name, family_of
from wm_jax.utils.arguments import Parser
from wm_jax.utils.errors import UsageError

MANY_TYPES = 2
"""From so many types of a group on, each has a line."""
TRAINING = tuple(TrainingConfig.model_fields)
SHORT = {"controller.arena": "--in"}
"""Settings that have a second, short option."""


def parse(command: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """The options that are not settings, and the resolved settings.

    Raises:
      UsageError: anything that does not fit, in one sentence.
    """
    arguments = [_with_underscores(argument) for argument in arguments]
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--game")
    first.add_argument("--preset", default="quick")
    first.add_argument("--config", type=Path)
    for section, choice in CHOICES.items():
        first.add_argument(f"--{section}.{choice.key}")
    known, _ = first.parse_known_args([word for word in arguments if word not in ("-h", "--help")])
    wants_help = any(word in ("-h", "--help") for word in arguments)
    game = known.game or ("carracing" if wants_help else None)
    if game is None:
        raise UsageError("--game: say which game, for example --game enduro, carracing or chaser")
    game = canonical_name(game)
    forced = described(command).forced
    chosen = {section: {choice.key: vars(known)[f"{section}.{choice.key}"]} for section, choice in CHOICES.items()}
    wanted = dict(forced) | {s: v for s, v in chosen.items() if None not in v.values()}
    base = load(game, family_of(game), known.preset, wanted, known.config)
    parser = _parser(command, base)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        word = unknown[0]
        hint = nearest(
            word.lstrip("-").split("=")[0], (*field_names(), "run", "name", "base", "config", "json", "fresh", "debug")
        )
        raise UsageError(f"{word}: no such option{hint} (see --help)")
    overrides = {section: dict(values) for section, values in forced.items()}
    for name, value in vars(options).items():
        if "." in name and value is not None:
            section, key = name.split(".")
            overrides.setdefault(section, {})[key] = _value(f"--{name}", value)
    overrides |= {name: value for name in ("seed", "devices") if (value := getattr(options, name)) is not None}
    return options, load(game, family_of(game), known.preset, overrides, known.config)


def given_settings(options: argparse.Namespace) -> set[str]:
    """The settings that the command line names itself, or a file that it names, as `section.key`."""
    given = {name for name, value in vars(options).items() if value is not None}
    for _, layer in user_layers(Path(options.config), options.preset or "quick") if options.config else ():
        given |= {f"{section}.{key}" for section, values in layer.items() if isinstance(values, dict) for key in values}
    return given


def _parser(command: str, base: Config) -> Parser:
    this = described(command)
    upkeep = " Further words: " + "; ".join(f"bin/collect {name} {it.about}" for name, it in MAINTENANCE.items()) + "."
    parser = Parser(
        prog=f"bin/{command}",
        description=f"{this.about[0].upper()}{this.about[1:]}." + (upkeep if command == "collect" else ""),
        epilog="The values shown are those in force for this game and preset."
        + ("" if command == "pipeline" else " Settings of the other stages: bin/pipeline --help."),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--game", metavar="NAME", help=Config.model_fields["game"].description)
    parser.add_argument("--preset", choices=presets(), help=f"{Config.model_fields['preset'].description} [quick]")
    parser.add_argument(
        "--config", metavar="FILE", help="settings in YAML, as the files in configs/ have them, above all of these"
    )
    parser.add_argument("--run", metavar="DIR", help="the run's folder [runs/GAME-PRESET]")
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="a name of their own for the models that are made, which then stand beside the run's; what they lack, "
        "such as replays, is taken from it",
    )
    parser.add_argument("--base", metavar="DIR", help="another run's folder, to take from what this run does not make")
    parser.add_argument("--seed", metavar="N", help=f"{Config.model_fields['seed'].description} [0]")
    parser.add_argument("--devices", metavar="N", help=f"{Config.model_fields['devices'].description} [0]")
    if this.pretrained:
        text = "use the agent that comes with the package (carracing) [its --run: runs/GAME-pretrained]"
        parser.add_argument("--pretrained", action="store_true", help=text)
    parser.set_defaults(pretrained=False)
    if this.options is not None:
        importlib.import_module(this.options).add(parser)
    parser.add_argument("--fresh", action="store_true", help="move what this command made before aside and start anew")
    parser.add_argument(
        "--json", action="store_true", help="print the summary, or the error, as the last line of standard output"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    shown = tuple(Config.model_fields) if this.sections is None else this.sections
    for section, field in Config.model_fields.items():
        if section_types(field):
            _add_section(parser, section, getattr(base, section), visible=section in shown)
    return parser


def _add_section(parser: Parser, name: str, values: Section, *, visible: bool) -> None:
    """The options of a group of settings; those of its other types are taken too, and refused in a better sentence."""
    group = parser.add_argument_group(name, _about(name, values)) if visible else parser
    mine = type(values).model_fields
    # What every training has comes last: what is special about this one is looked for more often.
    fields = sorted(mine.items(), key=lambda item: isinstance(values, TrainingConfig) and item[0] in TRAINING)
    others = {key: field for key, field in all_fields(name).items() if key not in mine}
    for key, field in fields:
        known = choices(field)
        one_of = f"; one of {', '.join(known)}" if 1 < len(known) < MANY else ""
        text = f"{field.description}{one_of} [{shown(getattr(values, key))}]".replace("%", "%%")
        _add_option(group, f"{name}.{key}", field, text if visible else argparse.SUPPRESS)
    for key, field in others.items():
        _add_option(group, f"{name}.{key}", field, argparse.SUPPRESS)


def _about(name: str, values: Section) -> str:
    """What the group is about, and if there are many types of it, a line for each of ours."""
    about = _first_line(type(values))
    types = CHOICES[name].built_in if name in CHOICES else {}
    if len(set(types.values())) < MANY_TYPES:
        return about
    width = max(map(len, types)) + 2
    lines = [f"  {kind:<{width}}{_first_line(each)}" for kind, each in types.items()]
    return "\n".join([f"{about}\n\n--{name}.{CHOICES[name].key} is one of", *lines])


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().split("\n")[0]


def _add_option(group: Any, name: str, field: FieldInfo, text: str) -> None:
    extra: dict[str, Any] = {}
    if takes_several(field.annotation):
        extra["nargs"] = "+"
    elif bool in (field.annotation, *get_args(field.annotation)):
        extra |= {"nargs": "?", "const": "true"}
    options = [*([SHORT[name]] if name in SHORT else []), f"--{name}"]
    group.add_argument(*options, dest=name, metavar="X", help=text, **extra)


def _with_underscores(argument: str) -> str:
    """`--vae.free-nats` is `--vae.free_nats`."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _value(option: str, text: str | list[str]) -> Any:
    if isinstance(text, list):
        if any("=" in word for word in text):
            return arguments_of(option, text)
        words = [word for part in text for word in part.split(",") if word]
        return None if words == ["none"] else words
    return None if text.lower() in ("none", "null") else text
