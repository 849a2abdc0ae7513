"""Agents that come with the package: V, M and C of one run, with the records of how they were made.

    wm_jax/agents/carracing/
      vae/  memory/  controller/     stage.json  summary.json  weights/, as in a run's folder
      MODEL_CARD.md                  what it is

`install` copies one into a run's folder, where it is as if it had been trained there. Who has trained a better one
packs it up with `.venv/bin/python -m wm_jax.run.pretrained RUN`.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from wm_jax.config.layers import file_name
from wm_jax.distributed.progress import log
from wm_jax.run.card import NAME as CARD
from wm_jax.run.folder import Run, Stage
from wm_jax.run.stage_graph import MODELS
from wm_jax.utils.errors import UsageError, UserError
from wm_jax.utils.files import sync

AGENTS = Path(__file__).parent.parent / "agents"
FILES = ("stage.json", "summary.json", "weights")
"""What of a part is packed: no checkpoints, no curves."""


def games() -> tuple[str, ...]:
    """The games, by the names of their files, for which there is an agent."""
    if not AGENTS.is_dir():
        return ()
    return tuple(sorted(path.name for path in AGENTS.iterdir() if path.is_dir() and not path.name.startswith(".")))


def require(game: str) -> None:
    """Refuse a game that no agent comes with.

    Raises:
      UsageError: there is none for this game.
    """
    if file_name(game) not in games():
        raise UsageError(
            f"--pretrained: no agent for {game} comes with the package, only for {', '.join(games()) or 'none'}; "
            "leave it out, and one is trained"
        )


def install(game: str, run: Run) -> None:
    """Put the game's agent into the run's folder, unless it is there already.

    Raises:
      UserError: another agent is there.
    """
    require(game)
    shipped = Run(AGENTS / file_name(game))
    lacking = [name for name in MODELS if not _holds(run.stage(name), shipped.stage(name))]
    for name in lacking:
        with run.stage(name).lock():
            _copy(shipped.stage(name).path, run.stage(name).path)
    if lacking:
        log(f"put the agent that comes with the package into {run.path}")


def _holds(stage: Stage, shipped: Stage) -> bool:
    """Is this part there, whole?

    Raises:
      UserError: another one is there.
    """
    if not stage.path.is_dir() or not any(stage.path.iterdir()):
        return False
    theirs, ours = shipped.summary(), stage.summary()
    if ours is None and _begun(stage.path, shipped.path):
        return False
    if ours is None or theirs is None or ours["weights"] != theirs["weights"]:
        raise UserError(f"--pretrained: {stage.path} is another agent's; give another --run, or leave --pretrained out")
    files = (path.relative_to(shipped.path) for path in (shipped.path / "weights").rglob("*") if path.is_file())
    return all(_content(stage.path / file) == _content(shipped.path / file) for file in files)


def _begun(path: Path, shipped: Path) -> bool:
    """Did an installation stop amid its files?"""
    record, whole = _content(path / "stage.json") or b"", _content(shipped / "stage.json") or b""
    return {each.name for each in path.iterdir()} <= set(FILES) and whole.startswith(record)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _copy(source: Path, target: Path) -> None:
    """A part's files; `summary.json`, which says that it is whole, comes last."""
    for name in sorted(FILES, key=lambda name: name == "summary.json"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / name, target / name)
        sync(target / name)
    sync(target)


def pack(run: Run, game: str) -> Path:
    """Replace the agent that comes with the package by that of a finished run; where it now lies.

    Raises:
      UserError: the run has no finished agent.
    """
    unfinished = [run.stage(name).path for name in MODELS if run.stage(name).summary() is None]
    if unfinished:
        raise UserError(f"{unfinished[0]} is not finished: give a run with a trained agent")
    target = AGENTS / file_name(game)
    new, old = (AGENTS / f".{file_name(game)}.{age}" for age in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    for name in MODELS:
        (new / name).mkdir(parents=True)
        _copy(run.stage(name).path, new / name)
    (new / CARD).write_text(run.card(game) or "", encoding="utf-8")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def main(words: Sequence[str]) -> int:
    """Pack up the agent of the run whose folder is named."""
    if len(words) != 1:
        print("usage: python -m wm_jax.run.pretrained RUN", file=sys.stderr)
        return 2
    try:
        run = Run.open(Path(words[0]))
        record = run.stage("controller").manifest()
        if record is None:
            raise UserError(f"{run.path} has no controller: give a run with a trained agent")
        print(pack(run, record["config"]["game"]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
