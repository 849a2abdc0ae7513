"""The one training loop, for V, M and whatever comes: several updates per dispatch, checkpoints, exact resume.

The randomness of update s depends on s alone (`dispatch.py`). Where training was stopped and resumed therefore leaves
no trace in the result, bit for bit on CPU.

Several processes (`distributed/processes.py`) run this loop side by side over one mesh of all their devices.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from wm_jax.config.base import TrainingConfig
from wm_jax.config.schema import Config
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed import processes
from wm_jax.distributed.mesh import device_put, gather, local_replica, open_mesh, replicated
from wm_jax.distributed.progress import Progress, log
from wm_jax.run.folder import Stage
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.metrics import Metrics
from wm_jax.run.resume import resume
from wm_jax.run.stage_graph import CHAIN
from wm_jax.training.dispatch import lay_out
from wm_jax.training.task import Scalars, Task
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

Report = Callable[[Any, int], dict[str, float]]
"""(parameters, step) to figures on held-out data."""


@dataclass(frozen=True)
class TrainingJob:
    """What a stage trains, and on what.

    Attributes:
      settings: its section of the settings.
      store: the replays.
      parents: identity of each artifact that it is made from.
      params: initial parameters.
      carry: initial carry of `TrainState`.
      mesh: the devices that share the batch.
      prepare: opens the data, for a given seed of the training: the task, and the report of `fit`.
      record: kept with the weights.
      extras: further entries of the summary.
      examine: the trained parameters to such entries.
      warn: the last report's figures to what must be known of them, one sentence each.
      also_fixed: settings of other sections that must stay the same while this is gone on with.
      claimed: called by all processes once the stage is accepted and its old artifact, if it is made anew, moved aside.
    """

    settings: TrainingConfig
    store: ReplayStore
    parents: dict[str, str]
    params: Any
    carry: Any
    mesh: Mesh
    prepare: Callable[[int], tuple[Task, Report]]
    record: dict[str, Any]
    extras: dict[str, Any]
    examine: Callable[[Any], dict[str, Any]] = lambda _: {}
    warn: Callable[[dict[str, float]], list[str]] = lambda _: []
    also_fixed: dict[str, Any] = field(default_factory=dict)
    claimed: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Schedule:
    """When things happen, counted in updates."""

    steps: int
    per_dispatch: int
    save_every: int
    report_every: int

    @staticmethod
    def of(settings: TrainingConfig) -> "Schedule":
        """The schedule that a stage's settings ask for."""
        return Schedule(settings.steps, settings.steps_per_dispatch, settings.save_every, settings.report_every)

    def next_stop(self, step: int) -> int:
        """Where the dispatch that starts at `step` ends: always the same places, wherever training was resumed."""
        periods = (self.per_dispatch, self.save_every, self.report_every)
        return min(self.steps, *(step // period * period + period for period in periods))


def train(stage: Stage, job: TrainingJob, config: Config, stop: Stop) -> dict[str, Any]:
    """Train a stage to its end, from wherever it is; returns its summary.

    Raises:
      Interrupted, UserError: see `fit`; or the stage was made with other settings or from other parents.
    """
    settings, count = job.settings, job.store.count().episodes
    # A decaying learning rate depends on how many steps there are.
    length = {"steps": settings.steps} if settings.final_learning_rate else {}
    identity = {"seed": config.seed, stage.name: settings.fixed() | length, "episodes": count, **job.also_fixed}
    with stage.lock():
        stage.check(identity, job.parents)
        if (done := stage.finished("steps", settings.steps, job.params)) is not None:
            _say_finished(stage, done, job.store)
            return done
        seed = streams.integer(config.seed, stage.name, "train")
        task, report = job.prepare(seed)
        stage.claim(identity, job.parents, config.model_dump())
        job.claimed()
        stage.note(config.model_dump())
        params, figures = fit(
            task,
            job.params,
            job.carry,
            schedule=Schedule.of(settings),
            stage=stage,
            seed=seed,
            stop=stop,
            report=report,
            mesh=job.mesh,
        )
        digest = stage.weights.save(settings.steps, params, job.record)
        warnings = job.warn(figures)
        for warning in warnings:
            log(f"warning: {warning}")
        found = {**figures, **job.extras, **job.examine(params)}
        summary = {"steps": settings.steps, **found, "warnings": warnings, "weights": digest}
        stage.write_summary(summary)
        return summary


def _say_finished(stage: Stage, done: dict[str, Any], store: ReplayStore) -> None:
    """There is nothing left to train; but there may be replays that it has not seen."""
    line = f"{stage.name}: trained already ({done['steps']:,} steps)"
    if store.unseen:
        seen = store.count().episodes
        line += (
            f" on the first {seen:,} of {seen + store.unseen:,} episodes; run {CHAIN[stage.name]} anew to train on all"
        )
    log(line)


def fit(
    task: Task,
    params: Any,
    carry: Any,
    *,
    schedule: Schedule,
    stage: Stage,
    seed: int,
    stop: Stop,
    report: Report,
    mesh: Mesh | None = None,
) -> tuple[Any, dict[str, float]]:
    """Train until `schedule.steps`, from the stage's newest checkpoint if there is one.

    Args:
      task: its `batches` are closed at the end.
      params: initial parameters (`TrainState.params`), used when there is no checkpoint; they stay the caller's.
      carry: initial carry, likewise.
      report: called every `report_every` updates and at the end; returns figures to record.
      mesh: the devices that share the batch (None: the first one alone).

    Returns:
      the trained parameters, and the last report with the `seconds` that training took in all processes (compiling
      and reporting included) and the rate that this makes, `steps_per_second`.

    Raises:
      Interrupted: the user asked to stop; the state is saved.
      UserError: the loss is no longer finite; the last good checkpoint is kept.
    """
    # Copied, since a dispatch gives up the state that it is given, and these arrays are the caller's.
    start = jax.tree.map(jnp.copy, task.start(params, carry))
    begun = resume(stage, start, schedule.steps, "step")
    step, figures, reported = begun.count, begun.figures, begun.reported
    mesh = mesh or open_mesh(1, 1, "")
    if (there := jax.device_count()) > 1:
        log(f"{stage.name}: every batch is shared by {mesh.size} of {there} devices")
    state, data, dispatch = lay_out(task, begun.state, mesh)
    checkpoints, look = stage.checkpoints, processes.on_main_process(report)
    key = device_put(jax.random.key(seed), replicated(mesh))
    with (
        contextlib.closing(task.batches),
        Metrics(stage.path, resume_at=step) as metrics,
        Progress(stage.name, schedule.steps, "step", done=step) as progress,
    ):
        saved, pending = step, None
        while step < schedule.steps:
            until = schedule.next_stop(step)
            references = task.batches.references(step, until - step, schedule.per_dispatch)
            state, sums = dispatch(state, data, references, step, until - step, key)
            # The previous dispatch is looked at while this one runs.
            if pending is not None:
                _record(*pending, metrics, progress, stage)
            pending = (until, until - step, sums)
            step = until
            # Decided once, so that whoever stops below was saved here.
            stopping = stop.agreed()
            reporting = step % schedule.report_every == 0 or step == schedule.steps
            saving = step > saved and (stopping or step % schedule.save_every == 0 or step == schedule.steps)
            if reporting or saving:
                _record(*pending, metrics, progress, stage)
                pending = None
            if reporting:
                figures, reported = look(local_replica(state.params), step), step
                # On the curves, training is the running mean of every dispatch.
                metrics.write(step, **{name: value for name, value in figures.items() if not name.startswith("train_")})
            if saving:
                _refuse_non_finite(state.params, step, stage)
                checkpoints.save(step, gather(state), begun.record(figures, reported))
                processes.wait()  # so that nobody waits in the next dispatch for one that could not save
                saved = step
            if stopping:
                raise Interrupted
    params = local_replica(state.params)
    if reported != step:  # an earlier process was stopped right here, before there was anything to report
        figures = look(params, step)
    seconds = begun.watch.seconds()
    return params, {**figures, "steps_per_second": round(step / max(seconds, 0.1), 3), "seconds": seconds}


def _record(step: int, count: int, sums: Scalars, metrics: Metrics, progress: Progress, stage: Stage) -> None:
    means = {name: float(total) / count for name, total in sums.items()}
    if not np.isfinite(means["loss"]):
        _stop_non_finite("loss", step, stage)
    metrics.write(step, **{f"train_{name}": value for name, value in means.items()})
    progress.advance(count, **means)


def _refuse_non_finite(params: Any, step: int, stage: Stage) -> None:
    numbers = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in numbers):
        _stop_non_finite("weights", step, stage)


def _stop_non_finite(what: str, step: int, stage: Stage) -> None:
    kept = stage.checkpoints.steps()
    raise UserError(
        f"{stage.name}: the {what} stopped being finite before step {step}; "
        + (f"step {kept[-1]} is kept" if kept else "nothing was saved yet")
        + f": lower {stage.name}.learning_rate and run {CHAIN[stage.name]} anew"
    )
