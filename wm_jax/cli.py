"""The command line: parse, load the settings, call one stage.

    bin/train_vae --game enduro --preset quick --vae.beta 2

`bin/X` and `wm X` are the same thing. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted (state saved).
Only the standard library, pydantic and PyYAML are imported before the work starts, so that --help is quick.
"""

import argparse
import contextlib
import errno
import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from wm_jax import hosts, process
from wm_jax.arguments import Parser
from wm_jax.chain import CHAIN, upstream
from wm_jax.config import (
    Config,
    Section,
    arguments_of,
    choices,
    field_names,
    file_name,
    is_section,
    load,
    nearest,
    presets,
    shown,
    takes_several,
)
from wm_jax.envs.games import canonical_name, family_of
from wm_jax.errors import UsageError, UserError
from wm_jax.files import to_json

COMMANDS = {
    "collect": "play with an exploring policy and store the episodes",
    "train_vae": "train V, the auto-encoder, on the stored frames",
    "encode": "encode every stored frame with V",
    "train_memory": "train M, the recurrent network, on the encoded episodes",
    "train_controller": "evolve C, the controller, on the game",
    "evaluate": "score the agent over many episodes, beside the random policy",
    "pipeline": "all of the above, then a report in one HTML file",
    "benchmark": "measure the throughput of the stages beside PyTorch's",
    "check_car_racing": "measure how near CarRacing on the device is to Gymnasium's, and its speed",
    "doctor": "say what works on this machine, and the remedy for what does not",
}
STANDALONE = {
    "benchmark": "wm_jax.bench.command",
    "check_car_racing": "wm_jax.fidelity.command",
    "doctor": "wm_jax.stages.doctor",
}
"""Commands without a game, and the modules that have a `main` of their own for them."""
PIPELINE: dict[str, dict[str, Any]] = {"evaluate": {"on": "both", "video": True}}
"""Settings of the pipeline, over those of the preset."""
ARTIFACT_OF = {command: artefact for artefact, command in CHAIN.items()}
"""What a command makes."""
MAINTENANCE = {
    "verify": "reads every stored byte and names what is damaged",
    "repair": "sets damaged shards aside, so that the next collect plays their episodes again",
}
"""What `collect` does to a store that is there."""
SECTIONS = {
    "collect": ("env", "collect"),
    "train_vae": ("env", "collect", "data", "vae", "hosts"),
    "encode": ("encode", "hosts"),
    "train_memory": ("memory", "hosts"),
    "train_controller": ("env", "controller", "hosts"),
    "evaluate": ("env", "evaluate"),
}
"""The sections that a command's --help shows; `pipeline` shows all. Every command takes every setting."""
COLLECTIVE_STAGES = {"train_vae", "encode", "train_memory", "train_controller"}
"""Stages that several processes do together. The others are done by the first, while the rest wait."""
AGENT_COMMANDS = ("evaluate",)
"""Commands that the agent that comes with the package can be used with."""
PREVALIDATED = ("train_vae", "train_controller")
"""Commands whose stage refuses settings by itself (`accept`): before anything upstream is made."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
      argv: its words. None: those that this process was started with, which then is ours: so are its signals and
        streams.
    """
    if argv is None:
        process.die_on_ctrl_c()
        process.mend_streams()
    process.prepare()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, json="--json" in arguments)
    except BrokenPipeError:
        _give_up_output()  # whoever read it has left
        return 1
    except Exception as error:
        return _explain(error, arguments)


def _explain(error: Exception, arguments: Sequence[str]) -> int:
    """Say what went wrong in one sentence, and with --debug where; returns the exit status."""
    expected = isinstance(error, UserError)
    sentence = _with_origin(str(error) if expected else _sentence(error), error)
    status = error.exit_code if expected else 1
    if "--debug" in arguments:
        print((error.details if expected else traceback.format_exc()).rstrip(), file=sys.stderr)
    return _fail(sentence, status, json="--json" in arguments)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"wm_jax {importlib.import_module('wm_jax').__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise UsageError(f"{command}: no such command{nearest(command, tuple(COMMANDS))}; one of {', '.join(COMMANDS)}")
    if command in STANDALONE:
        process.raise_on_ctrl_c()
        return importlib.import_module(STANDALONE[command]).main(rest)
    action = rest[0] if command == "collect" and rest and not rest[0].startswith("-") else None
    if action not in (None, *MAINTENANCE):
        near = nearest(action, tuple(MAINTENANCE))
        raise UsageError(f"collect {action}: no such action{near}; one of {', '.join(MAINTENANCE)}")
    options, config = parse(command, rest[1:] if action else rest)
    return _execute(action or command, options, config)


