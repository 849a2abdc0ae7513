"""A process that plays Gymnasium environments for `gymnasium.py`: `python -m wm_jax.envs.host.worker FD`.

It must start fast, so it imports no JAX. Orders and answers go through one pipe:

    orders    ("reset", round, [(slot, seed), ...])    ("step", round, [(slot, action), ...])
    answers   (round, slot, frame, reward, terminated, truncated), one for each slot
              ("failed", reason), after which the process ends
"""

import contextlib
import sys
import warnings
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def serve(orders: Connection) -> None:
    """Play until the pipe closes, which also happens when the parent dies."""
    from wm_jax.envs.host.adapt import open_environment
    from wm_jax.envs.host.frames import shrink

    identifier, options, crop = orders.recv()
    environments: dict[int, Any] = {}

    def answer(number: int, slot: int, screen: np.ndarray, *rest: Any) -> None:
        orders.send((number, slot, shrink(screen[None], crop)[0], *rest))

    while True:
        order, number, items = orders.recv()
        for slot, value in items:
            if order == "reset":
                if slot not in environments:
                    environments[slot] = open_environment(identifier, **options)
                screen, _ = environments[slot].reset(seed=value)
                answer(number, slot, screen, 0.0, False, False)
            else:
                screen, reward, terminated, truncated, _ = environments[slot].step(value)
                answer(number, slot, screen, float(reward), bool(terminated), bool(truncated))


def main() -> None:
    """Entry of the process; its one argument is the file descriptor of the pipe."""
    warnings.simplefilter("ignore")
    orders = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            serve(orders)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # whatever a game raises becomes the parent's one sentence
            orders.send(("failed", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
