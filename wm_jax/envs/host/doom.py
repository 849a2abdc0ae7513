"""DoomTakeCover as a Gymnasium environment, by ViZDoom: the game of the dreams of Ha & Schmidhuber 2018, section 4.

Monsters shoot fireballs at a player who can only step to the left and to the right. One step is one tic of the game, 35
to a second; the reward is 1 for each step that the player survives, for at most 2,100 steps. Skill 4 of today's engine
is the game that the paper's authors played: random play survives there for some 210 steps, as theirs did.

Importing this registers `DoomTakeCover-v0`. ViZDoom writes into the current folder: it is started in one of its own.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from wm_jax.envs.families import DOOM_FPS, DOOM_SCREEN

MOVES = ((False, False), (False, True), (True, False))
"""Of the actions none, right and left: whether the buttons for left and right are held."""
REMEDY = "install it with `pip install vizdoom` (there are wheels for Linux and macOS, Python 3.10 to 3.14)"


class TakeCover(gymnasium.Env[NDArray[np.uint8], int]):
    """One player. The frame at the death is black, as in the authors' recordings: the engine has none."""

    metadata = {"render_modes": [], "render_fps": DOOM_FPS}  # noqa: RUF012 (so Gymnasium has it)

    def __init__(self, skill: int = 4, render_mode: None = None):
        """Start the engine.

        Args:
          skill: how hard the game is, 1 to 5.

        Raises:
          ImportError: there is no ViZDoom here.
        """
        try:
            import vizdoom
        except ImportError as error:
            raise ImportError(f"DoomTakeCover needs ViZDoom, which can't be loaded ({error}); {REMEDY}") from None
        self.observation_space = gymnasium.spaces.Box(0, 255, (*DOOM_SCREEN, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self._folder = tempfile.TemporaryDirectory(prefix="wm_jax-doom-")
        game = vizdoom.DoomGame()
        game.set_doom_scenario_path(str(Path(vizdoom.scenarios_path) / "take_cover.wad"))
        game.set_doom_config_path(str(Path(self._folder.name) / "settings.ini"))
        game.set_doom_map("map01")
        game.set_doom_skill(skill)
        game.set_available_buttons([vizdoom.Button.MOVE_LEFT, vizdoom.Button.MOVE_RIGHT])
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_render_hud(False)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_episode_start_time(1)
        game.set_episode_timeout(0)  # the limit is ours, so that truncation is told from death
        game.set_mode(vizdoom.Mode.PLAYER)
        with _inside(self._folder.name):
            game.init()
        self._game = game

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """See Gymnasium: a new game, decided by its seed."""
        super().reset(seed=seed)
        self._game.set_seed(int(self.np_random.integers(2**31)) if seed is None else seed)
        with _inside(self._folder.name):
            self._game.new_episode()
        return self._screen(), {}

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """See Gymnasium: one tic. Action 0 is none, 1 right, 2 left."""
        self._game.make_action(list(MOVES[int(action)]), 1)
        is_dead = self._game.is_episode_finished()
        return np.zeros((*DOOM_SCREEN, 3), np.uint8) if is_dead else self._screen(), 1.0, is_dead, False, {}

    def close(self) -> None:
        """See Gymnasium."""
        with _inside(self._folder.name):
            self._game.close()
        self._folder.cleanup()

    def _screen(self) -> NDArray[np.uint8]:
        return np.array(self._game.get_state().screen_buffer)


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Meanwhile the current folder is this one: a worker process has no threads that would mind."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


gymnasium.register(
    "DoomTakeCover-v0", entry_point=f"{__name__}:TakeCover", disable_env_checker=True, order_enforce=False
)
