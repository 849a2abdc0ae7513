"""The layers that settings come from: the defaults of `schema.py` < configs/<family>.yaml < configs/<game>.yaml <
configs/presets/<preset>.yaml < the game's own `presets:` block < a file of the user's (--config) < the command line.

Every unknown key is an error that names its nearest match.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    ValidationError,
)

from wm_jax.config.base import Choice, Section, choices
from wm_jax.config.schema import CHOICES, Config, all_fields, chosen_type, current_names, field_names, types_of
from wm_jax.config.text import nearest, shown
from wm_jax.utils.errors import UsageError, UserError


def config_folder() -> Path:
    """Where the YAML files lie: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def file_name(game: str) -> str:
    """The game's name as files and folders bear it."""
    return game.replace(":", "_").replace("/", "_")


@cache
def presets() -> tuple[str, ...]:
    """The names of the presets that exist."""
    return tuple(sorted(path.stem for path in (config_folder() / "presets").glob("*.yaml")))


def load(
    game: str,
    family: str,
    preset: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    file: Path | None = None,
) -> Config:
    """Resolve the layers into one `Config`.

    Args:
      game: name in the catalogue (`envs/games.py`); its own YAML is optional.
      family: the catalogue's family of the game, whose YAML comes first.
      preset: name of a file in `configs/presets`.
      overrides: nested mapping, from the command line; the topmost layer.
      file: of the user's, the layer below it.

    Raises:
      UsageError: an unknown preset, key or value; or there is no such file.
    """
    if preset not in presets():
        raise UsageError(f"preset {preset}: no such preset; choose one of {', '.join(presets())}")
    settings: dict[str, Any] = {"game": game, "preset": preset}
    folder = config_folder()
    general = f"presets/{preset}.yaml"
    early, late = [], []
    for name in dict.fromkeys((family, file_name(game))):
        layer = _read_yaml(folder / f"{name}.yaml")
        late.append((f"{name}.yaml", _own_preset(layer.pop("presets", {}), preset, f"{name}.yaml")))
        early.append((f"{name}.yaml", layer))
    layers = [*early, (general, _read_yaml(folder / general)), *late, *(user_layers(file, preset) if file else ())]
    chosen: dict[str, Any] = {}
    so_far = []  # what the layers up to each one choose
    for source, layer in layers:
        _require_known(layer, source)
        chosen = _merge(chosen, layer, source)
        so_far.append({section: chosen_type(section, chosen.get(section, {})) for section in CHOICES})
    overrides = overrides or {}
    chosen = _merge(chosen, overrides, "command line")
    for (source, layer), meant in zip(layers, so_far, strict=True):
        settings = _merge(settings, _for_chosen(layer, meant, chosen, source), source)
    settings = _merge(settings, overrides, "command line")
    if settings.get("controller", {}).get("arena") == "dream":  # there is nothing to learn in it without these
        settings["memory"] = {"reward_head": True, "done_head": True} | settings.get("memory", {})
    return validate(settings, (*layers, ("", overrides)))


def user_layers(file: Path, preset: str) -> list[tuple[str, dict[str, Any]]]:
    """What a file of the user's says, and what its own `presets:` block does; with the file's name.

    Raises:
      UsageError: there is no such file, or it is no YAML.
    """
    if not file.is_file():
        raise UsageError(f"--config {file}: there is no such file")
    layer = _read_yaml(file)
    own = _own_preset(layer.pop("presets", {}), preset, file.name)
    return [(file.name, layer), (file.name, own)]


def shared(settings: Mapping[str, Any], before: type[Section], after: type[Section]) -> dict[str, Any]:
    """Those settings of one type of a section that mean the same in another: both inherit them from one base.

    Of auto-encoders, say, a size of z that suits a Gaussian would be a mistake for codes out of a codebook, which
    declare their own. Settings that the first type does not have are taken as they are, if the second has them.
    """
    return {
        name: value
        for name, value in settings.items()
        if name in after.model_fields
        and (name not in before.model_fields or _declaring(name, after) is _declaring(name, before))
    }


def _declaring(name: str, section: type[Section]) -> type:
    """The nearest base of a type that declares this setting."""
    return next(each for each in section.__mro__ if name in vars(each).get("__annotations__", {}))


