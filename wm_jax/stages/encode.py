"""encode: the latents of every frame of the replays, shard by shard.

Several processes (`distributed/processes.py`) encode different shards at the same time, each on its own devices.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from wm_jax.config.schema import Config
from wm_jax.data.episodes import Shard
from wm_jax.data.latents import Entry, Kind, LatentStore
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed import processes
from wm_jax.distributed.mesh import AXIS, device_put, open_local_mesh, replicated
from wm_jax.distributed.progress import Progress, log
from wm_jax.models.latents import named
from wm_jax.models.preprocess import to_float
from wm_jax.run.artifacts import Trained, latent_like, load_vae, open_replays
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.utils.arrays import in_batches


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Encode the replays' shards that have no latents yet; returns how many frames there are."""
    stage = run.stage("latents")
    vae, store = load_vae(run, config), open_replays(run, config)
    parents = {"vae": vae.digest, "replays": store.id}
    kinds = {name: Kind(str(each.dtype), each.shape[1:]) for name, each in named(latent_like(vae)).items()}
    mesh = open_local_mesh(config.devices)
    with stage.lock():
        stage.claim({}, parents, config.model_dump())
        latents = processes.main_process_first(
            lambda: LatentStore.open_or_create(stage.path, vae.digest, store.id, kinds)
        )
        todo = processes.on_main_process(latents.missing)(store)
        if not todo:
            log("latents: every frame is encoded already")
            if (done := stage.summary()) and done["frames"] == store.count().frames:
                return {**done, "encoded_now": 0}
        began, total = time.monotonic(), store.count().frames
        frames = sum(shard.frames for shard in todo)
        # Every process encodes every so many-th shard, and shows its own progress.
        mine = todo[processes.index() :: processes.count()]
        done, until = total - frames, total - frames + sum(shard.frames for shard in mine)
        encode = _encoder(vae, config.encode.batch, mesh)
        with stage.timed() as watch, Progress("encode", until, "frame", done=done) as progress:
            files = _encode_shards(store, mine, latents, encode, progress, stop)
            while written := [entry for entry in processes.all_gather_objects(lambda: next(files, None)) if entry]:
                processes.on_main_process(latents.enter)(written)
        summary = {
            "frames": total,
            "encoded_now": frames,
            "frames_per_second": round(frames / (time.monotonic() - began), 1),
            "seconds": watch.seconds(),
        }
        stage.write_summary(summary)
        return summary


Encoder = Callable[[np.ndarray], dict[str, np.ndarray]]
"""uint8 [F, 64, 64, 3] to the arrays that their latents consist of, [F, ...] each."""


def _encode_shards(
    store: ReplayStore, mine: list[Shard], latents: LatentStore, encode: Encoder, progress: Progress, stop: Stop
) -> Iterator[Entry]:
    """Encode shard after shard, and write a file for each."""
    for shard, blocks in store.iter_shards([shard.name for shard in mine]):
        stop.check()
        pieces = []
        for block in blocks:
            pieces.append(encode(block))
            progress.advance(len(block))
        yield latents.write_file(shard, _joined(pieces))


def _joined(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of the same names, end to end."""
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _encoder(vae: Trained, batch: int, mesh: Mesh) -> Encoder:
    """Encodes in batches of one size (rounded up to share it out), split between the devices of the mesh."""
    params, batch = device_put(vae.params, replicated(mesh)), -(-batch // mesh.size) * mesh.size
    on_devices = compile_encoder(vae.graphdef, mesh)

    def encode_all(frames: np.ndarray) -> dict[str, np.ndarray]:
        return in_batches(lambda piece, _: on_devices(params, piece), frames, batch)

    return encode_all


def compile_encoder(graphdef: Any, mesh: Mesh) -> Callable[..., dict[str, jax.Array]]:
    """(parameters, uint8 [B, 64, 64, 3]) to the latents' arrays: a jitted function over the devices of the mesh."""

    def encode(params: Any, frames: jax.Array) -> dict[str, jax.Array]:
        return named(nnx.merge(graphdef, params).encode(to_float(frames)))

    # Each device runs the whole program on its rows, which have nothing to do with each other.
    rows, whole = PartitionSpec(AXIS), PartitionSpec()
    return jax.jit(jax.shard_map(encode, mesh=mesh, in_specs=(whole, rows), out_specs=rows, check_vma=False))
