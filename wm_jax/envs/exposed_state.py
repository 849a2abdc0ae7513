"""Frames beside the state of the game that they show, where a game tells it: for probes of what a latent holds.

CarRacing on the device tells the car's speed and its place on the road (`DeviceGame.factors`), Atari the machine's RAM,
one number for each byte (Bellemare et al. 2013). Procgen and Gymnasium's other games tell nothing.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy.typing import NDArray

from wm_jax.envs.device import episodes_of, start_all, step_all
from wm_jax.envs.host.adapt import open_environment
from wm_jax.envs.host.resize import shrink
from wm_jax.envs.make import device_game
from wm_jax.envs.types import DeviceGame, Game
from wm_jax.utils.arrays import evenly_spaced


class ExposedState(NamedTuple):
    """F frames with their states.

    names: K, of the state's numbers.
    episode: which episode each frame is of.
    """

    frames: UInt8[np.ndarray, "F 64 64 3"]
    state: Float32[np.ndarray, "F K"]
    names: tuple[str, ...]
    episode: Int64[np.ndarray, "F"]


def play_exposed(game: Game, seeds: Sequence[int], actions: Sequence[NDArray[Any]], keep: int) -> ExposedState | None:
    """Play one episode for each seed, and keep what it showed and was.

    Args:
      actions: of each episode T of them, one for each step, in the form that policies give them.
      keep: frames of an episode, evenly spread over it.

    Returns:
      None where the game does not tell its state.
    """
    if game.env.backend == "device":
        episodes = _on_the_device(device_game(game), seeds, np.stack(actions))
    elif game.family == "atari":
        episodes = [_of_atari(game, seed, each) for seed, each in zip(seeds, actions, strict=True)]
    else:
        return None
    kept = [_spread(episode, keep) for episode in episodes]
    if not kept[0].names:
        return None
    return ExposedState(
        np.concatenate([each.frames for each in kept]),
        np.concatenate([each.state for each in kept]),
        kept[0].names,
        np.repeat(np.arange(len(kept)), [len(each.frames) for each in kept]),
    )


class _Episode(NamedTuple):
    """T frames of an episode, with their states and the names of these."""

    frames: NDArray[np.uint8]
    state: NDArray[np.float32]
    names: tuple[str, ...]


def _spread(episode: _Episode, keep: int) -> _Episode:
    places = evenly_spaced(len(episode.frames), keep)
    return episode._replace(frames=episode.frames[places], state=episode.state[places])


def _of_atari(game: Game, seed: int, actions: NDArray[Any]) -> _Episode:
    """One episode of the official game, or of as many steps as there are actions."""
    assert game.gymnasium_id is not None
    environment = open_environment(game.gymnasium_id, kwargs={}, screen=game.screen)
    frames, memory = [], []
    try:
        screen, _ = environment.reset(seed=seed)
        ended = False
        for action in game.actions.checked(actions, len(actions)):
            frames.append(shrink(screen[None], game.crop)[0])
            memory.append(environment.env.unwrapped.ale.getRAM())
            if ended:
                break
            screen, _, terminated, truncated, _ = environment.step(action)
            ended = terminated or truncated
    finally:
        environment.close()
    names = tuple(f"RAM {place}" for place in range(len(memory[0])))
    return _Episode(np.stack(frames), np.stack(memory).astype(np.float32), names)


def _on_the_device(game: DeviceGame, seeds: Sequence[int], actions: NDArray[Any]) -> list[_Episode]:
    """All episodes side by side; actions [N, T, ...]."""
    params, places = episodes_of(game, seeds)
    frame, state = start_all(game, params, places)
    names = tuple(jax.eval_shape(partial(_factors, game), params, state))
    played = game.actions.in_game(jnp.asarray(actions))
    frames, told, running = [], [], [np.ones(len(seeds), bool)]
    for step in range(actions.shape[1]):
        frames.append(np.asarray(frame))
        told.append(np.stack([*_factors(game, params, state).values()], -1) if names else np.zeros((len(seeds), 0)))
        frame, state, _, ended = _step(game, params, state, played[:, step])
        running.append(running[-1] & ~np.asarray(ended))
        if not running[-1].any():
            break
    lengths = np.stack(running[:-1]).sum(0)
    all_frames, all_told = np.stack(frames, 1), np.stack(told, 1).astype(np.float32)
    return [_Episode(all_frames[i, :length], all_told[i, :length], names) for i, length in enumerate(lengths.tolist())]


_step = jax.jit(step_all, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _factors(game: DeviceGame, params: Any, states: Any) -> dict[str, jax.Array]:
    return jax.vmap(game.factors, in_axes=(None, 0))(params, states)
