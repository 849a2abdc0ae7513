"""How well M predicts: the next z and further ones by its own predictions, rewards, and ends of games.

A loss says none of this by itself. Predictions of z are held against copying the last frame, which is hard to beat one
step ahead; rewards and ends are mostly nothing, so what counts is whether they are told from nothing.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int
from numpy.typing import NDArray

from wm_jax.data.sequences import FlatLatents
from wm_jax.models.memory import MDNRNN, Carry
from wm_jax.models.vae import Vae
from wm_jax.utils.arrays import evenly_spaced

HORIZONS = (1, 5, 15, 50)
"""Steps ahead."""
WARM_UP = 20
"""Frames that M sees before the one that it predicts from."""
STARTS = 256
"""Frames that are predicted from."""


class Stretches(NamedTuple):
    """R stretches of frames: `WARM_UP` before the one that is predicted from, that one, and as many as the longest
    horizon behind it.

    places: in `FlatLatents`; beyond an episode, its first or last frame.
    real: the frame is of the episode.
    is_first: M begins anew before it.
    """

    places: Int[np.ndarray, "T R"]
    real: Bool[np.ndarray, "T R"]
    is_first: Bool[np.ndarray, "T R"]


class Predicted(NamedTuple):
    """What M says of R stretches, of the H steps behind the frame that it predicts from.

    best, sampled: z by its own best guesses, and by its own draws.
    reward, done_logit, end: one step ahead, having seen all before; the last is the probability that the second stands
      for. None without that head.
    """

    best: Float[Array, "H R Z"]
    sampled: Float[Array, "H R Z"]
    reward: Float[Array, "H R"] | None
    done_logit: Float[Array, "H R"] | None
    end: Float[Array, "H R"] | None


def stretches(offsets: Int[np.ndarray, "offsets"], count: int = STARTS) -> Stretches:
    """Stretches around so many frames, spread evenly over all that another one follows."""
    first, end = offsets[:-1], offsets[1:]
    episode = np.repeat(np.arange(len(first)), np.maximum(end - first - 1, 0))
    frame = np.concatenate([np.arange(a, b - 1) for a, b in zip(first, end, strict=True)])
    chosen = evenly_spaced(len(frame), count)
    a, b, at = first[episode[chosen]], end[episode[chosen]], frame[chosen]
    wanted = at[None, :] + np.arange(-WARM_UP, HORIZONS[-1] + 1)[:, None]
    is_first = wanted == a[None, :]
    is_first[0] = True
    return Stretches(np.clip(wanted, a, b - 1), (wanted >= a) & (wanted < b), is_first)


def figures(vae: tuple[Any, Any], memory: tuple[Any, Any], latents: FlatLatents) -> dict[str, float | None]:
    """Held-out figures of M.

    Args:
      vae, memory: graph definition and variables.
      latents: of held-out episodes.

    Returns:
      error_N, sampled_error_N, copied_error_N: mean squared errors of z N steps ahead, of M's best guesses, its draws
        and the last frame copied, in units of the variance of z (1: whoever always says the mean);
      reward_correlation, reward_error (root of the mean square) and reward_spread (the rewards' own deviation);
      end_precision, end_recall, of the ends where a dream would end (`dream.ends` threshold); ends, how many there are;
        and ends_expected, how many there are by M's probabilities, as a share of these: 1 is honest, with less dreams
        last too long. What there is nothing of is None, or left out without that head.
    """
    rows = stretches(np.asarray(latents.offsets))
    z = np.asarray(jax.jit(lambda latent: latent.mode())(latents.latent))
    now = rows.places[:-1]
    action = np.asarray(latents.action)[now]
    said = _predict(vae[0], memory[0], vae[1], memory[1], jnp.asarray(z[now]), jnp.asarray(action), rows.is_first[:-1])
    variance = max(float(z.var(axis=0).sum()), 1e-12)
    found: dict[str, float | None] = {}
    true, here = z[rows.places[WARM_UP + 1 :]], rows.real[WARM_UP + 1 :]
    ways = {"": said.best, "sampled_": said.sampled, "copied_": np.broadcast_to(z[rows.places[WARM_UP]], true.shape)}
    for ahead in HORIZONS:
        for name, drawn in ways.items():
            squares = np.square(np.asarray(drawn[ahead - 1]) - true[ahead - 1]).sum(-1)[here[ahead - 1]]
            found[f"{name}error_{ahead}"] = float(squares.mean()) / variance if len(squares) else None
    # An action leads to the next frame, which has to be there. Stretches overlap, but a step counts once.
    steps, once = np.unique(rows.places[WARM_UP:-1][here], return_index=True)
    if said.reward is not None:
        found |= _of_rewards(np.asarray(said.reward)[here][once], np.asarray(latents.reward)[steps])
    if said.done_logit is not None:
        true = np.asarray(latents.done)[steps] > 0
        found |= _of_ends(np.asarray(said.done_logit)[here][once] > 0, true)
        expected = float(np.asarray(said.end)[here][once].sum())
        found["ends_expected"] = expected / float(true.sum()) if true.any() else None
    return {name: None if value is None else round(value, 4) for name, value in found.items()}


def _of_rewards(said: Float32[np.ndarray, "N"], true: Float32[np.ndarray, "N"]) -> dict[str, float | None]:
    spread, error = float(true.std()), float(np.sqrt(np.square(said - true).mean()))
    is_known = spread > 0 and said.std() > 0
    correlation = float(np.corrcoef(said, true)[0, 1]) if is_known else None
    return {"reward_correlation": correlation, "reward_error": error, "reward_spread": spread}


def _of_ends(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> dict[str, float | None]:
    both = float((said & true).sum())
    precision, recall = (both / float(each.sum()) if each.any() else None for each in (said, true))
    return {"end_precision": precision, "end_recall": recall, "ends": float(true.sum())}


@partial(jax.jit, static_argnums=(0, 1))
def _predict(
    vae_graph: Any,
    memory_graph: Any,
    vae_variables: Any,
    memory_variables: Any,
    z: Float[Array, "T R Z"],
    action: Float[Array, "T R A"],
    is_first: Bool[Array, "T R"],
) -> Predicted:
    vae: Vae = nnx.merge(vae_graph, vae_variables)
    memory: MDNRNN = nnx.merge(memory_graph, memory_variables)
    begin = memory.init_carry(z.shape[1])
    seen, h = memory.unroll(begin, z[: WARM_UP + 1], action[: WARM_UP + 1], is_first[: WARM_UP + 1])

    def imagined(key: Array | None) -> Float[Array, "H R Z"]:
        def ahead(carry: Carry, i: Array) -> Float[Array, "R Z"]:
            says = memory.predict(memory.output(carry)).latent
            return vae.embed(says.best_guess() if key is None else says.sample(jax.random.fold_in(key, i)))

        def step(before: tuple[Carry, Array], now: tuple[Array, Array]) -> tuple[tuple[Carry, Array], Array]:
            carry = memory.step(*before, now[1])
            z = ahead(carry, now[0])
            return (carry, z), z

        later = action[WARM_UP + 1 :]
        first = ahead(seen, jnp.int32(0))
        _, others = jax.lax.scan(step, (seen, first), (jnp.arange(1, len(later) + 1), later))
        return jnp.concatenate([first[None], others])

    _, after = memory.unroll(seen, z[WARM_UP + 1 :], action[WARM_UP + 1 :], is_first[WARM_UP + 1 :])
    one_step = memory.predict(jnp.concatenate([h[-1:], after]))
    end = None if one_step.done_logit is None else memory.end_probability(one_step.done_logit)
    return Predicted(imagined(None), imagined(jax.random.key(0)), one_step.reward, one_step.done_logit, end)
