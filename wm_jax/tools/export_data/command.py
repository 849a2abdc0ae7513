"""export_replays: a run's replays as files that others read.

    bin/export_replays --game chaser --to chaser-replays
    bin/export_replays --game chaser --to ~/.minari/datasets/chaser/random-v0 --format minari

`npz` writes a file for each episode, or for each recorded window of a long one: `frames` [T + 1, 64, 64, 3], and
`actions`, `rewards` and `ends` [T], where the game said that it was over; `bin/import` takes these. `minari` writes the
files of one dataset of the Farama Foundation's Minari. Nothing is there before everything is.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_jax.config.schema import Config
from wm_jax.data.episodes import Episode
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed import processes
from wm_jax.distributed.progress import Progress
from wm_jax.envs.games import find
from wm_jax.envs.spaces import ActionSpace, Continuous
from wm_jax.run.artifacts import open_replays
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.utils.errors import UsageError
from wm_jax.utils.extras import require
from wm_jax.utils.sizes import FRAME

MINARI = "0.5.4"
"""The version of Minari whose files these are."""


def accept(config: Config, options: argparse.Namespace) -> None:
    """Refuse what cannot be written, before anything is.

    Raises:
      UsageError: no folder is named, or it is there.
      UserError: what writes the format is not installed.
    """
    if options.to is None:
        raise UsageError("--to: say which folder to write")
    if Path(options.to).expanduser().exists():
        raise UsageError(f"--to {options.to}: it is there already; name another folder, or remove it")
    if options.format == "minari":
        require("hdf5", "--format minari: writing HDF5")


def run(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    """Write all episodes; returns how many, and where."""
    accept(config, options)
    return processes.on_main_process(_export)(config, run, stop, options)


def _export(config: Config, run: Run, stop: Stop, options: argparse.Namespace) -> dict[str, Any]:
    store, target = open_replays(run, config), Path(options.to).expanduser()
    temporary = target.with_name(target.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        if options.format == "npz":
            _write_npz(temporary, store, stop)
        else:
            _write_minari(temporary, store, find(config.game, config.env).actions, config.game, stop)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    count = store.count()
    return {"episodes": count.episodes, "recordings": len(store.records), "frames": count.frames, "to": str(target)}


def _episodes(store: ReplayStore, stop: Stop) -> Iterator[tuple[int, Episode]]:
    with Progress("export", len(store.records), "recording") as progress:
        for i in range(len(store.records)):
            stop.check()
            yield i, store.episode(i)
            progress.advance(1)


def _write_npz(folder: Path, store: ReplayStore, stop: Stop) -> None:
    width = len(str(len(store.records)))
    for i, episode in _episodes(store, stop):
        np.savez_compressed(
            folder / f"{i:0{width}d}.npz",
            frames=episode.frames,
            actions=episode.actions,
            rewards=episode.rewards,
            ends=episode.terminated,
            truncated=episode.truncated,
        )


def _write_minari(folder: Path, store: ReplayStore, actions: ActionSpace, game: str, stop: Stop) -> None:
    """`data/main_data.hdf5`, a group for each episode, and `data/metadata.json`."""
    import h5py  # pyright: ignore[reportMissingImports]

    (folder / "data").mkdir()
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for i, episode in _episodes(store, stop):
            group = file.create_group(f"episode_{i}")
            steps = len(episode.rewards)
            ended = episode.terminated.any()
            arrays = {
                "observations": episode.frames,
                "actions": episode.actions.astype(np.int64) if episode.actions.ndim == 1 else episode.actions,
                "rewards": episode.rewards.astype(np.float64),
                "terminations": episode.terminated,
                # A window that ends amid its episode is cut off there, as Minari understands it.
                "truncations": np.arange(steps) == (-1 if ended else steps - 1),
            }
            for name, values in arrays.items():
                group.create_dataset(name, data=values, compression="gzip" if name == "observations" else None)
            group.attrs.update({"id": i, "total_steps": steps, "seed": int(episode.seed)})
    metadata = {
        "dataset_id": f"{game.replace(':', '-')}/wm_jax-v0",
        "total_episodes": len(store.records),
        "total_steps": store.count().steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_box(FRAME, "uint8", 0, 255)),
        "action_space": json.dumps(_space(actions)),
        "minari_version": MINARI,
        "dataset_size": round((folder / "data" / "main_data.hdf5").stat().st_size / 10**6, 1),
    }
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))


def _space(actions: ActionSpace) -> dict[str, Any]:
    """As Minari describes spaces."""
    if not isinstance(actions, Continuous):
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": actions.size}
    return _box((actions.size,), "float32", list(actions.low), list(actions.high))


def _box(shape: tuple[int, ...], dtype: str, low: Any, high: Any) -> dict[str, Any]:
    bounds = [np.broadcast_to(np.array(bound, dtype), shape).tolist() for bound in (low, high)]
    return {"type": "Box", "dtype": dtype, "shape": list(shape), "low": bounds[0], "high": bounds[1]}
