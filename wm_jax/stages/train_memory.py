"""train_memory: M learns to predict the next latent from this one and the action."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax import streams
from wm_jax.artefacts import init_memory, load_vae, misfit, missing, open_replays, say_finished
from wm_jax.config import Config
from wm_jax.data.episodes import SPLITS, Split
from wm_jax.data.latents import LatentStore
from wm_jax.data.replay import ReplayStore
from wm_jax.data.sequences import FlatLatents, SequenceBatches
from wm_jax.envs.games import Game, find
from wm_jax.interrupt import Stop
from wm_jax.models.controller import encode_action
from wm_jax.models.memory import loss_and_grad
from wm_jax.run import Run
from wm_jax.training import Schedule, Task, adam, fit

PACING = {"steps", "steps_per_dispatch", "save_every", "report_every", "fast_kernels"}
"""Settings that say how far and how fast, not what is trained."""
REPORT_BATCHES = 4
"""Held-out batches that a report looks at."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Train until `memory.steps`; returns the negative log-likelihoods."""
    stage, settings = run.stage("memory"), config.memory
    game = find(config.game, config.env)
    vae, store = load_vae(run, config), open_replays(run, config, begun=stage)
    latents = _latents(run, store, vae.digest)
    pacing = PACING - {"steps"} if settings.final_learning_rate else PACING
    identity = {
        "seed": config.seed,
        "memory": settings.model_dump(exclude=pacing),
        "episodes": store.count().episodes,
    }
    parents = {"vae": vae.digest, "replays": store.id}
    with stage.lock():
        stage.check(identity, parents)
        latent = vae.about["settings"]["latent"]
        graphdef, params = init_memory(settings, latent, game.actions.size, config.seed)
        if (done := stage.finished("steps", settings.steps, params)) is not None:
            say_finished(stage, done, "steps", store)
            return done
        seed = streams.integer(config.seed, "memory", "train")
        train, test = (flat(latents, store, game, split) for split in SPLITS)
        stage.claim(identity, parents, config.model_dump())
        length, carried = settings.sequence, settings.carry_state
        params, figures = fit(
            Task(
                _gradient(graphdef, carried),
                adam(settings.learning_rate, settings.final_learning_rate, settings.steps, settings.clip),
                SequenceBatches(train, length, settings.batch, seed, carried),
            ),
            params,
            nnx.merge(graphdef, params).init_carry(settings.batch),
            schedule=Schedule(settings.steps, settings.steps_per_dispatch, settings.save_every, settings.report_every),
            stage=stage,
            seed=seed,
            unit="step",
            stop=stop,
            report=_reporter(graphdef, SequenceBatches(test, length, settings.batch, seed, False), settings.batch),
        )
        digest = stage.weights.save(
            settings.steps,
            params,
            {"settings": settings.model_dump(), "parents": parents, "actions": list(game.actions.names)},
        )
        summary = {
            "steps": settings.steps,
            **figures,
            "weights": digest,
        }
        stage.write_summary(summary)
        return summary


def flat(latents: LatentStore, store: ReplayStore, game: Game, split: Split) -> FlatLatents:
    """The latents of a split as arrays for training, actions as M sees them."""
    parts = latents.flat(store, split)
    action = encode_action(game.actions, jnp.asarray(parts.action)) * jnp.asarray(parts.acted, jnp.float32)[:, None]
    done = parts.done.astype(np.float32)
    return FlatLatents(parts.mean, parts.log_var, jax.device_get(action), parts.reward, done, parts.offsets)


def _latents(run: Run, store: ReplayStore, vae: str) -> LatentStore:
    found = run.stage("latents").manifest()
    if found is None:
        raise missing(run, "latents")
    for parent, identity in (("vae", vae), ("replays", store.id)):
        if found["parents"][parent] != identity:
            raise misfit(run, "latents", parent, found["parents"][parent], identity)
    return LatentStore.open(run.stage("latents").path)


def _gradient(graphdef: Any, carried: bool) -> Any:
    def gradient(params: Any, batch: Any, carry: Any, key: jax.Array) -> tuple[Any, Any, Any]:
        metrics, after, gradients = loss_and_grad(graphdef, params, batch, carry, key)
        return metrics, after if carried else carry, gradients

    return gradient


def _reporter(graphdef: Any, batches: SequenceBatches, batch: int) -> Any:
    """Held-out losses, on the same windows and noise at every report."""

    @jax.jit
    def look(params: Any, data: Any, places: Any, key: jax.Array) -> Any:
        model = nnx.merge(graphdef, params)
        return model.loss(batches.fetch(data, places), model.init_carry(batch), key)[1][0]

    def report(params: Any, step: int) -> dict[str, float]:
        rows = [look(params, batches.data, batches.places(i), jax.random.key(i)) for i in range(REPORT_BATCHES)]
        return {f"test_{name}": float(sum(row[name] for row in rows)) / len(rows) for name in rows[0]}

    return report
