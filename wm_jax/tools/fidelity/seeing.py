"""What a V that was trained on our frames makes of Gymnasium's: of the same car in the same place."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from wm_jax.models.preprocess import to_float
from wm_jax.run.artifacts import Trained
from wm_jax.tools.fidelity.pictures import Pictures
from wm_jax.utils.arrays import in_batches

BATCH = 64


class Seen(NamedTuple):
    """What V makes of N frames.

    errors: float64[N], squared errors of their reconstructions, summed over 12,288 values in [0, 1].
    mean, std: float64[N, Z], of the posterior.
    """

    errors: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def see(vae: Trained, frames: Pictures) -> Seen:
    """Encode frames [N, 64, 64, 3] to the posterior's mean, and decode that."""

    @jax.jit
    def look(params: Any, frames: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        model, real = nnx.merge(vae.graphdef, params), to_float(frames)
        posterior = model.encode(real)
        errors = jnp.sum(jnp.square(model.decode(posterior.mean) - real), (1, 2, 3))
        return errors, posterior.mean, jnp.exp(posterior.log_var / 2)

    found = in_batches(lambda piece, _: look(vae.params, piece), frames, BATCH)
    return Seen(*(field.astype(np.float64) for field in found))


class Eyesight(NamedTuple):
    """One V on pairs of frames.

    theirs, ours: mean squared error of the reconstructions of Gymnasium's frames and of ours.
    apart: root mean square distance of the two posteriors' means, in standard deviations of the posterior.
    """

    theirs: float
    ours: float
    apart: float

    @staticmethod
    def of(theirs: Seen, ours: Seen, chosen: NDArray[np.bool_]) -> "Eyesight":
        """Of the chosen [N] pairs."""
        apart = ((theirs.mean - ours.mean) / ours.std)[chosen]
        means = [float(seen.errors[chosen].mean()) for seen in (theirs, ours)]
        return Eyesight(means[0], means[1], float(np.sqrt(np.mean(np.square(apart)))))
