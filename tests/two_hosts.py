"""What `test_devices.py` runs in two processes at once, two virtual devices each:

    python two_hosts.py FOLDER PORT INDEX

Prints this process's figures as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import conftest  # noqa: F401 (strict JAX on the CPU)
import jax
import numpy as np
from many_devices import STEPS, TASKS, encode, train, weights

from wm_jax import cli
from wm_jax.config.schema import EnvConfig, HostsConfig
from wm_jax.distributed import processes
from wm_jax.envs.car_racing.game import CarRacingGame
from wm_jax.envs.games import find
from wm_jax.run.checkpoints import Checkpoints, digest_of
from wm_jax.run.weights import Weights
from wm_jax.training import generated_frames
from wm_jax.training.generated_frames import GeneratedFrames
from wm_jax.utils.errors import UserError


def trainings(folder: Path) -> dict[str, Any]:
    """V and M by both processes, on all four devices; M also with a change between both and process 0 half-way."""
    alone = processes.on_main_process(train)
    before = {name: weights(make()[1]) for name, make in TASKS.items()}
    one = {name: alone(folder / "one", name, make, 1) for name, make in TASKS.items()}
    found = {f"{name}, both": train(folder / "both", name, make, 4) for name, make in TASKS.items()}
    half_way = ("memory", TASKS["memory"])
    alone(folder / "joined", *half_way, 2, steps=STEPS // 2)
    found["memory, joined"] = train(folder / "joined", *half_way, 4)
    train(folder / "left", *half_way, 4, steps=STEPS // 2)
    found["memory, left"] = alone(folder / "left", *half_way, 1)

    def error(name: str, trained: np.ndarray) -> float:
        return float(np.abs(trained - one[name]).max() / np.abs(one[name] - before[name]).max())

    return {how: error(how.split(",")[0], trained) for how, trained in found.items()}


def command(folder: Path, *words: str) -> int:
    """One command on a smoke run, by both processes."""
    return cli.main([*words, "--game", "chaser", "--preset", "smoke", "--run", str(folder)])


def searches(folder: Path) -> dict[str, Any]:
    """C evolved by both processes, and by process 0 alone: digests of the whole search after every generation."""
    saves: list[str] = []

    def recorded(save: Any) -> Any:
        def saving(*arguments: Any) -> str:
            saves.append(save(*arguments))
            return saves[-1]

        return saving

    original = {kind: kind.save for kind in (Checkpoints, Weights)}
    for kind, save in original.items():
        setattr(kind, "save", recorded(save))  # noqa: B010
    words = ("train_controller", "--controller.world", "random", "--controller.population", "5", "--vae.width", "0.125")
    status = command(folder / "both", *words)
    both = saves[:]
    saves.clear()
    processes.on_main_process(command)(folder / "alone", *words)
    for kind, save in original.items():
        setattr(kind, "save", save)  # noqa: B010
    return {"status": status, "both": both, "alone": processes.all_gather_objects(lambda: saves)[0]}


def fresh() -> str:
    """The frames that V would be trained on here, where all processes drive all of them."""
    generated_frames.EPISODES = 2
    actions = find("carracing", EnvConfig(backend="device")).actions
    how: dict[str, Any] = {"steps": 8, "policy": "brownian", "hold": 8.0}
    game = CarRacingGame(random_start=True, endless=True)
    return digest_of(np.asarray(GeneratedFrames(game, actions, 4, 0, **how).references(0, 2, 2)))


def errors() -> list[Any]:
    """What both make of errors that somebody catches, and that they still understand each other afterwards."""

    def fail(whose: int) -> str:
        if processes.index() == whose:
            raise UserError(f"of process {whose}")
        return "well"

    heard: list[Any] = []
    for attempt in (
        lambda: processes.on_main_process(fail)(0),
        lambda: processes.all_gather_objects(lambda: fail(1)),
        lambda: processes.on_main_process(fail)(1),
    ):
        try:
            heard.append(attempt())
        except UserError as error:
            heard.append(str(error))
    try:
        processes.all_gather_objects(
            lambda: fail if processes.index() else None
        )  # a function in a function can't be sent
    except Exception as error:
        heard.append(type(error).__name__)
    return [*heard, processes.all_gather_objects(processes.index)]


def main(folder: Path, port: str, index: str) -> dict[str, Any]:
    """The figures that the test looks at."""
    with processes.joined(HostsConfig(coordinator=f"localhost:{port}", count=2, index=int(index))):
        figures: dict[str, Any] = {"devices": jax.device_count(), "own": jax.local_device_count()}
        figures["shares"] = processes.all_gather_objects(lambda: (processes.share(7).start, processes.share(7).stop))
        figures["odd"] = processes.first_mismatch(0), processes.first_mismatch(processes.index())
        figures["errors"] = errors()
        figures["training"] = trainings(folder / "training")
        figures["fresh"] = processes.all_gather_objects(fresh)
        figures["search"] = searches(folder / "search")
        small = ("--collect.slots", "2", "--vae.width", "0.125", "--vae.steps", "5")
        figures["chain"] = command(folder / "run", "train_vae", *small)
        (both, status), (alone, _) = encode(folder / "run", 0), processes.on_main_process(encode)(folder / "run", 1)
        figures["encode"] = {"status": status, "both": float(np.abs(both - alone).max())}
    return figures


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:])))
