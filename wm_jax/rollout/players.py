"""Who plays the episodes of the replays: random play, or an agent; and how whoever played once plays again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wm_jax.config.schema import CollectConfig, Config, current_names
from wm_jax.envs.games import random_start_in
from wm_jax.envs.types import Game
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.exploration import RandomPolicy
from wm_jax.rollout.types import Policy
from wm_jax.run.artifacts import KeptControllers, load_controllers
from wm_jax.run.folder import Run
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError

UNNAMED = {"random_start": False, "noise": 0.0, "dream_share": 0.0}
"""What a player does that does not say so: settings that stores of earlier versions know nothing of."""


@dataclass(frozen=True)
class Player:
    """Who plays.

    about: what the store remembers of it: enough to know whether it can play a lost episode again.
    policy: makes the policy for the episodes of given seeds, so many of them side by side.
    """

    about: dict[str, Any]
    policy: Callable[[list[int], int], Policy]


def player_of(config: Config, run: Run, game: Game) -> Player:
    """Who plays as the settings say.

    Raises:
      UserError: an agent is asked for, and there is none.
    """
    settings = config.collect
    rules: dict[str, Any] = {"random_start": random_start_in(game, settings.random_start, "--collect.random_start")}
    if settings.policy != "agent":
        return Player(
            _about(settings.policy, rules | {"hold": settings.hold}),
            lambda seeds, _: RandomPolicy(settings.policy, game.actions, seeds, game.episode_steps, settings.hold),
        )
    world, kept, record = load_controllers(run, config)
    rules |= {"weights": record["digest"], "noise": settings.noise}
    if kept.dream is not None:
        rules["dream_share"] = settings.dream_share

    def policy(seeds: list[int], slots: int) -> Policy:
        # As many rows as slots, whatever the last shard's episodes are: each number is compiled for.
        rows = [*seeds, *[0] * (slots - len(seeds))]
        params = world.params(_controllers(kept, rows, settings))
        return AgentPolicy(world.agent, params, np.arange(len(seeds), dtype=np.int32), seeds, slots)

    return Player(_about("agent", rules), policy)


def _about(policy: str, rules: dict[str, Any]) -> dict[str, Any]:
    return {"policy": policy} | {name: value for name, value in rules.items() if value != UNNAMED.get(name)}


def _controllers(kept: KeptControllers, seeds: list[int], settings: CollectConfig) -> Float[jax.Array, "N n_params"]:
    """The controller of each of N episodes, decided by its seed.

    It is the one that was chosen in the real game, or as often as `collect.dream_share` says the dream's own choice;
    with normal noise on its weights that stays the same throughout an episode (Plappert et al. 2018, arXiv 1706.01905).
    How much is uniform up to `collect.noise`: some play nearly as it does.
    """
    choices = jnp.stack([kept.best, kept.best if kept.dream is None else kept.dream])
    chosen, noise = [], []
    for seed in seeds:
        random = streams.generator(seed, "which controller")
        chosen.append(int(random.random() < settings.dream_share))
        noise.append(random.uniform(0, settings.noise) * random.standard_normal(len(kept.best)))
    return choices[np.array(chosen)] + jnp.asarray(np.array(noise, np.float32))


def player_again(
    config: Config, run: Run, game: Game, player: Player, about: dict[str, Any], numbers: list[int]
) -> Player:
    """Whoever played lost episodes; if that is gone and others may take their place, `player`.

    Args:
      about: what the store remembers of it.
      numbers: of the episodes.

    Raises:
      UserError: it is gone, and nobody may take its place.
    """
    about = current_names("collect", about)
    if about["policy"] == "imported":
        if config.collect.replace_lost:
            return player
        raise UserError(
            f"{run.stage('replays').path} has lost {len(numbers)} recordings from {numbers[0]} to {numbers[-1]}, which "
            "were imported, so that nobody can play them again: import all anew (bin/import --fresh), or give "
            "--collect.replace_lost to have others played in their place"
        )
    how = {name: value for name, value in about.items() if name != "weights"}
    settings = config.collect.model_copy(update=UNNAMED | how)
    try:
        then = player_of(config.model_copy(update={"collect": settings}), _with_agent(run, about), game)
        reason = f"{run.stage('controller').path} is {then.about.get('weights', '')[:12]} now"
    except UserError as error:
        then, reason = None, str(error)
    if then is not None and then.about == about:
        return then
    if config.collect.replace_lost:
        return player
    raise UserError(
        f"{run.stage('replays').path} has lost {len(numbers)} episodes from {numbers[0]} to {numbers[-1]}, played by "
        f"the agent {about['weights'][:12]}, which can't play them again ({reason}): put its folders back, or give "
        "--collect.replace_lost to have others played in their place"
    )


def _with_agent(run: Run, about: dict[str, Any]) -> Run:
    """The run in which the agent lies that played: this one, that of the replays, or one that is named there."""
    owner = run.stage("replays").run
    for each in (run, owner, *map(owner.named, owner.all_named())):
        if "weights" in about and (each.stage("controller").summary() or {}).get("weights") == about["weights"]:
            return each
    return run