def _for_chosen(
    layer: Mapping[str, Any], meant: Mapping[str, type[Section]], chosen: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """A file's settings without those of auto-encoders and cells that are not chosen, which files may have, and without
    those that mean something else in the chosen one (`shared`).

    Args:
      meant: the types of the sections that its settings are for: those that it chooses, or the layers below it.
      chosen: the settings of all layers, the command line's among them.

    Raises:
      UsageError: it names one itself that lacks a setting beside it, or such a setting has no possible value.
    """
    mine = dict(layer)
    for section, choice in CHOICES.items():
        given, own = layer.get(section, {}), meant[section]
        final = chosen.get(section, {})
        elsewhere = choice.key in given and given[choice.key] != final.get(choice.key)
        kept = shared(given, own, chosen_type(section, final))
        mine[section] = {}
        for name, value in given.items():
            if choice.key in given and name not in own.model_fields:
                raise UsageError(
                    f"{source}: {section}.{name}: {given[choice.key]} has no such setting; remove the line"
                )
            if name in kept and not (elsewhere and name == "options"):
                mine[section][name] = value
            else:
                owner = next(each for each in types_of(section) if name in each.model_fields)
                validate(
                    {"game": "any", section: {choice.key: _name_for(choice, owner), name: value}}, ((source, layer),)
                )
    return mine


def _name_for(choice: Choice, owner: type[Section]) -> str:
    """A value of the choosing setting for this type."""
    return next((name for name, each in choice.built_in.items() if each is owner), "any:Class")


def of_record(section: str, settings: Mapping[str, Any]) -> Any:
    """A group of settings as a record of an artifact has them; what did not exist yet is at its default.

    Raises:
      UserError: it has a setting that this version does not know, or a value that it does not take.
    """
    settings = current_names(section, settings)
    chosen = chosen_type(section, settings)
    # Earlier versions recorded the settings of all types, of which the chosen one used its own.
    others = all_fields(section).keys() - chosen.model_fields.keys()
    known = {name: value for name, value in settings.items() if name not in others}
    try:
        return chosen.model_validate(known)
    except ValidationError as error:
        complaint = error.errors()[0]
        name = ".".join((section, *map(str, complaint["loc"][:1])))
        raise UserError(
            f"{name} {shown(complaint['input'])}: a finished artifact was made with that, which this version of wm_jax "
            "does not know; use the version that made it, or another run"
        ) from None


def validate(settings: Mapping[str, Any], layers: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> Config:
    """Check a nested mapping against the types above.

    Args:
      layers: that it was merged from, the topmost last, each with the file that it comes from, if it does.

    Raises:
      UsageError: the first thing that does not fit, as `[file: ]section.key value: reason`.
    """
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        source = next((source for source, layer in reversed(layers) if _holds(layer, _place(error))), "")
        raise UsageError((f"{source}: " if source else "") + _first_complaint(error)) from None


def _place(error: ValidationError) -> list[str]:
    """The section and the name of the setting that an error is first about."""
    section, *rest = (str(part) for part in error.errors()[0]["loc"])
    inside = [part for part in rest if part not in {each.__name__ for each in types_of(section)}]
    return [section, *inside[:1]]  # deeper parts are places in a tuple


def _holds(layer: Any, path: Sequence[str]) -> bool:
    """Does a layer say something of the setting at this place?"""
    for part in path:
        if not isinstance(layer, Mapping) or part not in layer:
            return False
        layer = layer[part]
    return True


def _first_complaint(error: ValidationError) -> str:
    complaint, path = error.errors()[0], _place(error)
    name = ".".join(path)
    if complaint["type"] == "missing":
        return f"{name} {' '.join(map(str, complaint['input']))}: too few values (see --help)"
    if complaint["type"] == "extra_forbidden":
        if name in field_names():
            chosen = f"{path[0]}.{CHOICES[path[0]].key}"
            return f"{name} {shown(complaint['input'])}: what {chosen} names has no such setting; leave it out"
        return f"{name}: no such setting{nearest(name, field_names())}"
    message = complaint["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = complaint["input"]
    if complaint["type"] in ("int_parsing", "float_parsing") and re.fullmatch(r"[0-9]+,[0-9]+", str(given)):
        message += "; fractions have a point, thousands nothing"
    field = all_fields(path[0]).get(path[-1])
    known = choices(field) if field is not None else ()
    return f"{name} {shown(given)}: {message}{nearest(str(given), known)}"


class _Loader(yaml.SafeLoader):
    """YAML whose keys are words as they are written (`on` is a setting, not true), each given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See the base class."""
        given = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no word", key.start_mark)
            if key.value in given:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            given.add(key.value)
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader) or {}
    except yaml.YAMLError as error:
        said = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise UsageError(f"{path.name}: not valid YAML ({said}); mend or restore it") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path.name}: not UTF-8 (byte {error.start}); save it as that") from None
    return _mapping(content, path.name)


def _require_known(layer: Mapping[str, Any], source: str) -> None:
    """See that a file's keys are settings, and that it leaves alone what the command line alone says."""
    for section, values in layer.items():
        if section in ("game", "preset"):
            raise UsageError(f"{source}: {section}: the command line says that (--{section}); remove the line")
        if types_of(section) and not isinstance(values, Mapping):
            raise UsageError(f"{source}: {section}: these are settings; give a mapping, {section}: {{NAME: VALUE}}")
        names = [f"{section}.{key}" for key in values] if isinstance(values, Mapping) else [section]
        for name in names:
            if name not in field_names():
                inside = [known for known in field_names() if known.rpartition(".")[2] == name]
                hint = f"; did you mean {' or '.join(inside)}?" if inside else nearest(name, field_names())
                raise UsageError(f"{source}: {name}: no such setting{hint}")


def _own_preset(block: Any, preset: str, source: str) -> dict[str, Any]:
    """What a game's `presets:` block says of a preset."""
    block = _mapping(block, f"{source}: presets")
    for name in block:
        if name not in presets():
            raise UsageError(f"{source}: presets.{name}: no such preset{nearest(str(name), presets())}")
    return _mapping(block.get(preset, {}), f"{source}: presets.{preset}")


def _mapping(content: Any, source: str) -> dict[str, Any]:
    """A YAML mapping without the keys whose value is empty, which YAML reads as null."""
    if not isinstance(content, dict):
        raise UsageError(f"{source}: expected a mapping of sections, found {type(content).__name__}")
    return {key: value for key, value in content.items() if value is not None}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], source: str) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping):
            under = merged.get(key, {})
            if not isinstance(under, Mapping):
                raise UsageError(f"{source}: {key} holds one value, not a section")
            merged[key] = _merge(under, value, source)
        else:
            merged[key] = value
    return merged
