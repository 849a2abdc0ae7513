"""What can be read of a game's state from an auto-encoder's latents, where the game tells its state."""

from pathlib import Path
from typing import Any

import numpy as np

from wm_jax.config.schema import Config
from wm_jax.envs.exposed_state import ExposedState, play_exposed
from wm_jax.envs.games import find
from wm_jax.evaluation.vae_measures import disentanglement, probes
from wm_jax.rollout.exploration import plan, without_agent
from wm_jax.run.artifacts import Trained
from wm_jax.tools.compare.held_out import OTHER_SEED
from wm_jax.tools.compare.vision import sampled
from wm_jax.utils import streams

EPISODES, STEPS, KEPT = 12, 1000, 250
"""What is played: so many episodes of so many steps at most, of each of which so many frames are kept."""


def exposed_state(config: Config, path: Path) -> ExposedState | None:
    """Frames of random play with their states; played once, then read from this file."""
    if not path.exists():
        game = find(config.game, config.env)
        steps = min(STEPS, game.episode_steps)
        seeds = [streams.integer(config.seed + OTHER_SEED + number, "exposed") for number in range(EPISODES)]
        actions = [
            plan(without_agent(config.collect.policy), game.actions, seed, steps, config.collect.hold) for seed in seeds
        ]
        found = play_exposed(game, seeds, actions, KEPT)
        if found is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".part").open("wb") as file:
            np.savez_compressed(
                file, frames=found.frames, state=found.state, names=np.array(found.names), episode=found.episode
            )
        path.with_suffix(".part").replace(path)
    with np.load(path) as kept:
        frames, state, names, episode = (kept[name] for name in ExposedState._fields)
    return ExposedState(frames, state, tuple(names.tolist()), episode)


def of_state(exposed: ExposedState | None, vae: Trained) -> dict[str, Any]:
    """What a linear probe and a small network recover of the state, and how its factors lie in z.

    Of Gaussian latents samples are looked at, not means (`evaluation.vae_measures.probes`). `probes` has the R^2 of
    each factor by both; `probe_linear` and `probe_mlp` are their means over factors, those below 0 counted as 0.
    """
    if exposed is None:
        return {}
    z = sampled(vae.graphdef, vae.params, exposed.frames)
    held_out = probes.held_out(exposed.episode)
    varies = np.ptp(exposed.state, axis=0) > 0
    state = exposed.state[:, varies]
    names = [name for name, does in zip(exposed.names, varies, strict=True) if does]
    linear, mlp = (each(z, state, held_out) for each in (probes.linear_probe, probes.mlp_probe))
    dci = disentanglement.dci(z, state, held_out)
    return {
        "probe_linear": _mean(linear),
        "probe_mlp": _mean(mlp),
        "mig": disentanglement.mig(z, state),
        "sap": disentanglement.sap(z, state),
        "dci_disentanglement": dci.disentanglement,
        "dci_completeness": dci.completeness,
        "probes": {name: [float(one), float(other)] for name, one, other in zip(names, linear, mlp, strict=True)},
    }


def _mean(explained: np.ndarray) -> float:
    known = explained[np.isfinite(explained)]
    return float(np.maximum(known, 0.0).mean()) if len(known) else float("nan")
