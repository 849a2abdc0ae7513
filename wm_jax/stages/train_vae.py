"""train_vae: V learns to compress the frames of the run's replays."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.schema import Config
from wm_jax.config.vaes import CustomVaeConfig, VaeConfig
from wm_jax.data.conditions import last_actions
from wm_jax.data.episodes import SPLITS, Split
from wm_jax.data.frames import Batches, ResidentFrames, StreamedFrames
from wm_jax.data.neighbours import Neighbours
from wm_jax.data.preference import Read, preferred
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed import processes
from wm_jax.distributed.mesh import open_mesh, started, without_kernels
from wm_jax.distributed.progress import log
from wm_jax.envs.games import find, random_start_in
from wm_jax.envs.make import device_game
from wm_jax.evaluation import inspection
from wm_jax.evaluation.vae_measures import latents
from wm_jax.models.preprocess import to_float, to_uint8
from wm_jax.models.vae import Batch, Examples, Update, Vae, gradient_of
from wm_jax.render.sheets import reconstruction_sheet
from wm_jax.run.artifacts import init_vae, open_replays, pictures
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.run.starting_weights import require_start, starting_params
from wm_jax.training.generated_frames import GeneratedFrames
from wm_jax.training.loop import Report, Schedule, TrainingJob, train
from wm_jax.training.task import OptimizerStep, Task, adam
from wm_jax.utils import moving_pixels, streams
from wm_jax.utils.arrays import evenly_spaced
from wm_jax.utils.errors import UsageError
from wm_jax.utils.rare_pixels import Palette
from wm_jax.utils.sizes import FRAME_BYTES

REPORT_FRAMES = 1000
"""Frames of each split that a report is computed on."""
SHEET_FRAMES = 24
STRETCHES, STRETCH, EVERY = 30, 100, 10
"""Moving pixels are measured in so many stretches of so many held-out frames, in every tenth frame."""
DRIVING = {"policy", "hold", "random_start", "episode_steps"}
"""Settings of `collect` that decide what generated frames show."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Train until `vae.steps`; returns the summary, with the errors on training and held-out frames."""
    stage, settings = run.stage("vae"), config.vae
    accept(config)
    store = open_replays(run, config, begun=stage)
    mesh = open_mesh(config.devices, settings.batch, "vae.batch")
    graphdef, params = init_vae(without_kernels(settings, mesh), config.seed)
    params, start = starting_params(stage, settings.start_from, params)
    sheet = stage.path / "reconstructions.png"
    generated = settings.frames == "generated"

    def prepare(seed: int) -> tuple[Task, Report]:
        size = 0 if generated else store.count("train").frames
        examples = Examples.of(settings, _sample(store, "train", seed))
        vae = nnx.merge(graphdef, params)
        steps = optimizer_steps(settings, graphdef, params, size, examples)
        return Task(steps, _batches(config, store, seed, vae)), VaeEvaluator(graphdef, store, sheet, seed, size)

    job = TrainingJob(
        settings=settings,
        store=store,
        parents={"replays": store.digest, **start},
        params=params,
        carry=(),
        mesh=mesh,
        prepare=prepare,
        record={"settings": settings.model_dump(), "pictures": pictures(config)},
        extras={"train_frames": "generated" if generated else store.count("train").frames, "sheet": sheet.name},
        warn=warnings,
        also_fixed={"collect": config.collect.model_dump(include=DRIVING)} if generated else {},
    )
    return train(stage, job, config, stop)


def optimizer_steps(
    settings: VaeConfig, graphdef: Any, params: Any, size: int, examples: Examples
) -> tuple[OptimizerStep, ...]:
    """The steps of an update of V: one for each of its objectives.

    Args:
      graphdef, params: of V.
      size: frames in the training set; 0 where new ones are generated all the time.
      examples: makes the loss's batches of stored frames.
    """
    optimizer = adam(settings.learning_rate, settings.final_learning_rate, settings.steps)
    return tuple(
        OptimizerStep(gradient_of(graphdef, objective, size, examples), optimizer, objective.learned)
        for objective in nnx.merge(graphdef, params).objectives
    )


def _batches(config: Config, store: ReplayStore, seed: int, vae: Vae) -> Batches:
    if config.vae.frames == "generated":
        return _generated(config, seed)
    settings, count = config.vae, store.count("train").frames
    size = count * FRAME_BYTES
    lengths = np.array([record.frames for record in store.records if record.split == "train"])
    rows = Neighbours(lengths)
    neighbours = rows if settings.moving_weight else None
    conditions = None
    if vae.conditioned_on == "action":
        conditions = last_actions(store, "train", find(config.game, config.env).actions)

    def epoch(read: Read) -> np.ndarray | None:
        if settings.prefer == "none":
            return None
        chosen = preferred(read, rows, count, settings.prefer, Palette.of(_sample(store, "train", seed)))
        log(f"vae: an epoch of {len(chosen):,} frames, since some are repeated (--vae.prefer {settings.prefer})")
        return chosen

    if size <= config.data.device_budget_gb * 1e9:
        log(f"vae: {count:,} frames on the device ({size / 1e9:.2f} GB)")
        frames = store.frames("train")
        chosen = epoch(lambda places: frames[places])
        return ResidentFrames(frames, settings.batch, seed, neighbours, chosen, conditions)
    log(f"vae: {count:,} frames streamed ({size / 1e9:.1f} GB, above --data.device_budget_gb)")
    following, mine = Schedule.of(settings).next_stop, processes.share(settings.batch)
    read = partial(store.read, "train")
    return StreamedFrames(read, count, settings.batch, seed, following, mine, neighbours, epoch(read), conditions)


