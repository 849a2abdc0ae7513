"""What environments of every kind have in common: a game, the answers to a step, and the contracts of whoever steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_jax.config.schema import EnvConfig
from wm_jax.envs.spaces import ActionSpace

if TYPE_CHECKING:
    import jax

LARGEST_SEED = 2**31 - 1

Crop = tuple[int, int, int, int]
"""top, bottom, left, right: rows top..bottom-1 and columns left..right-1."""


@dataclass(frozen=True)
class Game:
    """One game, resolved with its settings."""

    name: str
    """As in the catalogue; names the run's folder."""
    family: str
    """carracing, doom, atari, procgen, gymnasium, jax or own."""
    title: str
    """For people."""
    actions: ActionSpace
    screen: tuple[int, int]
    """Height and width of the game's screen, in pixels."""
    crop: Crop | None
    """What is seen of the screen (None: everything)."""
    episode_steps: int
    """Longest episode, in agent steps; no longer than the game's own limit."""
    fps: float
    """Agent steps in one second of the game, for videos."""
    env: EnvConfig
    envpool_id: str | None = None
    gymnasium_id: str | None = None
    device_entry: str | None = None
    """`module:NAME` of its `DeviceGame`, if it has one."""
    random_starts: bool = False
    """Can episodes begin elsewhere than at the beginning?"""
    unit: str = "score"
    """What the score counts."""
    solved: float | None = None
    """The mean score at which the game counts as solved."""
    step_reward: float | None = None
    """The reward of every step, where that is always the same: then M need not learn it."""
    recorded: bool = False
    """It consists of recordings (bin/import): there is nothing to play."""
    conversions: tuple[str, ...] = ()
    """What is done to an environment's observations and actions before they are seen and played, in words."""
    remarks: tuple[str, ...] = ()
    """What else the user should know of how the settings were taken."""

    def up_to(self, steps: int | None) -> "Game":
        """The game with episodes of at most so many steps, where it does not end them earlier itself."""
        return self if steps is None else replace(self, episode_steps=min(steps, self.episode_steps))


class DeviceGame(ABC):
    """A game that is a pure function of JAX: agents play it where their network is, in one program with it.

    Subclasses give `name`, `actions` and the three methods, which are made for `jax.vmap` over episodes. No step begins
    an episode anew: one that has ended may be stepped on, and nobody looks at what comes of that. An episode is decided
    by its seed and its actions: what it draws, it draws from a key that its state holds.

    Instances with equal attributes are equal, so that what is compiled for one serves all.

    Attributes:
      name: for people.
      actions: what its actions are; positions int32[] of the discrete ones, float32[A] of continuous ones.
      episode_steps: its longest episode.
      fps: steps in one second of it, for videos.
      unit: what the score counts.
      solved: the mean score at which it counts as solved, if there is one.
      has_products: it multiplies matrices, so that a row's bits may depend on how many rows are stepped together.
      random_starts: can `for_training` begin its episodes elsewhere than at the beginning?
    """

    name: str
    actions: ActionSpace
    episode_steps: int = 1000
    fps: float = 15.0
    unit: str = "score"
    solved: float | None = None
    has_products: bool = False
    random_starts: bool = False

    @abstractmethod
    def params_for(self, seeds: Sequence[int]) -> Any:
        """What the episodes of S different seeds are played on, and where they begin: a pytree of arrays."""

    @abstractmethod
    def start(self, params: Any, place: "jax.Array") -> "tuple[Any, Any]":
        """The beginning of the episode of seed number `place` (int32[]) of `params`.

        Returns:
          what is observed: a frame uint8[64, 64, 3]; or a latent float32[Z] of a game that V has already seen, alone or
          with the state of an M that the agent shares (`models.agent.Remembered`); and the game's state, a pytree of
          arrays.
        """

    @abstractmethod
    def step(self, params: Any, state: Any, action: "jax.Array") -> "tuple[Any, Any, jax.Array, jax.Array]":
        """One step: what is observed then, the state, the reward float32[], and whether the game has ended, bool[]."""

    def factors(self, params: Any, state: Any) -> "dict[str, jax.Array]":
        """The state in numbers float32[] that a person would name, for probes of what a latent holds; none, if not
        given.
        """
        return {}

    def for_training(self, *, random_start: bool = False, endless: bool = False) -> "DeviceGame":
        """The game as training data are made of it.

        Args:
          random_start: episodes begin anywhere, as their seeds decide, where `random_starts`.
          endless: levels may be of another make than those of the game itself, if ever new ones cost less so.
        """
        return self

    def __eq__(self, other: object) -> bool:
        """Alike ones are the same to `jax.jit`."""
        return type(other) is type(self) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *sorted(vars(self))))


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
    def device_game(self) -> DeviceGame | None:
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
    def device_game(self) -> DeviceGame | None:
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
