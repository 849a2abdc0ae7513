"""Gymnasium's own environments in worker processes: the official games, and any other with image observations.

One process per core, several slots in each; a worker answers slot by slot, so `recv` returns whoever is ready.
Workers are fresh interpreters that run `worker.py`: never forks, as JAX may have started threads here, and never
`multiprocessing`'s spawn, which would import the main script, and JAX with it, in every worker. Each has a guard
(`guard.py`), so that none outlives this process.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import IO, Any, Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from wm_jax.distributed.progress import log
from wm_jax.envs.types import Game, Step
from wm_jax.utils.errors import UserError
from wm_jax.utils.process import cores
from wm_jax.utils.sizes import FRAME

GRACE_S = 10.0
"""For closing environments; a worker that takes longer is killed."""
RESTARTS = 5
"""Workers that may die in the life of an engine: so often they are replaced."""
LOOK_S = 1.0
"""Between two looks for workers that are stuck."""


class _Order(NamedTuple):
    """What a slot is to do, and the seed of its episode."""

    kind: Literal["reset", "step"]
    round: int
    slot: int
    value: Any
    """The seed, or the action."""
    seed: int

    @property
    def size(self) -> int:
        """No less than the bytes that it takes in the pipe."""
        return 1024 + getattr(self.value, "nbytes", 0)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    """The worker's guard (`guard.py`), which ends as the worker does."""
    pipe: Connection
    room: int
    """Bytes that the pipe takes in for certain while nobody reads."""
    complaints: IO[bytes]
    """What the process wrote on its standard error."""
    waiting: deque[_Order] = field(default_factory=deque)
    """Not sent yet."""
    owed: deque[_Order] = field(default_factory=deque)
    """Sent and not answered yet; they are answered in this order."""
    opened: set[int] = field(default_factory=set)
    """Slots whose environment has answered."""
    silent: float = 0.0
    """Seconds for which we have waited for its next answer."""
    looked: float = 0.0
    """When `silent` was last brought up to date."""

    def flush(self) -> None:
        """Send what is waiting, as far as the pipe can hold it unread.

        A worker that can't get rid of its answers reads no orders. If we then waited for room in the pipe, both would
        wait for ever. One that owes nothing reads, however much is sent.
        """
        batch, unread = [], sum(order.size for order in self.owed)
        if not self.owed:
            self.silent, self.looked = 0.0, time.monotonic()
        while self.waiting and (not self.owed or unread + self.waiting[0].size <= self.room):
            order = self.waiting.popleft()
            self.owed.append(order)
            unread += order.size
            batch.append(order[:4])
        if batch:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `recv` finds out, and why
                self.pipe.send(batch)

    def answered(self) -> _Order:
        """Enter an answer; what it is the answer to."""
        order = self.owed.popleft()
        self.opened.add(order.slot)
        self.silent, self.looked = 0.0, time.monotonic()
        return order

    def look(self, longest: float) -> None:
        """Bring `silent` up to date, by no more than `longest`: nobody waited while we, or the machine, were away."""
        now = time.monotonic()
        idle = not self.owed or self.pipe.poll()
        self.silent = 0.0 if idle else self.silent + min(now - self.looked, longest)
        self.looked = now

    def end(self, within: float) -> int:
        """Wait for the process's end, and kill it after so many seconds; its exit code."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)
            return self.process.wait()

    def said(self) -> str:
        """What it wrote on its standard error; only once it has ended, for it shares our place in the file."""
        self.complaints.seek(0)
        return self.complaints.read().decode(errors="replace").strip()


def open_engine(
    game: Game, slots: int, *, official: bool, workers: int = 0, random_start: bool = False
) -> "GymnasiumEngine":
    """Workers for `slots` environments; `official` ignores the settings that change the game, and `random_start`."""
    env = game.env
    options = {"kwargs": env.kwargs, "observation": env.observation, "pixels": env.pixels, "screen": game.screen}
    if game.family == "doom":
        options["kwargs"] = {"skill": env.skill}
    if game.family == "atari" and not official:
        options["kwargs"] = {"frameskip": env.frame_skip, "repeat_action_probability": env.sticky}
        options["random_start"] = random_start
    return GymnasiumEngine(game, options, min(slots, workers or game.env.threads or cores()))


class GymnasiumEngine:
    """An `Engine` over worker processes; slot i lives in worker i modulo their number.

    A worker that has died is replaced, up to RESTARTS times. The episodes that its slots were playing end there: they
    answer with the frame that they showed last, reward 0, truncated and lost. Those that had not begun begin in the new
    one.
    """

    device_game = None

    def __init__(self, game: Game, options: dict[str, Any], workers: int):
        self._game, self._about = game, (game.gymnasium_id, options, game.crop)
        self._round = self._flying = self._deaths = 0
        self._seeds: dict[int, int] = {}
        self._shown: dict[int, NDArray[np.uint8]] = {}
        self._lost: set[int] = set()
        self._ready: deque[tuple[Any, ...]] = deque()
        self._limit = game.env.timeout or float("inf")
        self._glance, self._next_look = min(LOOK_S, self._limit / 4), 0.0
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._launch())
        except BaseException:
            self.close()
            raise

    def _launch(self) -> _Worker:
        ours, theirs = socket.socketpair()
        # A quarter: the system counts its own expenses for every message too.
        room = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 4
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the engine)
        paths = [path or os.getcwd() for path in sys.path]
        words = [str(word) for word in (theirs.fileno(), os.getpid(), GRACE_S)]
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "wm_jax.envs.host.worker", *words],
                pass_fds=[theirs.fileno()],
                # One core per worker: numerical libraries inside a game mustn't start threads of their own.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,  # Ctrl-C is the parent's alone; workers end when their pipe does
            )
        except OSError as error:
            ours.close()
            complaints.close()
            raise UserError(
                f"{self._game.name}: environment worker {len(self._workers)} can't be started ({error.strerror}); "
                "ask for fewer with env.threads"
            ) from None
        finally:
            theirs.close()
        worker = _Worker(process, Connection(ours.detach()), room, complaints)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # as in `flush`
            worker.pipe.send(self._about)
        return worker

    def start(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Engine`. Answers to the round before are dropped as they come."""
        self._round += 1
        self._flying = 0
        books = (self._ready, self._shown, self._seeds, self._lost)
        for left in (*books, *(worker.waiting for worker in self._workers)):
            left.clear()
        self._reset(enumerate(seeds))
        frames = np.empty((len(seeds), *FRAME), np.uint8)
        step = self.recv(len(seeds))
        frames[step.ids] = step.frames
        return frames

    def restart(self, ids: NDArray[np.int32], seeds: Sequence[int]) -> None:
        """See `Engine`."""
        self._reset(zip(ids.tolist(), seeds, strict=True))

    def send(self, ids: NDArray[np.int32], actions: NDArray) -> None:
        """See `Engine`."""
        played = list(actions) if actions.ndim > 1 else actions.tolist()
        orders = [
            _Order("step", self._round, slot, action, self._seeds[slot])
            for slot, action in zip(ids.tolist(), played, strict=True)
        ]
        self._flying += len(orders)
        for order in orders:
            if order.slot in self._lost:
                self._cut_short(order.slot)
        self._spread([order for order in orders if order.slot not in self._lost])

    def recv(self, most: int) -> Step:
        """See `Engine`.

        Raises:
          UserError: an environment raised something or is stuck, or workers have died too often.
        """
        answers: list[tuple[Any, ...]] = []
        wanted = min(most, self._flying)
        # Waits for a full batch: answers that trickle out one by one would each cost the caller a turn of its policy.
        while True:
            while self._ready and len(answers) < wanted:
                answers.append(self._ready.popleft())
            if len(answers) >= wanted:
                break
            ready = {worker.pipe: index for index, worker in enumerate(self._workers)}
            for pipe in wait(list(ready), self._glance):
                self._collect(ready[pipe], answers, wanted)  # pyright: ignore[reportArgumentType]
            self._refuse_stuck()
        self._flying -= len(answers)
        ids, frames, reward, *flags = zip(*answers, strict=True)
        with np.errstate(over="ignore"):  # whoever called refuses what is infinite
            rewards = np.array(reward).astype(np.float32)
        return Step(np.array(ids, np.int32), np.stack(frames), rewards, *map(np.array, flags))

    def close(self) -> None:
        """See `Engine`. Workers end when their pipe closes; one that is stuck in its game is killed."""
        for worker in self._workers:
            worker.pipe.close()
        until = time.monotonic() + GRACE_S
        for worker in self._workers:
            worker.end(max(0.0, until - time.monotonic()))
            worker.complaints.close()
        self._workers = []

    def _reset(self, episodes: Iterable[tuple[int, int]]) -> None:
        """Begin the episodes of these slots and seeds."""
        orders = [_Order("reset", self._round, slot, seed, seed) for slot, seed in episodes]
        self._flying += len(orders)
        self._seeds |= {order.slot: order.seed for order in orders}
        self._lost -= {order.slot for order in orders}
        self._spread(orders)

    def _spread(self, orders: list[_Order]) -> None:
        """Give the orders to the workers whose they are."""
        count = len(self._workers)
        for order in orders:
            self._workers[order.slot % count].waiting.append(order)
        for index in {order.slot % count for order in orders}:
            self._workers[index].flush()

    def _cut_short(self, slot: int) -> None:
        """The last answer of an episode whose worker has died."""
        self._ready.append((slot, self._shown[slot], 0.0, False, True, True))

    def _collect(self, index: int, answers: list[tuple[Any, ...]], most: int) -> None:
        """Take what one worker has ready, up to `most` answers in all."""
        worker = self._workers[index]
        try:
            while len(answers) < most and worker.pipe.poll():
                message = worker.pipe.recv()
                if message[0] == "failed":
                    self._give_up_on(worker.owed[0].seed, *message[1:])
                order = worker.answered()
                worker.flush()
                if order.round == self._round:
                    answers.append((*message[1:], False))
                    self._shown[order.slot] = message[2]
        except (EOFError, ConnectionResetError):
            self._replace(index)

    def _replace(self, index: int) -> None:
        """Another worker in the place of one that has died, or none if too many have."""
        dead = self._workers[index]
        dead.pipe.close()
        code = dead.end(GRACE_S)
        lines = dead.said().splitlines()
        died = f"exit code {code}{_signal_name(code)}" + (f": {lines[-1]}" if lines else "")
        self._deaths += 1
        if self._deaths > RESTARTS:
            advice = (
                "memory may be short: ask for fewer workers with env.threads"
                if code == -signal.SIGKILL
                else "mend the environment"
            )
            self._give_up(f"environment workers died {self._deaths} times, the last with {died}; {advice}", lines)
        dead.complaints.close()
        pending = [order for order in (*dead.owed, *dead.waiting) if order.round == self._round]
        resets = [order for order in pending if order.kind == "reset"]
        stepped = {order.slot for order in pending if order.kind == "step"}
        count = len(self._workers)
        self._lost |= {slot for slot in self._shown if slot % count == index} - {order.slot for order in resets}
        log(
            f"{self._game.name}: environment worker {index} died with {died}; another one takes its place "
            f"({self._deaths} of at most {RESTARTS} times), and the episodes that it was playing are lost",
            everywhere=True,
        )
        self._workers[index] = self._launch()
        for slot in stepped:
            self._cut_short(slot)
        self._spread(resets)

    def _refuse_stuck(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + self._glance
        for worker in self._workers:
            worker.look(2 * self._glance)
            if worker.silent > self._limit:
                order = worker.owed[0]
                deed = order.kind if order.slot in worker.opened else "opening or reset"
                worker.end(0)
                self._give_up(
                    f"the environment of seed {order.seed} has not answered for {self._limit:g} s in {deed}; "
                    "mend it, or allow it more with env.timeout (0: any time)",
                    worker.said().splitlines(),
                )

    def _give_up_on(self, seed: int, deed: str, raised: str, trace: str) -> NoReturn:
        """An environment has raised something."""
        self._give_up(
            f"the environment of seed {seed} raised {raised} in {deed}; mend it",
            trace.splitlines(),
        )

    def _give_up(self, sentence: str, details: list[str]) -> NoReturn:
        """Close everything, and raise the one sentence that says why."""
        self.close()
        error = UserError(f"{self._game.name}: {sentence}")
        error.details = "\n".join(details)
        raise error


def _signal_name(code: int) -> str:
    """` (SIGSEGV)` for the exit code of a process that this signal has ended."""
    names = {-number: f" ({number.name})" for number in signal.Signals}
    return names.get(code, "")