def accept(config: Config) -> None:
    """Refuse settings that V cannot be trained with, before anything is played.

    Raises:
      UsageError: there is no such custom class; or frames are to be generated, but the game is not on the device, an
        agent is to play, or something is needed that generated frames lack.
      UserError: the custom class does not keep the contract of auto-encoders.
    """
    require_start(config.vae.start_from, "vae")
    if isinstance(config.vae, CustomVaeConfig):
        started()
        init_vae(config.vae, config.seed)
    if config.vae.frames != "generated":
        return
    otherwise = "give --vae.frames replays"
    if config.env.backend != "device":
        raise UsageError(f"--vae.frames generated: only games on the device (--env.backend) have them; {otherwise}")
    if config.vae.moving_weight:
        raise UsageError(
            f"--vae.moving_weight {config.vae.moving_weight}: what moves in generated frames is not known, since they "
            f"come in random order; leave it out, or {otherwise}"
        )
    if config.vae.prefer != "none":
        raise UsageError(
            f"--vae.prefer {config.vae.prefer}: generated frames come once and cannot be repeated; leave it out, or "
            f"{otherwise}"
        )
    if config.collect.policy == "agent":
        raise UsageError(f"--vae.frames generated: the agent of --collect.policy can't play for them; {otherwise}")
    started()
    if (wanted := nnx.merge(*init_vae(config.vae, config.seed)).conditioned_on) is not None:
        raise UsageError(
            f"--vae.variant {config.vae.variant}: it also learns from each frame's {wanted}, which generated frames "
            f"come without; {otherwise}"
        )


def _generated(config: Config, seed: int) -> Batches:
    """Frames of episodes that are played while V trains."""
    game, collect = find(config.game, config.env).up_to(config.collect.episode_steps), config.collect
    random_start = random_start_in(game, collect.random_start, "--collect.random_start")
    log("vae: on frames that are played for it")
    return GeneratedFrames(
        device_game(game).for_training(random_start=random_start, endless=True),
        game.actions,
        config.vae.batch,
        seed,
        steps=game.episode_steps,
        policy=collect.policy,
        hold=collect.hold,
    )


class VaeEvaluator:
    """Measures V: errors on both splits, how it draws moving pixels, active units, and a sheet of reconstructions."""

    def __init__(self, graphdef: Any, store: ReplayStore, sheet: Any, seed: int, size: int):
        self._sheet = sheet
        self._frames = {split: _sample(store, split, seed) for split in SPLITS}
        self._stretches = _stretches(store)

        @jax.jit
        def look(params: Any, frames: jax.Array, step: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
            vae = nnx.merge(graphdef, params)
            z = vae.encode(to_float(frames)).mode()
            # The step of the last update, so that weights that change during training are the same.
            update = Update(jax.random.key(0), step, size, training=False)
            return vae.loss(Batch(frames), update)[1], z, to_uint8(vae.decode(z))

        self._look = look

    def __call__(self, params: Any, step: int) -> dict[str, float]:
        """The figures of V after `step` updates."""
        figures: dict[str, float] = {}
        for split, frames in self._frames.items():
            metrics, z, decoded = self._look(params, frames, jnp.int32(step))
            figures |= {f"{split}_{name}": float(metrics[name]) for name in ("reconstruction", "kl")}
            if split == "test":
                figures["active_units"] = latents.active_units(np.asarray(z))
                reconstruction_sheet(frames[:SHEET_FRAMES], np.asarray(decoded)[:SHEET_FRAMES], self._sheet)
        moving = moving_pixels.Moving.concatenate([self._motion(params, step, frames) for frames in self._stretches])
        return figures | {"test_moving_explained": moving.explained}

    def _motion(self, params: Any, step: int, frames: np.ndarray) -> moving_pixels.Moving:
        """How V draws the moving pixels of consecutive frames."""
        padded = np.zeros((STRETCH, *frames.shape[1:]), np.uint8)
        padded[: len(frames)] = frames
        decoded = np.asarray(self._look(params, padded, jnp.int32(step))[2])[: len(frames)]
        return moving_pixels.moving(frames, decoded, np.arange(0, len(frames), EVERY))


def _stretches(store: ReplayStore) -> list[np.ndarray]:
    """Stretches of consecutive held-out frames uint8 [F, 64, 64, 3], from the middles of evenly spaced episodes."""
    lengths = np.array([record.frames for record in store.records if record.split == "test"])
    found = []
    for i in evenly_spaced(len(lengths), STRETCHES).tolist():
        count = min(int(lengths[i]), STRETCH)
        first = int(lengths[:i].sum()) + (int(lengths[i]) - count) // 2
        found.append(store.read("test", np.arange(first, first + count)))
    return found


def warnings(figures: dict[str, Any]) -> list[str]:
    """What a user of this V must know, with the remedy."""
    found = []
    train, test = figures["train_reconstruction"], figures["test_reconstruction"]
    if test > inspection.FAR_ERROR * train:
        found.append(
            f"V's error is {test:,.4g} on held-out frames, {test / train:.1f} times that on training frames "
            f"({train:,.4g}): it learned these frames by heart. Collect more of them (--collect.frames), then train it "
            "anew with --fresh"
        )
    # NaN where nothing moves, which is saved as null; no figure at all where an earlier version trained V.
    moving = figures.get("test_moving_explained")
    if moving is not None and moving < inspection.LITTLE_MOVING:
        found.append(
            f"V draws {max(moving, 0):.0%} of what moves in held-out frames (of its variance around the "
            "background): small objects are missing, see reconstructions.png. Train it longer, on more frames, or with "
            "--vae.moving_weight"
        )
    return found


def _sample(store: ReplayStore, split: Split, seed: int) -> np.ndarray:
    count = store.count(split).frames
    random = streams.generator(seed, "report", split)
    return store.read(split, random.choice(count, size=min(REPORT_FRAMES, count), replace=False))
