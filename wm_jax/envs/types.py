"""What environments of every kind have in common: the answers to a step, and the contracts of pools and engines."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from wm_jax.envs.device_game import DeviceGame

LARGEST_SEED = 2**31 - 1


class Step(NamedTuple):
    """What B slots answered to their last action."""

    ids: NDArray[np.int32]
    """[B] slots."""
    frames: NDArray[np.uint8]
    """[B, 64, 64, 3]; the real last frame where an episode ends."""
    reward: NDArray[np.float32]
    """[B]"""
    terminated: NDArray[np.bool_]
    """[B] the game ended the episode."""
    truncated: NDArray[np.bool_]
    """[B] the step limit ended it, or the death of a worker process; never together with `terminated`."""
    lost: NDArray[np.bool_]
    """[B] it was the death of a worker process: what came of the episode says nothing about who played it."""


class Pool(Protocol):
    """Environments that play one episode each per reset, stepped together or as they become ready."""

    slots: int

    @property
    def episode_steps(self) -> int:
        """The longest episode."""
        ...

    @property
    def environment(self) -> "DeviceGame | None":
        """The game as a function of JAX, where it is one: agents can then play it on the device."""
        ...

    @property
    def restarts(self) -> bool:
        """Can a slot begin another episode by itself (`restart`), or only all of them together (`reset`)?"""
        ...

    def reset(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Start one episode per seed, slot i with seeds[i]; returns the first frames uint8[N, 64, 64, 3]."""
        ...

    def restart(self, ids: ArrayLike, seeds: Sequence[int]) -> None:
        """Begin other episodes in slots that owe no step, without waiting; only where `restarts`.

        The next answer of each slot is its first frame, with reward 0 and no end.
        """
        ...

    def send(self, ids: ArrayLike, actions: ArrayLike) -> None:
        """Step these slots without waiting; actions int[B] positions in `Discrete.names`, or float32[B, A]."""
        ...

    def recv(self) -> Step:
        """The next slots that are ready: at least one of those in flight, about half of them if there are many.

        Raises:
          UserError: a reward is not finite, or the game failed.
        """
        ...

    def step(self, actions: ArrayLike) -> Step:
        """Step all slots and wait; ended ones ignore their action and repeat their last frame with reward 0."""
        ...

    def close(self) -> None:
        """Free the environments; the pool is of no use afterwards."""
        ...


class Engine(Protocol):
    """Starts and steps environments; keeps no episode books and never checks its arguments."""

    @property
    def environment(self) -> "DeviceGame | None":
        """See `Pool`."""
        ...

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Start slot i with seeds[i], forgetting everything that was in flight; the first frames [N, 64, 64, 3]."""
        ...

    @property
    def restart(self) -> Callable[[NDArray[np.int32], Sequence[int]], None] | None:
        """Start these slots again with other seeds, their first frames to be received like steps; None: it can't."""
        ...

    def send(self, ids: NDArray[np.int32], actions: NDArray) -> None:
        """Step these slots; actions int32[B] as the game counts them, or float32[B, A]."""
        ...

    def recv(self, most: int) -> Step:
        """The first of the slots in flight that are ready: at least 1, about `most`.

        An episode that can't go on through no fault of its own, because the process that played it has died, ends here:
        truncated and lost, with the frame that it showed last and reward 0. A slot that was to begin one does begin it.
        """
        ...

    def close(self) -> None:
        """Free everything."""
        ...
