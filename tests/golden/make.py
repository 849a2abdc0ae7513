"""Golden figures: what CarRacing, V's loss and M's loss come to, on inputs that are the same everywhere and for ever.

    env PYTHONPATH=$PWD .venv/bin/python -P tests/golden/make.py [car | vae | memory ...]

makes the files beside this one anew (all of them, if none is named) and prints how far they have moved. To be done only
where a change was meant: `tests/test_golden.py`, which compares, then shows in the history what it has changed.

Nothing here is drawn by JAX, whose streams may change from version to version: weights, batches and the noise of
latents come from `RandomState`, whose streams NumPy keeps as they are. (Uniform numbers alone: they need no logarithm,
which libraries round differently.)
"""

import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.envs.car_racing import CarRacing
from wm_jax.envs.car_racing.bodies import origin
from wm_jax.models import memory as memories
from wm_jax.models import vae as vaes
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.models.memory import MDNRNN, Sequences
from wm_jax.models.vae import make_vae
from wm_jax.models.variables import combine, partition
from wm_jax.training.task import Gradient

FOLDER = Path(__file__).parent
Figures = dict[str, Any]
"""By name numbers or arrays; of losses by name one number each."""

STEPS, EVERY, SHOWN, BLOCK = 100, 10, 30, 8
"""Steps of the drive; every so many of them a row of figures, every so many of them a picture, in means of 8 x 8."""
TRACK = 1000
"""Its seed."""


def drive_actions() -> np.ndarray:
    """Straight on at 0.7 gas; a turn that slips; one the other way, braked, onto the grass; a full brake there."""
    t = np.arange(STEPS)
    steer = np.select([t < 35, t < 70, t < 85], [0.0, -0.6, 0.9], -0.2)
    gas = np.select([t < 60, t < 80], [0.7, 0.0], 0.4)
    brake = np.select([t < 62, t < 74, t < 90, t < 94], [0.0, 0.15, 0.0, 0.95], 0.0)
    return np.stack([steer, gas, brake], 1).astype(np.float32)


def car(pictures: bool = True) -> Figures:
    """100 steps of CarRacing on the device: places [10, 2], angles, speeds and summed rewards [10]; and three pictures
    as the means [3, 8, 8, 3] of 8 x 8 pixels.
    """
    game, params = CarRacing(), CarRacing.on_tracks((TRACK,))

    @jax.jit
    def drive(params: Any, actions: jax.Array) -> Any:
        def step(state: Any, action: jax.Array) -> tuple[Any, Any]:
            frame, state, reward, _, _ = game.step_env(jax.random.key(0), state, action, params)
            seen = origin(state.car), state.car.angle, jnp.linalg.norm(state.car.velocity), reward
            return state, (*seen, frame if pictures else jnp.zeros(()))

        return jax.lax.scan(step, game.start(params, jnp.int32(0))[1], actions)[1]

    found = [np.asarray(each) for each in drive(params, jnp.asarray(drive_actions()))]
    rows, shown = slice(EVERY - 1, None, EVERY), slice(SHOWN - 1, None, SHOWN)
    figures = {"place": found[0], "angle": found[1], "speed": found[2], "reward": np.cumsum(found[3], dtype=np.float64)}
    figures = {name: each[rows].astype(np.float32) for name, each in figures.items()}
    if pictures:
        size = found[4].shape[1] // BLOCK
        blocks = found[4][shown].reshape(-1, BLOCK, size, BLOCK, size, 3)
        figures["picture"] = blocks.mean((2, 4), dtype=np.float64).astype(np.float32)
    return figures


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) that only the name and the shape decide."""
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape).astype(np.float32)


def noise(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """In place of `jax.random.normal`: of the same variance, whatever the key."""
    return jnp.asarray(np.sqrt(3) * uniform("noise", shape), dtype)


def layers(variables: Any) -> dict[str, Any]:
    """The arrays of a model's state by the names of their layers."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(variables))[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def weighted(make: Callable[[], nnx.Module], **gains: float) -> tuple[Any, Any]:
    """(graphdef, variables) with fixed weights: the scale is kept through a ReLU, and biases are not zero. What no
    gradient changes is zero.

    Args:
      gains: of the layers of these names; 1 for all others.
    """
    graphdef, variables = nnx.split(nnx.eval_shape(make))
    params, others = partition(variables)
    fixed = []
    for name, leaf in layers(params).items():
        scale = np.sqrt(6 / np.prod(leaf.shape[:-1])) * gains.get(name.split(".")[0], 1.0) if leaf.ndim > 1 else 0.3
        fixed.append(jnp.asarray(np.float32(scale) * uniform(name, leaf.shape)))
    filled = jax.tree.unflatten(jax.tree.structure(params), fixed)
    return graphdef, combine(filled, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), others))


def loss_and_slopes(gradient: Gradient, params: Any, batch: Any, carry: Any) -> tuple[Figures, Figures]:
    """What an update is told of its loss; and of the gradient of every layer its norm, and its part along the layer's
    weights: a sign that is wrong shows.
    """
    with patch.object(jax.random, "normal", noise):
        metrics, _, gradients, _ = jax.jit(gradient)(params, batch, carry, jax.random.key(0), jnp.int32(0))
    found = {}
    for (name, slope), weights in zip(layers(gradients).items(), layers(partition(params)[0]).values(), strict=True):
        slope, weights = (np.asarray(each, np.float64) for each in (slope, weights))
        found[f"norm {name}"] = float(np.linalg.norm(slope))
        found[f"along {name}"] = float(np.vdot(slope, weights) / np.linalg.norm(weights))
    return {name: float(value) for name, value in metrics.items()}, found


