"""A process that plays Gymnasium environments for `gymnasium.py`. It must start fast, so it imports no JAX.

    python -m wm_jax.envs.host.worker FD EMPLOYER GRACE

takes the descriptor of its pipe, the process at the other end, and the seconds in which it may close its environments
once that is gone. The pipe brings (ID, options, crop) first, then

    orders    [(kind, round, slot, value), ...]; kind "reset": value is the seed; kind "step": the action
    answers   (round, slot, frame, reward, terminated, truncated), one for each order
              ("failed", deed, error, traceback): what the environment raised in `deed` (opening, reset or step), after
              which the process ends

However it ends, but by being killed, it closes every environment.
"""

import contextlib
import faulthandler
import signal
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from typing import Any

from wm_jax.envs.host import guard


def serve(orders: Connection) -> None:
    """Play until the pipe closes, which also happens when the parent dies; the environments are closed then."""
    identifier, options, crop = orders.recv()
    environments: dict[int, Any] = {}
    try:
        while True:
            for kind, number, slot, value in orders.recv():
                # What the environment raises is told apart from a pipe that has closed: it may have pipes of its own.
                deed = "opening"
                try:
                    if slot not in environments:
                        environments[slot] = _open(identifier, options)
                    deed = kind
                    answer = _play(environments[slot], kind, value, crop)
                except BaseException as error:  # SystemExit too; it becomes the parent's one sentence
                    sentence = " ".join(f"{type(error).__name__}: {error}".split())
                    orders.send(("failed", deed, sentence, traceback.format_exc()))
                    return
                orders.send((number, slot, *answer))
    finally:
        for environment in environments.values():
            try:
                environment.close()
            except BaseException:  # the others are to be closed all the same
                traceback.print_exc()


def _open(identifier: str, options: dict[str, Any]) -> Any:
    # Imported here: what the worker's guard does not need would be in its memory too.
    from wm_jax.envs.host.adapt import open_environment

    return open_environment(identifier, **options)


def _play(environment: Any, kind: str, value: Any, crop: tuple[int, int, int, int] | None) -> tuple[Any, ...]:
    """Frame, reward, terminated and truncated."""
    from wm_jax.envs.host.resize import shrink

    if kind == "reset":
        screen, _ = environment.reset(seed=value)
        return shrink(screen[None], crop)[0], 0.0, False, False
    screen, reward, terminated, truncated, _ = environment.step(value)
    return shrink(screen[None], crop)[0], float(reward), bool(terminated), bool(truncated)


def main() -> None:
    """Entry of the process; see above for its arguments."""
    descriptor, employer, grace = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    guard.guarded(employer, grace, (descriptor,))
    guard.leave_signals_to_the_employer()
    faulthandler.register(signal.SIGUSR2, all_threads=False)  # where it is, before it is killed
    warnings.simplefilter("ignore")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(Connection(descriptor))


if __name__ == "__main__":
    main()
