"""Gymnasium's own environments in worker processes: the official games, and any other with image observations.

One process per core, several slots in each; a worker answers slot by slot, so `recv` returns whoever is ready.
Workers are fresh interpreters that run `worker.py`: never forks, as JAX may have started threads here, and never
`multiprocessing`'s spawn, which would import the main script, and JAX with it, in every worker.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wm_jax.envs.games import Game
from wm_jax.envs.host.frames import SIZE
from wm_jax.envs.host.pool import Step
from wm_jax.errors import UserError
from wm_jax.process import cores
from wm_jax.spaces import Continuous


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    pipe: Connection
    complaints: IO[bytes]
    """What the process wrote on its standard error."""


def open_engine(game: Game, slots: int, *, official: bool, workers: int = 0) -> "GymnasiumEngine":
    """Workers for `slots` environments; `official` ignores the settings that change the game."""
    env = game.env
    options = {"kwargs": env.kwargs, "observation": env.observation, "pixels": env.pixels, "screen": game.screen}
    if game.family == "atari" and not official:
        options["kwargs"] = {"frameskip": env.frame_skip, "repeat_action_probability": env.sticky}
    return GymnasiumEngine(game, options, min(slots, workers or game.env.threads or cores()))


class GymnasiumEngine:
    """An `Engine` over worker processes; slot i lives in worker i modulo their number."""

    environment = None

    def __init__(self, game: Game, options: dict[str, Any], workers: int):
        self._game = game
        self._continuous = isinstance(game.actions, Continuous)
        self._round = 0
        self._flying = 0
        self._workers = [self._launch() for _ in range(workers)]
        for index in range(workers):
            self._order(index, (game.gymnasium_id, options, game.crop))

    def _launch(self) -> _Worker:
        ours, theirs = Pipe()
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the engine)
        paths = [path or os.getcwd() for path in sys.path]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "wm_jax.envs.host.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            # One core per worker: numerical libraries inside a game mustn't start threads of their own.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            start_new_session=True,  # Ctrl-C is the parent's alone; workers end when their pipe does
        )
        theirs.close()
        return _Worker(process, ours, complaints)

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Engine`. Answers to the round before are dropped as they come."""
        self._round += 1
        self._flying = 0
        self._spread("reset", [(slot, seed) for slot, seed in enumerate(seeds)])
        frames = np.empty((len(seeds), SIZE, SIZE, 3), np.uint8)
        step = self.recv(len(seeds))
        frames[step.ids] = step.frames
        return frames

    def restart(self, ids: NDArray[np.int32], seeds: Sequence[int]) -> None:
        """See `Engine`."""
        self._spread("reset", list(zip(ids.tolist(), seeds, strict=True)))

    def send(self, ids: NDArray[np.int32], actions: NDArray) -> None:
        """See `Engine`."""
        played = list(actions) if self._continuous else actions.tolist()
        self._spread("step", list(zip(ids.tolist(), played, strict=True)))

    def recv(self, most: int) -> Step:
        """See `Engine`. Raises UserError when a worker has died or its game failed."""
        answers: list[tuple] = []
        wanted = min(most, self._flying)
        # Waits for a full batch: answers that trickle out one by one would each cost the caller a turn of its policy.
        while len(answers) < wanted:
            ready = {worker.pipe: index for index, worker in enumerate(self._workers)}
            for pipe in wait(list(ready)):
                self._collect(ready[pipe], answers, wanted)  # pyright: ignore[reportArgumentType]
        self._flying -= len(answers)
        ids, frames, reward, terminated, truncated = zip(*answers, strict=True)
        return Step(
            np.array(ids, np.int32),
            np.stack(frames),
            np.array(reward, np.float32),
            np.array(terminated),
            np.array(truncated),
        )

    def close(self) -> None:
        """See `Engine`. Workers end when their pipe closes; one that is stuck in its game is killed."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            try:
                worker.process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.complaints.close()
        self._workers = []

    def _collect(self, index: int, answers: list[tuple], most: int) -> None:
        """Take what one worker has ready, up to `most` answers in all."""
        pipe = self._workers[index].pipe
        try:
            while len(answers) < most and pipe.poll():
                number, *answer = pipe.recv()
                if number == "failed":
                    self._give_up(index, answer[0])
                if number == self._round:
                    answers.append(tuple(answer))
        except (EOFError, ConnectionResetError):
            self._give_up(index)

    def _spread(self, order: str, items: list[tuple[int, Any]]) -> None:
        self._flying += len(items)
        count = len(self._workers)
        for index in range(count):
            mine = [item for item in items if item[0] % count == index]
            if mine:
                self._order(index, (order, self._round, mine))

    def _order(self, index: int, message: Any) -> None:
        try:
            self._workers[index].pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._give_up(index)

    def _give_up(self, index: int, reason: str = "") -> None:
        """Close everything and raise the one sentence that says why."""
        worker = self._workers[index]
        # It may have said why before it ended.
        with contextlib.suppress(EOFError, ConnectionResetError):
            while not reason and worker.pipe.poll(1.0):
                number, *answer = worker.pipe.recv()
                reason = answer[0] if number == "failed" else ""
        if not reason:
            code = worker.process.wait()
            worker.complaints.seek(0)
            lines = worker.complaints.read().decode(errors="replace").strip().splitlines()
            reason = f"died with exit code {code}" + (f": {lines[-1]}" if lines else "")
        self.close()
        raise UserError(
            f"environment worker {index} of {self._game.name} failed ({reason}); "
            f"run again, with fewer workers if memory is short"
        )
