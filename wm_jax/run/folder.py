"""One run's folder: where each stage reads and writes, and what made what.

    runs/enduro-quick/
      replays/      episodes                        (data/replay.py)
      vae/          stage.json  checkpoints/  weights/  metrics.jsonl  summary.json
      latents/      what V sees in the replays      (data/latents.py)
      memory/  controller/                          like vae/
      evaluation/   scores, plots, videos
      dream/        films of dreams
      named/NAME/   models of a name of their own, a run whose base this is
      MODEL_CARD.md what was trained, how well it does, how to use it
      base.json     another run, from which this one takes what it does not make itself
      discarded/    what --fresh moved aside

`stage.json` names the settings and the parents (by content) that made a stage's artifact. Going on with other
settings, or with parents that have changed since, is an error that names both. It and `summary.json` carry a checksum
of themselves, so that a stage never goes on from half of what it was.

Of several processes (`distributed/processes.py`) the main one alone looks at these records and writes them; the others
get its answers.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_jax.distributed import processes
from wm_jax.distributed.progress import Stopwatch, log
from wm_jax.run import card
from wm_jax.run.checkpoints import Checkpoints
from wm_jax.run.provenance import identity, made_with, now, require_same
from wm_jax.run.stage_graph import CHAIN, PARENTS
from wm_jax.run.weights import Weights
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import lock, plain, read_manifest, write_atomically, write_manifest

EMPTY_STAGE_FILES = {"stage.json", "metrics.jsonl", "metrics.tmp", "tensorboard", "seconds.json"}
"""What a stage's folder holds before its first checkpoint."""
BASE = "base.json"
"""Where a run says which one is its base, by the way there."""
NAMED = "named"
MADE = ("round", "member", "temperature", "compare")
"""What the names of runs begin with that commands make, such as round-2; what a user names is called otherwise."""