def parse(command: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, Config]:
    """The options that are not settings, and the resolved settings.

    Raises:
      UsageError: anything that does not fit, in one sentence.
    """
    arguments = [_with_underscores(argument) for argument in arguments]
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--game")
    first.add_argument("--preset", default="quick")
    known, _ = first.parse_known_args([word for word in arguments if word not in ("-h", "--help")])
    wants_help = any(word in ("-h", "--help") for word in arguments)
    game = known.game or ("carracing" if wants_help else None)
    if game is None:
        raise UsageError("--game: say which game, for example --game enduro, carracing or chaser")
    game = canonical_name(game)
    forced = PIPELINE if command == "pipeline" else {}
    base = load(game, family_of(game), known.preset, forced)
    parser = _parser(command, base)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        word = unknown[0]
        hint = nearest(
            word.lstrip("-").split("=")[0], (*field_names(), "run", "name", "base", "json", "fresh", "debug")
        )
        raise UsageError(f"{word}: no such option{hint} (see --help)")
    overrides = {section: dict(values) for section, values in forced.items()}
    for name, value in vars(options).items():
        if "." in name and value is not None:
            section, key = name.split(".")
            overrides.setdefault(section, {})[key] = _value(f"--{name}", value)
    overrides |= {name: value for name in ("seed", "devices") if (value := getattr(options, name)) is not None}
    return options, load(game, family_of(game), known.preset, overrides)