VAE_CASES = {"plain": {}, "moving": {"moving_weight": 0.5, "free_nats": 0.0}}
"""Settings of V: the KL's floor lies between the KL of the batch's frames; and with a background."""


def vae(case: str, fast: bool = False, **settings: Any) -> Figures:
    """V's loss, its terms and the slopes of the layers, on four frames from dark to bright.

    Args:
      case: of `VAE_CASES`.
      fast: by the kernels in C.
    """
    common = {"width": 0.125, "latent": 4, "beta": 2.0, "free_nats": 3.0, "fast_kernels": fast, "bfloat16": False}
    config = VanillaConfig.model_validate({**common, **VAE_CASES[case], **settings})
    graphdef, params = weighted(lambda: make_vae(config, nnx.Rngs(0)), mean=5.0, log_var=5.0)
    light = np.linspace(0.25, 1, 4, dtype=np.float32)[:, None, None, None]
    frames = np.floor(255.99 * light * (uniform("frames", (4, 64, 64, 3)) / 2 + 0.5)).astype(np.uint8)
    if config.moving_weight:  # those around each, of which it differs in a rectangle
        still = frames.copy()
        still[:, 20:40, 10:30] //= 4
        frames = np.stack([still, still, frames, still, still], 1)
    examples = vaes.Examples(moving_weight=config.moving_weight)
    metrics, gradients = loss_and_slopes(vaes.gradient_of(graphdef, examples=examples), params, jnp.asarray(frames), ())
    return {**metrics, "penalty": metrics["loss"] - metrics["reconstruction"], **gradients}


MEMORY_CASES = {"lstm": {}, "gru": {"cell": "gru"}}
"""Settings of M."""


def memory(case: str, fast: bool = False, **settings: Any) -> Figures:
    """M's loss, its terms and the slopes of the layers, on windows with an end, a beginning and padding in them.

    Args:
      case: of `MEMORY_CASES`.
      fast: by the kernel in C.
    """
    time, rows, size, action = 9, 3, 4, 2
    common = {"hidden": 8, "mixtures": 3, "reward_head": True, "done_head": True, "fast_kernels": fast}
    config = MemoryConfig.model_validate({**common, **MEMORY_CASES[case], **settings})
    graphdef, params = weighted(lambda: MDNRNN(config, LatentKind(size), action, nnx.Rngs(0)))
    done, is_first, mask = (np.zeros((time, rows), bool) for _ in range(3))
    done[4, 1] = done[8, 2] = is_first[5, 1] = True
    mask[:] = True
    mask[5, 1] = mask[6:, 0] = False
    mean, log_var = (uniform(name, (time + 1, rows, size)) for name in ("mean", "log_var"))
    batch = Sequences(
        latent=Gaussian(jnp.asarray(mean), jnp.asarray(log_var - 2)),
        action=jnp.asarray(uniform("action", (time, rows, action))),
        reward=jnp.asarray(uniform("reward", (time, rows))),
        done=jnp.asarray(done, jnp.float32),
        is_first=jnp.asarray(is_first),
        weight=jnp.asarray(mask, jnp.float32),
    )
    carry = nnx.merge(graphdef, params).init_carry(rows)
    metrics, gradients = loss_and_slopes(memories.gradient_of(graphdef, carried=False), params, batch, carry)
    return {**metrics, **gradients}


FIGURES: dict[str, Callable[[], Figures]] = {
    "car": car,
    "vae": lambda: {case: vae(case) for case in VAE_CASES},
    "memory": lambda: {case: memory(case) for case in MEMORY_CASES},
}
"""By the names of their files."""


def path_of(name: str) -> Path:
    """Arrays lie in an .npz, numbers in a .json, whose changes can be read."""
    return FOLDER / (f"{name}.npz" if name == "car" else f"{name}.json")


def read(name: str) -> Figures:
    """What the golden file of this name holds."""
    path = path_of(name)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path) as arrays:
        return dict(arrays)


def write(name: str, figures: Figures) -> None:
    """Replace the golden file of this name."""
    if path_of(name).suffix == ".json":
        path_of(name).write_text(json.dumps(figures, indent=1) + "\n")
    else:
        np.savez_compressed(path_of(name), **figures)


def moved(figures: Figures, before: Figures) -> str:
    """How far figures have moved, for who makes them anew."""
    if jax.tree.map(np.shape, figures) != jax.tree.map(np.shape, before):
        return "other names or sizes than before"
    apart = jax.tree.map(lambda new, old: float(np.abs(np.subtract(new, old)).max()), figures, before)
    return f"moved by {max(jax.tree.leaves(apart)):.3g} at most"


def main(names: list[str]) -> None:
    """Make these golden files anew, or all."""
    for name in names or FIGURES:
        figures = FIGURES[name]()
        print(f"{name}: {moved(figures, read(name)) if path_of(name).exists() else 'new'}")
        write(name, figures)


if __name__ == "__main__":
    main(sys.argv[1:])
