"""Action spaces: what C's outputs become, what M sees of an action, and what the game is given.

A new kind is one class here. Importing this imports no JAX, so that environment worker processes start fast.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import jax

Squash = Literal["tanh", "sigmoid", "positive_tanh"]
"""How one raw controller output becomes one continuous action.

`tanh` fills [low, high]; `sigmoid` fills [0, 1]; `positive_tanh` is tanh cut off at 0 (the paper's brake). What is here
`sigmoid` may be `tanh` for an agent (`controller.gas`).
"""


class ActionSpace(ABC):
    """The actions of a game.

    Policies, replays and models have actions in one form: int32[*lead] positions in `names`, or vectors
    float32[*lead, A]. The methods for JAX are pure; those for the host take and return NumPy's arrays.
    """

    names: tuple[str, ...]

    @property
    def size(self) -> int:
        """A, the length of what M sees of an action."""
        return len(self.names)

    @property
    def outputs(self) -> int:
        """Raw outputs of the controller."""
        return self.size

    @abstractmethod
    def choose(self, raw: "jax.Array") -> "jax.Array":
        """The actions of raw outputs float32[*lead, outputs] of the controller."""

    @abstractmethod
    def encode(self, actions: "jax.Array") -> "jax.Array":
        """What M sees of actions: float32[*lead, A]."""

    @abstractmethod
    def in_game(self, actions: "jax.Array") -> "jax.Array":
        """Actions as a game in JAX takes them."""

    @abstractmethod
    def from_game(self, actions: "jax.Array") -> "jax.Array":
        """The actions that `in_game` made these of."""

    @abstractmethod
    def checked(self, actions: ArrayLike, count: int) -> NDArray[Any]:
        """As many actions as a game on the host takes them: int32[count], or float32[count, A].

        Raises:
          ValueError: they are no such actions.
        """

    @abstractmethod
    def draw(self, random: np.random.Generator, count: int) -> NDArray[Any]:
        """Actions [count, ...], each as likely as any other."""

    @abstractmethod
    def nothing(self, count: int) -> NDArray[Any]:
        """Actions [count, ...] that mean nothing, for slots that ignore theirs."""


@dataclass(frozen=True)
class Discrete(ActionSpace):
    """A choice between named actions, the one with the largest output. The game sees `indices`."""

    names: tuple[str, ...]
    indices: tuple[int, ...]

    def choose(self, raw: "jax.Array") -> "jax.Array":
        """See `ActionSpace`: positions; of equal outputs the first one counts."""
        import jax.numpy as jnp

        return jnp.argmax(raw, axis=-1).astype(jnp.int32)

    def encode(self, actions: "jax.Array") -> "jax.Array":
        """See `ActionSpace`: one-hot."""
        import jax

        return jax.nn.one_hot(actions, self.size, dtype=np.float32)

    def in_game(self, actions: "jax.Array") -> "jax.Array":
        """See `ActionSpace`."""
        import jax.numpy as jnp

        return actions if self.indices == tuple(range(self.size)) else jnp.asarray(self.indices, jnp.int32)[actions]

    def from_game(self, actions: "jax.Array") -> "jax.Array":
        """See `ActionSpace`."""
        import jax.numpy as jnp

        positions = np.zeros(max(self.indices) + 1, np.int32)
        positions[list(self.indices)] = np.arange(self.size)
        return jnp.asarray(positions)[actions]

    def checked(self, actions: ArrayLike, count: int) -> NDArray[Any]:
        """See `ActionSpace`."""
        choices = np.asarray(actions)
        if choices.shape != (count,) or not np.issubdtype(choices.dtype, np.integer):
            raise ValueError(f"actions {choices.dtype}{choices.shape}, expected integers {(count,)}")
        if choices.min() < 0 or choices.max() >= self.size:
            raise ValueError(f"actions must lie in 0..{self.size - 1}, got {choices.min()}..{choices.max()}")
        return np.asarray(self.indices, np.int32)[choices]

    def draw(self, random: np.random.Generator, count: int) -> NDArray[Any]:
        """See `ActionSpace`."""
        return random.integers(0, self.size, count, dtype=np.int32)

    def nothing(self, count: int) -> NDArray[Any]:
        """See `ActionSpace`."""
        return np.zeros(count, np.int32)


@dataclass(frozen=True)
class Thresholds(Discrete):
    """Three named actions from one output x, as in the paper's DoomTakeCover (Ha & Schmidhuber 2018, A.5): the first
    one where tanh x is below -1/3, the last one where it is above 1/3, else the one between.
    """

    EDGE: ClassVar[float] = 1 / 3

    def __post_init__(self) -> None:
        if len(self.names) != 3:
            raise ValueError(f"{len(self.names)} names; two thresholds part three actions")

    @property
    def outputs(self) -> int:
        """See `ActionSpace`."""
        return 1

    def choose(self, raw: "jax.Array") -> "jax.Array":
        """See `ActionSpace`: positions."""
        import jax.numpy as jnp

        x = jnp.tanh(raw[..., 0])
        return (x > self.EDGE).astype(jnp.int32) + (x >= -self.EDGE).astype(jnp.int32)


@dataclass(frozen=True)
class Continuous(ActionSpace):
    """A vector of bounded numbers, squashed per dimension."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    squash: tuple[Squash, ...]

    def choose(self, raw: "jax.Array") -> "jax.Array":
        """See `ActionSpace`: vectors."""
        import jax
        import jax.numpy as jnp

        columns = []
        for i, (squash, low, high) in enumerate(zip(self.squash, self.low, self.high, strict=True)):
            x = raw[..., i]
            match squash:
                case "tanh":
                    columns.append(low + (high - low) * 0.5 * (jnp.tanh(x) + 1.0))
                case "sigmoid":
                    columns.append(jax.nn.sigmoid(x))
                case "positive_tanh":
                    columns.append(jnp.maximum(jnp.tanh(x), 0.0))
        return jnp.stack(columns, axis=-1).astype(jnp.float32)

    def encode(self, actions: "jax.Array") -> "jax.Array":
        """See `ActionSpace`: the vector itself."""
        return actions.astype(np.float32)

    def in_game(self, actions: "jax.Array") -> "jax.Array":
        """See `ActionSpace`."""
        return actions

    def from_game(self, actions: "jax.Array") -> "jax.Array":
        """See `ActionSpace`."""
        return actions

    def checked(self, actions: ArrayLike, count: int) -> NDArray[Any]:
        """See `ActionSpace`: cut to the bounds."""
        moves = np.asarray(actions, np.float32)
        if moves.shape != (count, self.size):
            raise ValueError(f"actions {moves.shape}, expected {(count, self.size)}")
        return np.clip(moves, np.array(self.low, np.float32), np.array(self.high, np.float32))

    def draw(self, random: np.random.Generator, count: int) -> NDArray[Any]:
        """See `ActionSpace`."""
        return random.uniform(self.low, self.high, (count, self.size)).astype(np.float32)

    def nothing(self, count: int) -> NDArray[Any]:
        """See `ActionSpace`."""
        return np.zeros((count, self.size), np.float32)
