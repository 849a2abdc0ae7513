"""The one training loop, for V, M and whatever comes: several updates per dispatch, checkpoints, exact resume.

A dispatch runs a *dynamic* number of updates of one compiled program (some networks, on a CPU, one after the other:
`one_by_one`), and the randomness of update s depends on s alone. Where training was stopped and resumed therefore
leaves no trace in the result, bit for bit on CPU.

Several processes (`distributed/processes.py`) run this loop side by side over one mesh of all their devices.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from wm_jax.config.base import TrainingConfig
from wm_jax.config.schema import Config
from wm_jax.data.frames import Batches
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed import processes
from wm_jax.distributed.mesh import batch_sharding, device_put, gather, local_replica, open_mesh, replicated
from wm_jax.distributed.progress import Progress, Stopwatch, log
from wm_jax.models.variables import combine, partition
from wm_jax.run.checkpoints import DamagedCheckpoints
from wm_jax.run.folder import Stage
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.metrics import Metrics
from wm_jax.run.stage_graph import CHAIN
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

Scalars = dict[str, jax.Array]

Report = Callable[[Any, int], dict[str, float]]
"""(parameters, step) to figures on held-out data."""


class TrainState(NamedTuple):
    """What an update changes.

    params: pytree of the model's parameters, and of its other variables if it has some (`models.variables`).
    optimizer: the state of optax; of an update of several steps, one for each of them.
    carry: what a model hands from batch to batch (M's state in carried mode), or ().
    """

    params: Any
    optimizer: Any
    carry: Any


Gradient = Callable[[Any, Any, Any, jax.Array, jax.Array], tuple[Scalars, Any, Any, Any]]
"""(params, batch, carry, key, step) -> (scalar metrics, new carry, gradients like what is learned of
`TrainState.params`, the rest of them after the update: None if there is none). Step int32[] counts updates before."""


@dataclass(frozen=True)
class OptimizerStep:
    """One of the steps that an update consists of: most have one, a model beside its adversary has two.

    Attributes:
      gradient: of what it minimises.
      optimizer: how gradients become changes.
      learned: NNX's filter of the parameters that it changes.
    """

    gradient: Gradient
    optimizer: optax.GradientTransformation
    learned: Any = nnx.Param


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
      steps: of an update, one after the other on the same batch; their metrics have different names, "loss" among the
        first one's.
      batches: where batches come from.
    """

    steps: tuple[OptimizerStep, ...]
    batches: Batches

    @staticmethod
    def single(gradient: Gradient, optimizer: optax.GradientTransformation, batches: Batches) -> "Task":
        """All parameters are changed at once."""
        return Task((OptimizerStep(gradient, optimizer),), batches)

    def start(self, params: Any, carry: Any) -> TrainState:
        """The state before the first update."""
        states = [step.optimizer.init(partition(params, step.learned)[0]) for step in self.steps]
        return TrainState(params, _one_or_all(states), carry)

    def update(self, state: TrainState, batch: Any, key: jax.Array, step: jax.Array) -> tuple[TrainState, Scalars]:
        """One update; to be called inside `jax.jit`."""
        params, carry = state.params, state.carry
        states = state.optimizer if len(self.steps) > 1 else (state.optimizer,)
        metrics: Scalars = {}
        after = []
        keys = jax.random.split(key, len(self.steps)) if len(self.steps) > 1 else [key]
        for each, optimizer, own in zip(self.steps, states, keys, strict=True):
            figures, carry, gradients, others = each.gradient(params, batch, carry, own, step)
            learned, _ = partition(params, each.learned)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with floats
                changes, optimizer = each.optimizer.update(gradients, optimizer, learned)
            params = combine(optax.apply_updates(learned, changes), others)
            metrics |= figures
            after.append(optimizer)
        return TrainState(params, _one_or_all(after), carry), metrics


def _one_or_all(states: list[Any]) -> Any:
    """The optimisers' states; of a single one itself, as checkpoints have always held it."""
    return tuple(states) if len(states) > 1 else states[0]


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


def adam(
    learning_rate: float, final: float | None, steps: int, clip: float | None = None
) -> optax.GradientTransformation:
    """Adam with a constant rate or a cosine decay to `final` over `steps`; `clip` cuts gradients by value first."""
    rate = optax.cosine_decay_schedule(learning_rate, steps, final / learning_rate) if final else learning_rate
    return optax.chain(*([optax.clip(clip)] if clip else []), optax.adam(rate))


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


class Begun(NamedTuple):
    """Where a stage goes on.

    count: what is done, in the stage's units.
    state: on the device.
    figures: of the last report or evaluation.
    reported: the count that they belong to; -1 before the first.
    watch: holds the time spent so far.
    """

    count: int
    state: Any
    figures: dict[str, Any]
    reported: int
    watch: Stopwatch

    def record(self, figures: dict[str, Any], reported: int) -> dict[str, Any]:
        """What a checkpoint says beside its state, for `resume`."""
        return {"figures": figures, "reported": reported, "seconds": self.watch.seconds()}


def resume(stage: Stage, state: Any, limit: int, unit: str) -> Begun:
    """Where a stage goes on: the newest checkpoint if there is one, else `state` at 0.

    Args:
      limit: what the setting `<stage>.<unit>s` asks for.
      unit: what the stage counts, such as "step".

    Raises:
      UserError: the checkpoint lies beyond the limit, none is intact, or processes don't share the folder.
    """
    try:
        found = processes.main_process_first(lambda: stage.checkpoints.restore(state, mend=True))
    except DamagedCheckpoints as error:
        raise UserError(f"{error}: run {CHAIN[stage.name]} anew") from None
    if other := processes.first_mismatch(found and found[2]["digest"]):
        raise UserError(
            f"{stage.run.path}: process {other} finds other checkpoints of {stage.name} there than process 0; "
            "give all of them one folder, on a file system that they share"
        )
    if found is None:
        return Begun(0, jax.device_put(state), {}, -1, Stopwatch())
    done, state, about = found
    if done > limit:
        raise UserError(
            f"{stage.name}.{unit}s {limit}: {stage.path} is at {unit} {done} already; "
            f"give at least as many, or run {CHAIN[stage.name]} anew"
        )
    log(f"{stage.name}: going on from {unit} {done:,}")
    return Begun(done, jax.device_put(state), about["figures"], about["reported"], Stopwatch(about["seconds"]))


def lay_out(task: Task, state: TrainState, mesh: Mesh) -> tuple[TrainState, Any, Callable[..., Any]]:
    """State and data as they lie on the devices that share the batch, and the dispatch (`compile_dispatch`) over them.

    The carry of a batch lies with the batch, all else is on every device.
    """
    whole, with_batch = replicated(mesh), batch_sharding(mesh, task.batches.batch_axis)
    carry = jax.tree.map(lambda leaf: batch_sharding(mesh) if jnp.ndim(leaf) else whole, state.carry)
    params, optimizer = (jax.tree.map(lambda _: whole, part) for part in (state.params, state.optimizer))
    placed = TrainState(params, optimizer, carry)
    in_one, chosen = compile_dispatch(task, placed), None
    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def dispatch(state: TrainState, data: Any, references: Any, *more: Any) -> tuple[TrainState, Scalars]:
        nonlocal chosen
        arguments = (state, data, device_put(references, with_batch), *more)
        if chosen is None:
            chosen = one_by_one(task, placed) if on_cpu and _convolves(in_one, arguments) else in_one
        return chosen(*arguments)

    return device_put(state, placed), device_put(task.batches.data, whole), dispatch


def _convolves(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Are there convolutions by XLA in this compiled function?"""

    def inside(part: Any) -> bool:
        equations = getattr(getattr(part, "jaxpr", part), "eqns", None)
        if equations is not None:
            return any(
                each.primitive.name == "conv_general_dilated" or inside([*each.params.values()]) for each in equations
            )
        return isinstance(part, list | tuple) and any(map(inside, part))

    return inside(function.trace(*arguments).jaxpr)


def compile_dispatch(task: Task, placed: TrainState | None = None) -> Callable[..., tuple[TrainState, Scalars]]:
    """The dispatch: `count` updates from `step` on, and the sums of their metrics.

    Args:
      placed: shardings of the state (None: those that it comes with).
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=(placed, None))
    def dispatch(
        state: TrainState, data: Any, references: Any, step: jax.Array, count: jax.Array, key: jax.Array
    ) -> tuple[TrainState, Scalars]:
        def body(i: jax.Array, loop: tuple[TrainState, Scalars]) -> tuple[TrainState, Scalars]:
            state, sums = loop
            state, metrics = _nth_update(task, state, data, references, step, i, key)
            return state, jax.tree.map(jnp.add, sums, metrics)

        first = partial(_nth_update, task)
        shapes = jax.eval_shape(first, state, data, references, jnp.int32(0), jnp.int32(0), key)[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (state, zeros))

    return dispatch


def one_by_one(task: Task, placed: TrainState | None = None) -> Callable[..., tuple[TrainState, Scalars]]:
    """The same dispatch with a call for each update, for networks with XLA's convolutions on a CPU.

    XLA:CPU computes those of weights' gradients a hundred times as slowly inside a loop as outside, since it brings
    only the latter into the form that its fast routine takes (https://github.com/jax-ml/jax/issues/12868).
    """

    @partial(jax.jit, donate_argnums=0, out_shardings=(placed, None))
    def update(state: TrainState, *more: Any) -> tuple[TrainState, Scalars]:
        return _nth_update(task, state, *more)

    def dispatch(
        state: TrainState, data: Any, references: Any, step: int, count: int, key: jax.Array
    ) -> tuple[TrainState, Scalars]:
        state, sums = update(state, data, references, step, 0, key)
        for i in range(1, count):
            state, metrics = update(state, data, references, step, i, key)
            sums = jax.tree.map(jnp.add, sums, metrics)
        return state, sums

    return dispatch


def _nth_update(
    task: Task,
    state: TrainState,
    data: Any,
    references: Any,
    step: int | jax.Array,
    i: int | jax.Array,
    key: jax.Array,
) -> tuple[TrainState, Scalars]:
    """Update i of the dispatch that begins at `step`."""
    reference = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), references)
    batch = task.batches.fetch(data, reference)
    return task.update(state, batch, jax.random.fold_in(key, step + i), jnp.asarray(step + i, jnp.int32))


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
