"""How well M predicts pictures by an auto-encoder's latents: one step ahead, and fifteen by its own predictions."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.evaluation.vae_measures import pictures
from wm_jax.models.preprocess import to_float, to_uint8
from wm_jax.run.artifacts import Trained
from wm_jax.tools.compare.held_out import STRETCH, HeldOut, Stretch
from wm_jax.utils.arrays import evenly_spaced

WARM_UP = 20
"""Frames that M has seen before it predicts."""
AHEAD = 15
STARTS = 8
"""Predictions of each stretch."""


def of_predictions(held_out: HeldOut, vae: Trained, memory: Trained) -> dict[str, float]:
    """Errors of predicted pictures, all pixels summed and per moving pixel, one step and fifteen steps ahead; beside
    them those of a picture that stays as it is (`still_`).
    """
    frames, actions, lengths = _padded(held_out.stretches)
    starts = np.stack([_starts(length) for length in lengths])
    near, far = (
        np.asarray(each) for each in _predict(vae.graphdef, memory.graphdef, vae.params, memory.params, frames, actions)
    )
    sums: dict[str, list[Any]] = {}
    for row, length in enumerate(lengths):
        real = frames[row, :length]
        for name, ahead, drawn in (("one_step", 1, near[row]), ("fifteen_step", AHEAD, far[row])):
            places = starts[row][starts[row] + ahead < length]
            still, predicted = real.copy(), real.copy()
            still[places + ahead] = real[places]
            predicted[places + ahead] = drawn[places]
            for kind, shown in ((name, predicted), (f"still_{name}", still)):
                sums.setdefault(kind, []).append(pictures.squared_error(real, shown)[places + ahead])
                sums.setdefault(f"{kind}_moving", []).append(pictures.moving_error(real, shown, places + ahead))
    figures = {}
    for name, parts in sums.items():
        whole = (
            pictures.PixelError.concatenate(parts).mean if name.endswith("_moving") else np.concatenate(parts).mean()
        )
        figures[f"{name}_error"] = float(whole)
    return figures


def _starts(length: int) -> np.ndarray:
    """The places of the last frames that M has seen before its predictions, int64[STARTS]."""
    last = max(length - 1 - AHEAD, 0)
    first = min(WARM_UP, last)
    chosen = first + evenly_spaced(last - first + 1, STARTS)
    return np.resize(chosen, STARTS)


def _padded(stretches: list[Stretch]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """All stretches side by side, their last frames repeated: frames [S, T + 1, ...], actions [S, T, A], lengths."""
    size = STRETCH + 1
    frames = np.stack([each.frames[np.minimum(np.arange(size), len(each.frames) - 1)] for each in stretches])
    actions = np.stack([each.actions[np.minimum(np.arange(STRETCH), len(each.actions) - 1)] for each in stretches])
    return frames, actions, [len(each.frames) for each in stretches]


@partial(jax.jit, static_argnums=(0, 1))
def _predict(
    vae_graph: Any, memory_graph: Any, vae_params: Any, memory_params: Any, frames: jax.Array, actions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pictures uint8 [S, T, 64, 64, 3]: at place t what M, having seen 0..t, expects of t + 1 and of t + AHEAD."""
    vae, memory = nnx.merge(vae_graph, vae_params), nnx.merge(memory_graph, memory_params)
    rows, time = frames.shape[0], actions.shape[1]
    z = jax.lax.map(lambda row: vae.encode(to_float(row)).mode(), frames)  # [S, T + 1, Z]

    def guess(carry: Any) -> jax.Array:
        return vae.embed(memory.predict(memory.output(carry)).latent.best_guess())

    def one_row(z: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        def see(carry: Any, now: Any) -> tuple[Any, Any]:
            carry = memory.step(carry, now[0][None], now[1][None])
            return carry, carry

        _, carries = jax.lax.scan(see, memory.init_carry(1), (z[:-1], actions))
        carries = jax.tree.map(lambda leaf: leaf[:, 0], carries)  # after frames 0 .. t, [T, ...]
        expected = guess(carries)

        def imagine(i: jax.Array, now: Any) -> Any:
            carry, z = now
            taken = actions[jnp.minimum(jnp.arange(time) + i, time - 1)]
            carry = memory.step(carry, z, taken)
            return carry, guess(carry)

        _, later = jax.lax.fori_loop(1, AHEAD, imagine, (carries, expected))
        return to_uint8(vae.decode(expected)), to_uint8(vae.decode(later))

    near, far = jax.lax.map(lambda row: one_row(*row), (z, actions))
    return near.reshape(rows, time, *frames.shape[2:]), far.reshape(rows, time, *frames.shape[2:])