def _parser(command: str, base: Config) -> Parser:
    upkeep = " Further words: " + "; ".join(f"bin/collect {name} {what}" for name, what in MAINTENANCE.items()) + "."
    parser = Parser(
        prog=f"bin/{command}",
        description=f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}."
        + (upkeep if command == "collect" else ""),
        epilog="The values shown are those in force for this game and preset."
        + ("" if command == "pipeline" else " Settings of the other stages: bin/pipeline --help."),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--game", metavar="NAME", help=Config.model_fields["game"].description)
    parser.add_argument("--preset", choices=presets(), help=f"{Config.model_fields['preset'].description} [quick]")
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
    if command in AGENT_COMMANDS:
        text = "use the agent that comes with the package (carracing) [its --run: runs/GAME-pretrained]"
        parser.add_argument("--pretrained", action="store_true", help=text)
    parser.set_defaults(pretrained=False)
    parser.add_argument("--fresh", action="store_true", help="move what this command made before aside and start anew")
    parser.add_argument(
        "--json", action="store_true", help="print the summary, or the error, as the last line of standard output"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    shown = SECTIONS.get(command, tuple(Config.model_fields))
    for section, field in Config.model_fields.items():
        if is_section(field.annotation):
            _add_section(parser, section, getattr(base, section), visible=section in shown)
    return parser


def _add_section(parser: Parser, name: str, values: Section, *, visible: bool) -> None:
    group = parser.add_argument_group(name, (values.__doc__ or "").strip()) if visible else parser
    for key, field in type(values).model_fields.items():
        value = getattr(values, key)
        extra: dict[str, Any] = {}
        if takes_several(field.annotation):
            extra["nargs"] = "+"
        elif bool in (field.annotation, *get_args(field.annotation)):
            extra |= {"nargs": "?", "const": "true"}
        known = choices(field)
        one_of = f"; one of {', '.join(known)}" if len(known) > 1 else ""
        text = f"{field.description}{one_of} [{shown(value)}]".replace("%", "%%")
        group.add_argument(
            f"--{name}.{key}", dest=f"{name}.{key}", metavar="X", help=text if visible else argparse.SUPPRESS, **extra
        )


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


def _execute(command: str, options: argparse.Namespace, config: Config) -> int:
    from wm_jax.interrupt import Interrupted, graceful_stop

    run = _run(command, options, config)
    if not options.debug:
        # What goes wrong in Orbax's threads reaches us as an exception; its logged tracebacks only repeat it.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        with hosts.joined(config.hosts), graceful_stop() as stop:
            _require_same_command(command, options, config)
            if options.pretrained:
                from wm_jax.pretrained import install

                hosts.on_main_process(install)(config.game, run)
            given = {name for name, value in vars(options).items() if value is not None}
            summary = _do(command, config, given, run, stop)
            leads = hosts.is_main_process()
    except Interrupted:
        again = "the same command without --fresh" if options.fresh and not run.anew else "the same command"
        return _fail(f"interrupted; {again} goes on from what is saved in {run.path}", 130, json=options.json)
    if leads:
        _print_summary(command, run, summary)
    if leads and options.json:
        print(to_json(summary), flush=True)
    return 1 if summary.get("failed") else 0


def _do(command: str, config: Config, given: set[str], run: Any, stop: Any) -> dict[str, Any]:
    """What the command needs and lacks, and the command itself; returns its summary.

    Args:
      given: the settings that the command line names itself.
    """
    from wm_jax.lineage import settle
    from wm_jax.metrics import log

    if command in ARTIFACT_OF:
        config = settle(config, run, ARTIFACT_OF[command], given)
    before = _before(command, config, run)
    for each in (*before, command):
        if each in PREVALIDATED:
            importlib.import_module(f"wm_jax.stages.{each}").accept(config)
    if any(_computes(each, config) for each in (*before, command)):
        from wm_jax.devices import started

        started()  # before an hour of other work ends here
    for needed in before:
        _stop_here(stop)
        log(f"== {needed}" + ("" if command == "pipeline" else f": {command} needs it, and {run.path} lacks it"))
        _stage(needed)(settle(config, run, ARTIFACT_OF[needed]), run, stop)
        process.give_back_memory()
    _stop_here(stop)
    return _stage("report" if command == "pipeline" else command)(config, run, stop)


def _stop_here(stop: Any) -> None:
    """Between two stages, for those that find all done already ask nobody."""
    from wm_jax.interrupt import Interrupted

    if stop.agreed():
        raise Interrupted


def _computes(command: str, config: Config) -> bool:
    """Does it need JAX? Looking after replays does not, nor does playing at random outside of JAX."""
    if command == "collect":
        return config.env.backend == "device" or config.collect.policy == "agent"
    return command not in MAINTENANCE


def _require_same_command(command: str, options: argparse.Namespace, config: Config) -> None:
    """See that all processes were started for the same."""
    given = {"command": command, "fresh": options.fresh, **config.model_dump(exclude={"hosts"})}
    if other := hosts.first_mismatch(given):
        raise UsageError(
            f"--hosts: process {other} was started with another command or other settings than process 0; "
            "only --hosts.index may differ"
        )


def _run(command: str, options: argparse.Namespace, config: Config) -> Any:
    """The run's folder, with what --fresh makes anew."""
    from wm_jax.run import Run

    if options.pretrained:
        from wm_jax.pretrained import require

        require(config.game)
    path = Path("runs") / f"{file_name(config.game)}-{'pretrained' if options.pretrained else config.preset}"
    if options.run is not None:
        if not options.run.strip():
            raise UsageError(f"--run: no folder is named; leave it out for {path}, or name one")
        path = _folder(options.run)
    _require_utf8(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"--run {path}: this is a file; give a folder")
    if options.fresh and command in MAINTENANCE:
        raise UsageError(f"--fresh: collect {command} makes nothing anew; leave it out")
    if options.fresh and command == "pipeline" and config.collect.policy == "agent":
        raise UsageError(
            "--fresh: it would move aside the agent that --collect.policy agent lets play; collect first "
            "(bin/collect), then start the later stages anew, one by one"
        )
    base = None if options.base is None else _folder(options.base)
    if options.name is not None:
        if base is not None:
            raise UsageError("--name: with it, the run itself is the base; leave --base out, or give another --run")
        if not re.fullmatch(r"[\w.-]*\w[\w.-]*", options.name):
            raise UsageError(f"--name {options.name}: give a word of letters, digits, '.', '_' and '-'")
        base, path = path, path / "named" / options.name
    made = _everything(config) if command == "pipeline" else [ARTIFACT_OF[command]] if command in ARTIFACT_OF else []
    # A pipeline on a base is there for what comes after the replays.
    makes = set(made) - ({"replays"} if command == "pipeline" and base is not None else set())
    return Run.open(path, base, makes=makes, anew=made if options.fresh else ())


def _folder(name: str) -> Path:
    """A folder as it is named; `~` is home, also where the shell leaves it as it is, as in `--run=~/x`.

    Raises:
      UsageError: no folder can have this name.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except RuntimeError:
        raise UsageError(f"--run {name}: nobody knows that home; give the folder's whole name") from None
    except OSError as error:
        short = name if len(name) <= 80 else f"{name[:77]}..."
        raise UsageError(f"--run {short}: {os.strerror(error.errno or 0)}; give another folder") from None
    return path


def _require_utf8(path: Path) -> None:
    """See that libraries in C++, which are given names as UTF-8, will find the same folder as Python.

    Raises:
      UsageError: they won't.
    """
    whole = os.path.abspath(path)
    try:
        if whole.encode() == os.fsencode(whole):
            return
    except UnicodeEncodeError:
        pass  # bytes that Python could not read as letters
    raise UsageError(
        f"--run {whole}: such a name needs a UTF-8 locale, as with LC_ALL=C.UTF-8 or PYTHONUTF8=1; "
        "set that, or give a name in plain ASCII"
    )


def _stage(command: str) -> Any:
    """The stage's `run`: shared by all processes, or done by the first."""
    run = importlib.import_module(f"wm_jax.stages.{command}").run
    return run if command in COLLECTIVE_STAGES else hosts.on_main_process(run)


def _everything(config: Config) -> list[str]:
    """Every artefact that the pipeline makes under these settings."""
    return [*upstream("evaluation", config.controller.inputs, config.controller.world), "evaluation"]


def _before(command: str, config: Config, run: Any) -> list[str]:
    """The commands that have to run first: makers of what this one reads and that has not finished yet."""
    if command in MAINTENANCE:
        return []
    if command == "pipeline":
        return [CHAIN[artefact] for artefact in _everything(config)]
    inputs, world = config.controller.inputs, config.controller.world
    needed = upstream(ARTIFACT_OF[command], inputs, world, lambda name: run.stage(name).summary() is not None)
    return [CHAIN[artefact] for artefact in needed]


def _print_summary(command: str, run: Any, summary: dict[str, Any]) -> None:
    print(f"{command}: done in {run.path}")
    for name, value in summary.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            print(f"  {name:<22} {value:,}")
        elif not isinstance(value, dict | list):
            print(f"  {name:<22} {value}")
    for warning in summary.get("warnings", []):
        print(f"  warning: {warning}")


def _overview() -> str:
    usage = "usage: bin/COMMAND --game NAME [--preset smoke|quick|gpu|paper] [--run DIR] [--section.key value ...]"
    lines = [f"  {name:<18} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [usage, "", *lines, "", "bin/COMMAND --help shows a command's settings. `wm COMMAND` is the same."]
    )


def _with_origin(sentence: str, error: Exception) -> str:
    """The sentence, and which other process it comes from, if it does."""
    return " ".join([sentence, *getattr(error, "__notes__", [])])


def _sentence(error: Exception) -> str:
    # TensorStore and Orbax report a full disk as errors of their own, with the system's words in them.
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
        place = getattr(error, "filename", None) or "while writing"
        return f"the disk is full ({place}): free some space, then give the same command"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return (
            f"{error.filename}: can't be written or read ({error.strerror}); change its permissions or give --run DIR"
        )
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return (
            f"{error.filename}: {'a folder' if isinstance(error, IsADirectoryError) else 'a file'} is in the way "
            "there; move it, or give another --run"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; mend that, or give another --run"
    if "RESOURCE_EXHAUSTED" in str(error) or isinstance(error, MemoryError):
        return (
            "out of memory: lower the sizes of what was asked for (networks, batches, population, --collect.slots), "
            "or --data.device_budget_gb"
        )
    first = str(error).strip().split("\n")[0]
    return f"unexpected {type(error).__name__}: {first} (give --debug for the traceback, and please report it)"


def _fail(sentence: str, status: int, *, json: bool) -> int:
    print(f"error: {sentence}" if status != 130 else sentence, file=sys.stderr)
    if json:
        try:
            print(to_json({"error": sentence, "status": status}), flush=True)
        except OSError:  # a full disk, perhaps the very error
            _give_up_output()
    return status


def _give_up_output() -> None:
    """Let what is still to be written go nowhere, so that Python says nothing of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
