"""CarRacing on the device with a policy of your own: a few numbers of the picture, evolved in a few lines.

    .venv/bin/python examples/drive_with_your_policy.py [--small]

Game and policy are one program, 64 cars at once. The policy sees where the road is in three rows ahead of the car, and
steers for it; evolution finds how strongly, and how much gas to give.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp

import wm_jax


def road_ahead(frames: jax.Array) -> jax.Array:
    """Where grey lies in three rows, from -1 (left) to 1 (right): float32 [N, 3] of frames uint8 [N, 64, 64, 3]."""
    rows = frames[:, jnp.array([28, 38, 46])].astype(jnp.float32)
    grey = (jnp.abs(rows[..., 0] - rows[..., 1]) < 20).astype(jnp.float32)
    return (grey * jnp.linspace(-1, 1, 64)).sum(-1) / (grey.sum(-1) + 1e-3)


def drive(weights: jax.Array, frames: jax.Array) -> jax.Array:
    """Steering, gas and brake, float32 [N, 3], by 5 numbers for each car."""
    steer = jnp.tanh((road_ahead(frames) * weights[:, :3]).sum(-1))
    gas, brake = jax.nn.sigmoid(weights[:, 3]), jnp.maximum(jnp.tanh(weights[:, 4] * jnp.abs(steer)), 0) * 0.5
    return jnp.stack([steer, gas, brake], axis=-1)


def main(small: bool) -> None:
    """Evolve for some generations."""
    game, steps, cars, tracks = wm_jax.CarRacingGame(), 30 if small else 400, 8 if small else 32, 2
    search = wm_jax.Evolution("CMA_ES", 5, cars, 0.5, jax.random.key(0))

    @jax.jit
    def returns(candidates: jax.Array, params: Any) -> jax.Array:
        """Of all candidates on all tracks, [P, E]."""
        weights = jnp.repeat(candidates, tracks, axis=0)
        frames, states = jax.vmap(lambda place: game.start(params, place))(jnp.tile(jnp.arange(tracks), cars))

        def step(now: tuple, _: None) -> tuple:
            frames, states, total, going = now
            frames, states, reward, ended = jax.vmap(game.step, (None, 0, 0))(params, states, drive(weights, frames))
            return (frames, states, total + reward * going, going & ~ended), None

        begun = (frames, states, jnp.zeros(cars * tracks), jnp.ones(cars * tracks, bool))
        return jax.lax.scan(step, begun, None, steps)[0][2].reshape(cars, tracks)

    state = search.init(jnp.array([0.5, 0.5, 0.5, -1.5, 0.0]))
    for generation in range(2 if small else 25):
        state, candidates = search.ask(state)
        found = returns(candidates, game.params_for([2 * generation, 2 * generation + 1]))
        state = search.tell(state, found)
        print(f"generation {generation}: mean {found.mean():.0f}, best {found.mean(1).max():.0f}")
    print("weights", search.mean(state).round(2))


if __name__ == "__main__":
    main("--small" in sys.argv)
