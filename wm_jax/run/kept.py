"""What a search for the controller keeps."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class KeptControllers(NamedTuple):
    """Means of a search's distribution.

    best: with the best evaluation in the real game; it is the agent's.
    latest: at the search's end.
    dream: with the best evaluation in the dream; None of a search in the game.
    """

    best: Float[Array, "n_params"]
    latest: Float[Array, "n_params"]
    dream: Float[Array, "n_params"] | None = None

    @staticmethod
    def empty(n_params: int, *, in_dream: bool) -> "KeptControllers":
        """Zeros, for their shapes."""
        zeros = jnp.zeros(n_params, jnp.float32)
        return KeptControllers(zeros, zeros, zeros if in_dream else None)

    @staticmethod
    def of(weights: Mapping[str, jax.Array]) -> "KeptControllers":
        """As they are saved, by name."""
        return KeptControllers(**{name: jnp.asarray(each) for name, each in weights.items()})

    def weights(self) -> dict[str, jax.Array]:
        """By name, to be saved."""
        return {name: each for name, each in self._asdict().items() if each is not None}