@dataclass(frozen=True)
class Stage:
    """One stage's folder inside a run."""

    run: "Run"
    name: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.run.path / self.name

    @property
    def checkpoints(self) -> Checkpoints:
        """Full states, for going on."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def weights(self) -> Weights:
        """Parameters alone, for the stages downstream."""
        return Weights(self.path / "weights")

    def manifest(self) -> dict[str, Any] | None:
        """The content of `stage.json`, or None when the stage was never started, or is to start anew."""
        return self.record("stage.json")

    def summary(self) -> dict[str, Any] | None:
        """What the finished stage said of itself, or None while it is unfinished, or when it is to start anew."""
        return self.record("summary.json")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Mark the stage finished, and say so on the run's card."""
        self.write_record("summary.json", summary)
        self.run.write_card()

    @processes.on_main_process
    def finished(self, unit: str, enough: int, template: Any) -> dict[str, Any] | None:
        """The summary of a stage that did `enough` and whose weights are whole; else None, and there is work to do.

        Args:
          unit: what the summary counts, such as "steps".
          template: a pytree of arrays shaped like the weights.

        Raises:
          UserError: there is work to do, but nothing to go on from.
        """
        done = self.summary()
        if done is None:
            return None
        whole = self.weights.holds(done["weights"], template)
        if whole and done[unit] >= enough:
            return done
        if not self.checkpoints.steps():
            raise UserError(
                f"{self.path} has {done[unit]:,} {unit} behind it, but its checkpoints are lost"
                f"{'' if whole else ', and its weights are lost or damaged'}: restore {self.checkpoints.folder.name}/, "
                f"or run {CHAIN[self.name]} anew to move the folder aside"
            )
        if not whole:
            log(f"{self.name}: its weights are lost or damaged; writing them again from its checkpoints")
        return None

    @processes.on_main_process
    def check(self, settings: Mapping[str, Any], parents: Mapping[str, Any]) -> None:
        """See that what is there, if anything, was made the same way; a stage that is to start anew may differ.

        Args:
          settings: what must stay the same for the artifact to be continued.
          parents: identity of each artifact that it is made from.

        Raises:
          UserError: see `provenance.require_same`.
        """
        if self._is_old() or self._is_bare():
            return
        found = self.manifest()
        if found is None:
            if self.path.is_dir() and any(self.path.iterdir()):
                raise self.lost_record()
            return
        current, anew = identity(settings, parents), f"run {CHAIN[self.name]} anew to move it aside"
        require_same(self.path, found["settings"], current["settings"], "use another run", anew, first=self.name)
        require_same(self.path, found["parents"], current["parents"], "use another run", anew, mend="restore it")

    def lost_record(self) -> UserError:
        """The error for a stage whose folder holds something, but no `stage.json`."""
        return UserError(
            f"{self.path} has lost its stage.json, which says how it was made: restore that file, "
            f"or run {CHAIN[self.name]} anew to move the folder aside"
        )

    @processes.on_main_process
    def claim(self, settings: Mapping[str, Any], parents: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Start the stage's artifact, or go on with what is there; to be called after whatever else may be refused.

        What is to start anew is moved aside here, so that a command that is refused has moved nothing.

        Args:
          settings, parents: see `check`.
          config: all resolved settings, kept as a record.

        Raises:
          UserError: see `check`.
        """
        self.check(settings, parents)
        self.start_anew()
        if self.manifest() is None or self._is_bare():
            record = {"stage": self.name, **identity(settings, parents), "config": self._noted(config)}
            self.write_record("stage.json", {**record, "made_with": made_with(), "created": now()})

    def note(self, config: Mapping[str, Any]) -> None:
        """Record the settings in force now, after a resume, for those that may change."""
        record = self.manifest()
        if record is not None and record["config"] != (noted := self._noted(config)):
            self.write_record("stage.json", {**record, "config": noted})

    def _noted(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings for the record. Where it began stays there, also if a later command does not say so again."""
        noted, before = plain(config), (self.manifest() or {}).get("config", {})
        began = before.get(self.name, {}).get("start_from")
        if began is not None and noted[self.name]["start_from"] is None:
            noted[self.name] = {**noted[self.name], "start_from": began}
        return noted

    def _is_bare(self) -> bool:
        """Was the stage begun, and stopped before there was anything to keep? Then other settings do no harm."""
        return (self.path / "stage.json").exists() and {path.name for path in self.path.iterdir()} <= EMPTY_STAGE_FILES

    def start_anew(self) -> None:
        """If this stage is to start anew: move aside everything that the command makes anew."""
        if self.name not in self.run.old:
            return
        with contextlib.ExitStack() as locks:
            stages = [self.run.stage(name) for name in self.run.anew]
            for stage in stages:
                if stage != self:
                    locks.enter_context(stage.lock())
            for stage in stages:
                log(f"moved the old {stage.name} to {stage._move_aside()}")
        self.path.mkdir(exist_ok=True)

    def _is_old(self) -> bool:
        """Is this still the folder that --fresh found, which is to be moved aside?"""
        old = self.run.old.get(self.name)
        return old is not None and old == _identity_of(self.path)

    def _move_aside(self) -> Path:
        """Nothing is deleted: the folder goes into `discarded/`."""
        target = self._discarded()
        shutil.move(self.path, target)
        return target

    def _discarded(self) -> Path:
        """A name in `discarded/` that is free."""
        target = self.run.path / "discarded" / f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        while target.exists():
            target = target.with_name(target.name + "x")
        target.parent.mkdir(exist_ok=True)
        return target

    def set_all_aside(self) -> None:
        """Move what was begun and never finished into `discarded/`, as a whole."""
        log(f"moved the unfinished {self.name} to {self._move_aside()}")
        self.path.mkdir()

    def set_aside(self, *names: str) -> None:
        """Move some of the stage's files into `discarded/`, those that are there."""
        there = [name for name in names if (self.path / name).exists()]
        if there:
            target = self._discarded()
            target.mkdir()
            for name in there:
                shutil.move(self.path / name, target / name)
            log(f"moved the old {', '.join(there)} to {target}")

    def write_record(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file that carries a checksum of itself; the main process does."""
        if processes.is_main_process():
            write_manifest(self.path / name, plain(content), indent=2)

    @processes.on_main_process
    def record(self, name: str) -> dict[str, Any] | None:
        """What `write_record` wrote, or None when there is no such file, or when the stage is to start anew.

        Raises:
          UserError: it is damaged.
        """
        if self._is_old():
            return None
        remedy = f"restore it, or run {CHAIN[self.name]} anew"
        try:
            return read_manifest(self.path / name, remedy)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def timed(self) -> Iterator[Stopwatch]:
        """A stopwatch for work without checkpoints: it holds the seconds of earlier processes that were not killed."""
        before = 0.0
        with contextlib.suppress(UserError):  # a damaged record of the time is no reason to stop
            before = (self.record("seconds.json") or {}).get("seconds", 0.0)
        watch = Stopwatch(before)
        try:
            yield watch
        finally:
            self.write_record("seconds.json", {"seconds": watch.seconds()})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the stage for this process, and for those that work with it.

        Raises:
          UserError: another process holds it.
        """
        if not processes.is_main_process():
            yield
            return
        self.run.make()
        descriptor = lock(self.run.path / f".{self.name}.lock", str(self.path))
        try:
            self.path.mkdir(exist_ok=True)
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Run:
    """A run's folder.

    path: where it is; made when the first stage starts.
    old: names of the artifacts that the command makes anew (--fresh), each with what tells its old folder from the one
      that takes its place (`_identity_of`). Where the old one lies there still, it counts as not there, and
      `Stage.claim` moves it aside.
    base: the run that it takes from what it does not make itself, such as replays.
    makes: names of the artifacts that the command makes, which are therefore its own.
    """

    path: Path
    old: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    base: "Run | None" = None
    makes: frozenset[str] = frozenset()

    @staticmethod
    def open(path: Path, base: Path | None = None, *, makes: Iterable[str] = (), anew: Iterable[str] = ()) -> "Run":
        """A run, with the base that it was begun with.

        Args:
          base: folder of another run.
          makes: see `Run`.
          anew: artifacts that are to be made anew, whatever of them is there now.

        Raises:
          UserError: the base is none, is another one than before, or is built on this run.
        """
        recorded = _recorded_base(path)
        if base is not None and recorded is not None and recorded.resolve() != base.resolve():
            raise UserError(f"base {base}: {path} was begun with {recorded}; leave it out, or use another run")
        chosen, seen = base or recorded, {path.resolve()}
        below = chosen
        while below is not None:
            if below.resolve() in seen:
                raise UserError(f"base {chosen}: that is built on {path} itself; give another base")
            if not below.is_dir():
                raise UserError(f"base {below}: there is no such run; restore it, or give a run's folder")
            seen.add(below.resolve())
            below = _recorded_base(below)
        old = {name: _identity_of(path / name) for name in anew}
        return Run(path, old, None if chosen is None else Run.open(chosen), frozenset(makes))

    def named(self, name: str, *, makes: Iterable[str] = (), anew: Iterable[str] = ()) -> "Run":
        """A run for models of a name of their own, whose base this one is.

        Args:
          makes, anew: see `open`.
        """
        return Run.open(self.path / NAMED / name, self.path, makes=makes, anew=anew)

    def all_named(self) -> list[str]:
        """The names of the runs that are named here, in their order."""
        folder = self.path / NAMED
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    @property
    def anew(self) -> list[str]:
        """The artifacts that are still to be moved aside."""
        return [name for name in self.old if self.stage(name)._is_old()]

    def make(self) -> None:
        """Create the folder.

        Raises:
          UserError: it can't be created or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, NotADirectoryError) as error:
            raise UserError(f"run {self.path}: can't be created ({error.strerror}); give another folder") from None
        if not os.access(self.path, os.W_OK):
            raise UserError(f"run {self.path}: not writable; give another folder or change its permissions")
        if self.base is not None and processes.is_main_process() and not (self.path / BASE).exists():
            where = os.path.relpath(self.base.path.resolve(), self.path.resolve())
            write_manifest(self.path / BASE, {"base": where}, indent=2)

    def card(self, name: str) -> str | None:
        """The run's model card, or None where there is nothing to say yet.

        Args:
          name: by which it is loaded.
        """
        records = {}
        for part in (*card.PARTS, "evaluation"):
            with contextlib.suppress(UserError):  # a damaged record is for the stage that needs it to name
                manifest, summary = self.stage(part).manifest() or {}, self.stage(part).summary() or {}
                if card.is_complete(part, manifest, summary):
                    records[part] = manifest, summary
        return card.card(records, name) if any(part in records for part in card.PARTS) else None

    def write_card(self) -> None:
        """Write `MODEL_CARD.md`, if there is something to say. All processes ask what, the main one writes."""
        text = self.card(str(self.path))
        if text is not None and processes.is_main_process():
            write_atomically(self.path / card.NAME, text.encode())

    def stage(self, name: str) -> Stage:
        """The folder of one of the artifacts of `stage_graph.CHAIN`: this run's, or its base's."""
        if name not in CHAIN:
            raise KeyError(name)
        if self.base is None or self._is_own(name):
            return Stage(self, name)
        return self.base.stage(name)

    def _is_own(self, name: str) -> bool:
        """Is the artifact made here? So it is once something that it is made from is, and where the base lacks it."""
        assert self.base is not None
        if name in self.makes or (self.path / name).exists() or any(map(self._is_own, PARENTS[name])):
            return True
        return self.base.stage(name).summary() is None


def _recorded_base(path: Path) -> Path | None:
    """The run that one was begun with as its base."""
    if not (path / BASE).exists():
        return None
    return path / read_manifest(path / BASE, "restore it, or use another run")["base"]


def _identity_of(folder: Path) -> tuple[int, int] | None:
    """What a folder keeps wherever it is moved, and no other has; None if there is nothing in it."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    found = folder.stat()
    return found.st_dev, found.st_ino
