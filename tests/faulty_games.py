"""Gymnasium games that fail as asked; worker processes import them as `gymnasium:faulty_games:NAME`.

Each keeps a diary in the file that WM_JAX_TEST_DIARY names: a line `open PID SEED` at its first reset and `close PID
SEED` when it is closed. What happens depends on the game's name, the episode's seed and the number of the step.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np


def diary(*words) -> None:
    """One line, written at once."""
    with Path(os.environ["WM_JAX_TEST_DIARY"]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def hang_in_c() -> None:
    """Hold Python's lock for ever: no other thread can do anything."""
    while True:  # signals wake it up
        ctypes.PyDLL(None).sleep(1000)


class Faulty(gymnasium.Env):
    """Frames show steps and seed at [0, 0]; the reward of step n is n."""

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.steps, self.seed = 0, -1

    def _screen(self):
        return np.full((64, 64, 3), [self.steps, self.seed, 0], np.uint8)

    def reset(self, *, seed=None, options=None):
        assert seed is not None
        if self.seed < 0:
            diary("open", os.getpid(), seed)
        self.steps, self.seed = 0, seed
        return self._screen(), {}

    def step(self, action):
        self.steps += 1
        return self._screen(), self.steps, False, False, {}

    def close(self):
        diary("close", os.getpid(), self.seed)


class Quiet(Faulty):
    """Does nothing wrong."""


class Raises(Faulty):
    """Raises in the second step of seed 1: what a lost simulator raises, the same as a closed pipe of ours."""

    def step(self, action):
        if self.steps == 1 and self.seed == 1:
            raise ConnectionResetError("the simulator\nis gone")
        return super().step(action)


class RaisesInReset(Faulty):
    """Raises in every reset."""

    def reset(self, *, seed=None, options=None):
        raise SystemExit("no track")


class CannotOpen(Faulty):
    """Opens where it is described, but not in a worker."""

    def __init__(self):
        super().__init__()
        if "wm_jax.envs.host.pool" not in sys.modules:
            raise FileNotFoundError("no simulator here")


class HangsInC(Faulty):
    """With odd seeds it never returns from its second step."""

    def step(self, action):
        if self.steps == 1 and self.seed % 2:
            diary("stuck", os.getpid(), self.seed)
            hang_in_c()
        return super().step(action)


class HangsInReset(Faulty):
    """Never returns from a second reset, and from no first reset of seed 9."""

    def reset(self, *, seed=None, options=None):
        if self.seed >= 0 or seed == 9:
            time.sleep(1000)
        return super().reset(seed=seed)


class HangsInClose(Faulty):
    """Can't be closed once it was played."""

    def close(self):
        super().close()
        if self.seed >= 0:
            time.sleep(1000)


class FailsToClose(Faulty):
    """Raises when it is closed after it was played."""

    def close(self):
        super().close()
        if self.seed >= 0:
            raise RuntimeError("no")


class Simulator(Faulty):
    """Has a child process, and ends it in `close`."""

    def __init__(self):
        super().__init__()
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        diary("child", self.child.pid)

    def step(self, action):
        if action == 1:
            diary("stuck", os.getpid(), self.seed)
            hang_in_c()
        return super().step(action)

    def close(self):
        super().close()
        self.child.terminate()
        self.child.wait()


class Crashes(Faulty):
    """Dies of a segmentation fault in the third step of seed 1, and of seeds from 100 on in every reset."""

    def reset(self, *, seed=None, options=None):
        if seed is not None and seed >= 100:
            self._die()
        return super().reset(seed=seed)

    def step(self, action):
        if self.steps == 2 and self.seed == 1:
            self._die()
        return super().step(action)

    def _die(self):
        print("first line\nsimulator: assertion failed", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)


class CrashesOnce(Faulty):
    """Dies in the third step of seed 1, but not when that is played again. Episodes end after their fifth step."""

    def step(self, action):
        if self.steps == 2 and self.seed == 1 and "crash" not in Path(os.environ["WM_JAX_TEST_DIARY"]).read_text():
            diary("crash")
            os.kill(os.getpid(), signal.SIGSEGV)
        screen, reward, *_ = super().step(action)
        return screen, reward, self.steps == 5, False, {}


class Eaten(Faulty):
    """Is killed as the kernel kills where memory is short, in every reset."""

    def reset(self, *, seed=None, options=None):
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Rewards(Faulty):
    """Third rewards that are no numbers: NaN, -infinity and 1e39 for seeds 0, 1 and 2."""

    def step(self, action):
        screen, reward, *rest = super().step(action)
        if self.steps == 3:
            reward = (np.nan, -np.inf, 1e39)[self.seed]
        return screen, reward, *rest


class Wide(Faulty):
    """An action of 4,096 numbers."""

    action_space = gymnasium.spaces.Box(-1, 1, (4096,), np.float32)

    def step(self, action):
        screen, *rest = super().step(action)
        screen[1, 0] = round(float(action[-1]) * 100)
        return screen, *rest


class Undescribed(Faulty):
    """Has actions that we do not play."""

    action_space = gymnasium.spaces.MultiBinary(9)


for game in Faulty.__subclasses__():
    gymnasium.register(f"{game.__name__}-v0", f"{__name__}:{game.__name__}")
