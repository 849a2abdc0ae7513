"""Action spaces as plain data. What is computed from them lives in `models/controller.py`.

Free of JAX, so that environment worker processes import it cheaply.
"""

from dataclasses import dataclass
from typing import Literal

Squash = Literal["tanh", "sigmoid", "positive_tanh"]
"""How one raw controller output becomes one continuous action.

`tanh` fills [low, high]; `sigmoid` fills [0, 1]; `positive_tanh` is tanh cut off at 0 (the paper's brake). What is here
`sigmoid` may be `tanh` for an agent (`controller.gas`).
"""


@dataclass(frozen=True)
class Discrete:
    """A choice between named actions. Replays and models see the position in `names`, the game sees `indices`."""

    names: tuple[str, ...]
    indices: tuple[int, ...]

    @property
    def size(self) -> int:
        """Outputs of the controller, and the length of the one-hot action that M sees."""
        return len(self.names)


@dataclass(frozen=True)
class Continuous:
    """A vector of bounded numbers, squashed per dimension."""

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    squash: tuple[Squash, ...]

    @property
    def size(self) -> int:
        """Outputs of the controller, and the length of the action that M sees."""
        return len(self.names)


ActionSpace = Discrete | Continuous
