"""A transformer in M's place: attention over the last steps instead of an LSTM's state.

    .venv/bin/python examples/own_memory.py [--small]

M's cell is replaceable: four methods (`wm_jax.models.memory.Cell`), with any pytree as its state. Heads, loss,
training, agent and dream stay what they are. For the commands it is
`--memory.cell own_memory:Transformer --memory.options window=8`.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

import wm_jax


class Transformer(nnx.Module):
    """One block of attention and one layer, over the last `window` inputs.

    Its state: these inputs [B, window, I], how many there are [B], and the output [B, H].
    """

    def __init__(self, inputs: int, hidden: int, fast: bool, rngs: nnx.Rngs, window: int = 16):
        self.inputs, self.hidden, self.window = inputs, hidden, window
        self.embed = nnx.Linear(inputs, hidden, rngs=rngs)
        self.places = nnx.Param(0.02 * jax.random.normal(rngs.params(), (window, hidden)))
        self.attend = nnx.MultiHeadAttention(4, hidden, decode=False, rngs=rngs)
        self.norm, self.layer = nnx.LayerNorm(hidden, rngs=rngs), nnx.Linear(hidden, hidden, rngs=rngs)

    def init_carry(self, n: int) -> Any:
        """No inputs yet."""
        return jnp.zeros((n, self.window, self.inputs)), jnp.zeros(n, jnp.int32), jnp.zeros((n, self.hidden))

    def step(self, carry: Any, x: jax.Array) -> Any:
        """The newest input stands last; places before the first one are not attended to."""
        past, count, _ = carry
        past, count = jnp.concatenate([past[:, 1:], x[:, None]], axis=1), jnp.minimum(count + 1, self.window)
        tokens = self.embed(past) + self.places[...]
        there = jnp.arange(self.window) >= self.window - count[:, None]
        seen = self.attend(tokens[:, -1:], tokens, mask=there[:, None, None])[:, 0] + tokens[:, -1]
        return past, count, jnp.tanh(self.layer(self.norm(seen)))

    def unroll(self, carry: Any, x: jax.Array, is_first: jax.Array) -> tuple[Any, jax.Array]:
        """Step by step, from nothing where an episode begins."""
        begin = self.init_carry(x.shape[1])

        def step(carry: Any, now: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            x, first = now
            choose = lambda new, old: jnp.where(first.reshape(-1, *(1,) * (old.ndim - 1)), new, old)  # noqa: E731
            carry = self.step(jax.tree.map(choose, begin, carry), x)
            return carry, carry[2]

        return lax.scan(step, carry, (x, is_first))

    def visible(self, carry: Any) -> tuple[jax.Array, ...]:
        """What C sees."""
        return (carry[2],)


def main(small: bool) -> None:
    """Train V and this M on pictures of a square that goes where its last three moves say, and say how well M does."""
    random = np.random.default_rng(0)
    frames, actions = zip(*(walk(random, 40) for _ in range(20 if small else 200)), strict=True)
    memory = {"cell": "own_memory:Transformer", "options": {"window": 8}, "hidden": 32, "sequence": 20, "batch": 16}
    vae = {"latent": 4, "beta": 0.05, "width": 0.25} | ({} if small else {"steps": 1500})
    preset = "smoke" if small else "quick"
    found = wm_jax.train(list(frames), list(actions), preset=preset, vae=vae, memory=memory)
    about = found.about["memory"]
    print(
        f"error of z one step ahead: {about['error_1']:.3f} of its variance; copying it: {about['copied_error_1']:.3f}"
    )


def walk(random: np.random.Generator, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [steps, 64, 64, 3] and actions int [steps] of one episode."""
    actions, frames, place = random.integers(0, 3, steps), np.zeros((steps, 64, 64, 3), np.uint8), 32
    for i, frame in enumerate(frames):
        frame[28:36, max(place - 4, 0) : place + 4] = 255
        place = int(np.clip(place + 3 * (actions[max(i - 2, 0) : i + 1] - 1).sum(), 4, 60))
    return frames, actions


if __name__ == "__main__":
    main("--small" in sys.argv)
