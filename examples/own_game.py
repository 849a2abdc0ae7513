"""A game of your own in JAX, through the whole chain: replays, V, M, C, a score.

    .venv/bin/python examples/own_game.py [--small]

Catch: a ball falls, a paddle moves below it. 1 if it is caught, -1 if not. A class with three pure methods is all there
is to a game; the chain is that of the commands, `bin/pipeline --game jax:own_game:Catch --env.backend device`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import wm_jax
from wm_jax.cli import main as command


@dataclass(frozen=True)
class Catch(wm_jax.DeviceGame):
    """A ball of 6 pixels falls 3 a step, a paddle of 12 moves 4 a step; five balls are an episode."""

    name = "Catch"
    actions = wm_jax.Discrete(("left", "stay", "right"), (0, 1, 2))
    episode_steps = 100

    def params_for(self, seeds: Sequence[int]) -> jax.Array:
        """The ball's column in each of five falls, [S, 5]."""
        draw = lambda key: jax.random.randint(key, (5,), 0, 58)  # noqa: E731
        return jax.vmap(draw)(jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32)))

    def start(self, params: jax.Array, place: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """The first ball at the top, the paddle in the middle."""
        state = (params[place], jnp.int32(0), jnp.int32(26))
        return picture(*state), state

    def step(self, params: jax.Array, state: Any, action: jax.Array) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
        """See `DeviceGame`."""
        columns, time, paddle = state
        paddle = jnp.clip(paddle + 4 * (action - 1), 0, 52)
        ball, landed = columns[time // 20], time % 20 == 19
        caught = (ball + 6 > paddle) & (ball < paddle + 12)
        reward = jnp.where(landed, jnp.where(caught, 1.0, -1.0), 0.0)
        after = (columns, time + 1, paddle)
        return picture(*after), after, reward, time + 1 >= 100


def picture(columns: jax.Array, time: jax.Array, paddle: jax.Array) -> jax.Array:
    """uint8 [64, 64, 3]."""
    rows, places = jnp.arange(64)[:, None], jnp.arange(64)[None]
    top, left = 3 * (time % 20), columns[jnp.minimum(time // 20, 4)]
    ball = (rows >= top) & (rows < top + 6) & (places >= left) & (places < left + 6)
    bar = (rows >= 60) & (places >= paddle) & (places < paddle + 12)
    return jnp.stack([jnp.where(ball, 255, 30), jnp.where(bar, 255, 30), jnp.full((64, 64), 30)], -1).astype(jnp.uint8)


def main(small: bool) -> None:
    """Run all stages in runs/catch, and play."""
    words = ["--game", "jax:own_game:Catch", "--env.backend", "device", "--run", "runs/catch"]
    quick = ["--vae.beta", "0.1", "--vae.width", "0.5", "--vae.steps", "1500", "--controller.generations", "80"]
    words += ["--preset", "smoke"] if small else quick
    assert command(["pipeline", *words]) == 0
    agent = wm_jax.load("runs/catch")
    print("returns of eight episodes, 5 at most:", agent.play(range(8)).returns)


if __name__ == "__main__":
    main("--small" in sys.argv)
