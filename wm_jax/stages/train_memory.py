"""train_memory: M learns to predict the next latent from this one and the action."""

from pathlib import Path
from typing import Any

import jax
from flax import nnx

from wm_jax.config.schema import Config, CustomMemoryConfig
from wm_jax.data.episodes import SPLITS
from wm_jax.data.frames import Batches
from wm_jax.data.sequences import FlatLatents, SequenceBatches, StreamedSequences, flat_latents
from wm_jax.distributed import processes
from wm_jax.distributed.mesh import open_mesh, started, without_kernels
from wm_jax.distributed.progress import log
from wm_jax.envs.families import NO_ACTIONS
from wm_jax.envs.games import find
from wm_jax.evaluation import prediction
from wm_jax.models.memory import gradient_of, make_cell
from wm_jax.run.artifacts import init_memory, latent_like, load_vae, open_latents, open_replays
from wm_jax.run.dreams import member_run, member_seed, members
from wm_jax.run.folder import Run, Stage
from wm_jax.run.interrupt import Stop
from wm_jax.run.starting_weights import require_start, starting_params
from wm_jax.training.loop import Report, Schedule, TrainingJob, train
from wm_jax.training.task import Task, adam
from wm_jax.utils.errors import UsageError

REPORT_BATCHES = 4
"""Held-out batches that a report looks at."""


def accept(config: Config) -> None:
    """Refuse recordings without actions, and a class that is no cell, before anything is played.

    Raises:
      UsageError: there is nothing for M to learn.
      UserError: there is no cell of that name, or it makes something else.
    """
    require_start(config.memory.start_from, "memory")
    game = find(config.game, config.env)
    if game.actions.names == NO_ACTIONS:
        raise UsageError(
            f"{game.name}: it was imported without actions, and M learns what follows them: V is all there is"
        )
    if isinstance(config.memory, CustomMemoryConfig):
        started()
        make_cell(config.memory, config.vae.latent + 1, nnx.Rngs(0))


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Train until `memory.steps`, and further M's for dreams of several; returns the negative log-likelihoods."""
    summary = _train(config, run, stop)
    for number in range(2, config.dream.members + 1):
        stop.check()
        log(f"memory: member {number} of {config.dream.members} that dream")
        _train(_of_member(config, number), member_run(run, number), stop, run.stage("memory"))
    return summary


@processes.on_main_process
def _set_members_aside(run: Run) -> None:
    """The further M's of a first one that was made anew are of no use to the new one."""
    for number in members(run):
        stage = member_run(run, number, anew=True).stage("memory")
        with stage.lock():
            stage.start_anew()


def _of_member(config: Config, number: int) -> Config:
    """The settings of a further M. It begins with the weights of that of the same number, if the first one does so."""
    start_from = config.memory.start_from
    if start_from is not None:
        other = member_run(Run.open(Path(start_from).expanduser()), number)
        start_from = str(other.path) if other.stage("memory").summary() is not None else None
    memory = config.memory.model_copy(update={"start_from": start_from})
    return config.model_copy(update={"seed": member_seed(config.seed, number), "memory": memory})


def _train(config: Config, run: Run, stop: Stop, first: Stage | None = None) -> dict[str, Any]:
    """Train one M.

    Args:
      first: the stage of the first M, if this is a further one: it sees the same replays.
    """
    stage, settings = run.stage("memory"), config.memory
    anew = first is None and processes.on_main_process(lambda: "memory" in run.anew)()
    game = find(config.game, config.env)
    vae, store = load_vae(run, config), open_replays(run, config, begun=first or stage)
    latents = open_latents(run, store, vae.digest)
    mesh = open_mesh(config.devices, settings.batch, "memory.batch")
    kind, like = vae.model().latent_kind, latent_like(vae)
    graphdef, params = init_memory(without_kernels(settings, mesh), kind, game.actions.size, config.seed)
    params, start = starting_params(stage, settings.start_from, params)
    parents = {"vae": vae.digest, "replays": store.digest, **start}
    carried = settings.carry_state

    def prepare(seed: int) -> tuple[Task, Report]:
        optimizer = adam(settings.learning_rate, settings.final_learning_rate, settings.steps, settings.clip)
        seen, unseen = (flat_latents(latents, like, store, game.actions, split) for split in SPLITS)
        train, test = _batches(config, seen, unseen, seed)
        return Task.single(gradient_of(graphdef, carried), optimizer, train), _reporter(graphdef, test, settings.batch)

    def examine(params: Any) -> dict[str, Any]:
        unseen = flat_latents(latents, like, store, game.actions, "test")
        return prediction.figures((vae.graphdef, vae.params), (graphdef, params), unseen)

    job = TrainingJob(
        settings=settings,
        store=store,
        parents=parents,
        params=params,
        carry=nnx.merge(graphdef, params).init_carry(settings.batch),
        mesh=mesh,
        prepare=prepare,
        record={"settings": settings.model_dump(), "parents": parents, "actions": list(game.actions.names)},
        extras={},
        examine=examine,
        claimed=(lambda: _set_members_aside(run)) if anew else lambda: None,
    )
    return train(stage, job, config, stop)


def _batches(config: Config, seen: FlatLatents, unseen: FlatLatents, seed: int) -> tuple[Batches, Batches]:
    """Those to train on, and those of the report, from latents on the device if all of them fit there."""
    settings = config.memory
    windows = (settings.sequence, settings.batch, seed)
    size = sum(array.nbytes for array in jax.tree.leaves((seen, unseen)))
    if size <= config.data.device_budget_gb * 1e9:
        return SequenceBatches(seen, *windows, settings.carry_state), SequenceBatches(unseen, *windows, carried=False)
    log(f"memory: {size / 1e9:.1f} GB of latents streamed, above --data.device_budget_gb")
    return (
        StreamedSequences(seen, *windows, settings.carry_state, Schedule.of(settings).next_stop),
        StreamedSequences(unseen, *windows, carried=False, following=lambda step: step),
    )


def _reporter(graphdef: Any, batches: Batches, batch: int) -> Report:
    """Held-out losses, on the same windows and noise at every report."""

    @jax.jit
    def look(params: Any, data: Any, references: Any, key: jax.Array) -> Any:
        model, reference = nnx.merge(graphdef, params), jax.tree.map(lambda leaf: leaf[0], references)
        batch_of = batches.fetch(data, reference)
        return model.loss(batch_of, model.init_carry(batch), key, training=False)[1][0]

    def report(params: Any, step: int) -> dict[str, float]:
        references = [batches.references(i, 1, 1) for i in range(REPORT_BATCHES)]
        rows = [look(params, batches.data, each, jax.random.key(i)) for i, each in enumerate(references)]
        return {f"test_{name}": float(sum(row[name] for row in rows)) / len(rows) for name in rows[0]}

    return report
