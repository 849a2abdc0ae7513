"""Atari episodes that begin anywhere in a game, by the emulator's states of one game in which nobody acts.

For games that go on by themselves, as Enduro's day does: training sees all of it in short episodes.
"""

from typing import Any

import gymnasium
import numpy as np

STRIDE = 240
"""Emulator frames between two states that are kept; four seconds."""
MOST_FRAMES = 18_000
"""Emulator frames after which the states end where the game does not: five minutes."""
NOOP = 0

_banks: dict[str, list[Any]] = {}
"""The states of a game with these arguments: they are made once in a process, in some seconds."""


class RandomStart(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Each reset begins at a state that its seed chooses; the emulator's random numbers are the seed's own."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See Gymnasium; the first state is where the game itself begins."""
        states = self._states()
        observation, info = self.env.reset(seed=seed, options=options)
        place = int(np.random.default_rng(seed).integers(len(states) + 1))
        if place == 0:
            return observation, info
        emulator = self.env.unwrapped.ale  # pyright: ignore[reportAttributeAccessIssue]
        emulator.restoreState(states[place - 1])
        emulator.act(NOOP)  # a state holds no picture
        return emulator.getScreenRGB(), info

    def _states(self) -> list[Any]:
        spec = self.env.spec
        assert spec is not None
        game = repr((spec.id, sorted(spec.kwargs.items())))
        if game not in _banks:
            self.env.reset(seed=0)
            emulator = self.env.unwrapped.ale  # pyright: ignore[reportAttributeAccessIssue]
            states: list[Any] = []
            while len(states) < MOST_FRAMES // STRIDE:
                for _ in range(STRIDE):
                    emulator.act(NOOP)
                if emulator.game_over():
                    break
                states.append(emulator.cloneState())
            _banks[game] = states
        return _banks[game]
