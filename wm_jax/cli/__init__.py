"""The command line: `main` parses it, and runs one stage with all that it needs first.

    bin/train_vae --game enduro --preset quick --vae.beta 2

`bin/X` and `wm X` are the same thing. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted (state saved).
Nothing that takes long is imported before the work starts, so that --help is quick.
"""

import argparse
import contextlib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from wm_jax.cli.commands import COMMANDS, MAINTENANCE, described
from wm_jax.cli.folders import open_run
from wm_jax.cli.options import given_settings, parse
from wm_jax.cli.sentences import as_typed, explained
from wm_jax.config.schema import Config
from wm_jax.config.text import nearest
from wm_jax.distributed import processes
from wm_jax.distributed.progress import set_wording
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils import process
from wm_jax.utils.errors import UsageError, UserError
from wm_jax.utils.files import to_json

SPELT_FREELY = ("game", "preset", "config", "seed", "devices", "run", "base", "json", "debug")
"""Options that processes of one command may spell differently: settings are compared as they are resolved, and folders
where they are opened."""


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
    set_wording(as_typed)
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
    sentence = explained(error, debug="--debug" in arguments)
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
    if (module := COMMANDS[command].standalone) is not None:
        process.raise_on_ctrl_c()
        return importlib.import_module(module).main(rest)
    action = rest[0] if command == "collect" and rest and not rest[0].startswith("-") else None
    if action not in (None, *MAINTENANCE):
        near = nearest(action, tuple(MAINTENANCE))
        raise UsageError(f"collect {action}: no such action{near}; one of {', '.join(MAINTENANCE)}")
    options, config = parse(command, rest[1:] if action else rest)
    return _execute(action or command, options, config)


def _execute(command: str, options: argparse.Namespace, config: Config) -> int:
    from wm_jax.run.ancestors import with_imported_actions
    from wm_jax.run.interrupt import Interrupted, graceful_stop

    run = open_run(command, options, config)
    if command != "import":
        config = with_imported_actions(config, run)
    if not options.debug:
        # What goes wrong in Orbax's threads reaches us as an exception; its logged tracebacks only repeat it.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        with processes.joined(config.hosts), graceful_stop() as stop:
            _require_same_command(command, options, config)
            if options.pretrained:
                from wm_jax.run.pretrained import install

                processes.on_main_process(install)(config.game, run)
            given = given_settings(options)
            summary = _do(command, config, given, run, stop, options)
            leads = processes.is_main_process()
    except Interrupted:
        again = "the same command without --fresh" if options.fresh and not run.anew else "the same command"
        return _fail(f"interrupted; {again} goes on from what is saved in {run.path}", 130, json=options.json)
    if leads:
        _print_summary(command, run, summary)
    if leads and options.json:
        print(to_json(summary), flush=True)
    return 1 if summary.get("failed") else 0


def _do(
    command: str, config: Config, given: set[str], run: Any, stop: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """What the command needs and lacks, and the command itself; returns its summary.

    Args:
      given: the settings that the command line names itself.
      options: of the command line, for commands that have some of their own.
    """
    from wm_jax import stages
    from wm_jax.run.ancestors import inherit_settings

    this = described(command)
    if this.artifact is not None:
        config = inherit_settings(config, run, this.artifact, given)
    before = this.before(config.controller, lambda artifact: run.stage(artifact).summary() is not None)
    tool = this.does(options)
    if tool is not None and hasattr(tool, "accept"):
        tool.accept(config, options)
    for artifact in before if this.artifact is None else [*before, this.artifact]:
        stages.accept(artifact, config)
    if any(each.computes(config) for each in (this, *(COMMANDS[CHAIN[artifact]] for artifact in before))):
        from wm_jax.distributed.mesh import started

        started()  # before an hour of other work ends here
    if options.fresh and tool is not None and hasattr(tool, "start_anew"):
        tool.start_anew(run, options)
    made = this.makes(config.controller)
    for artifact in before:
        why = "" if artifact in made else f": {command} needs it, and {run.path} lacks it"
        stages.make(artifact, config, run, stop, f"== {CHAIN[artifact]}{why}")
    stages.check_stop(stop)
    if tool is not None:
        return tool.run(config, run, stop, options)
    assert this.artifact is not None, "it is a tool, or a stage"
    return stages.make(this.artifact, config, run, stop)


def _require_same_command(command: str, options: argparse.Namespace, config: Config) -> None:
    """See that all processes were started for the same."""
    given = {
        "command": command,
        **{name: value for name, value in vars(options).items() if "." not in name and name not in SPELT_FREELY},
        **config.model_dump(exclude={"hosts"}),
    }
    if other := processes.first_mismatch(given):
        raise UsageError(
            f"--hosts: process {other} was started with another command or other settings than process 0; "
            "only --hosts.index may differ"
        )


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
    lines = [f"  {name:<18} {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [usage, "", *lines, "", "bin/COMMAND --help shows a command's settings. `wm COMMAND` is the same."]
    )


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
