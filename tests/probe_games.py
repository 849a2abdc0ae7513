"""A Gymnasium game with known answers; worker processes import it as `gymnasium:probe_games:Probe-v0`.

The frame shows what happened: [0, 0] = steps so far, seed, whether JAX was imported; [1, 0, 0] = the last action.
The reward is seed + steps, the game ends after seed % 5 + 2 steps, and refuses to go on after its end.
"""

import sys

import gymnasium
import numpy as np


class Probe(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3, start=1)
    metadata = {"render_fps": 7}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, **_):
        self.steps, self.begun = 0, 0

    def _screen(self, action):
        screen = np.zeros((64, 64, 3), np.uint8)
        screen[0, 0] = self.steps, self.begun, "jax" in sys.modules
        screen[1, 0, 0] = action
        return screen

    def reset(self, *, seed=None, options=None):
        self.steps, self.begun = 0, seed or 0
        return self._screen(0), {}

    def step(self, action):
        if action == 3:
            raise RuntimeError("boom")
        if self.steps == self.begun % 5 + 2:
            raise RuntimeError("stepped after the end")
        self.steps += 1
        return self._screen(action), self.begun + self.steps, self.steps == self.begun % 5 + 2, False, {}


gymnasium.register("Probe-v0", Probe, max_episode_steps=200)


class TwoHalves(Probe):
    """A game of 40 steps that begins dark, with a white square that goes from left to right, and becomes another one:
    a bright picture with dark bars. Whatever is done, all episodes look the same; the reward is 1 for action 1 alone.
    """

    def _screen(self, action):
        screen = np.zeros((64, 64, 3), np.uint8)
        if self.steps < 20:
            screen[28:36, 2 * self.steps : 2 * self.steps + 8] = 255
        else:
            screen[:] = (240, 200, 40)
            screen[:, (np.arange(64) + self.steps) % 16 < 6] = 20
        return screen

    def step(self, action):
        self.steps += 1
        return self._screen(action), float(action == 1), self.steps == 40, False, {}


gymnasium.register("TwoHalves-v0", TwoHalves)
