"""encode: what V sees in every frame of the replays, (mean, log variance), shard by shard."""

import time
from typing import Any

import jax
import numpy as np
from flax import nnx

from wm_jax.artefacts import load_vae, open_replays
from wm_jax.config import Config
from wm_jax.data.latents import LatentStore
from wm_jax.interrupt import Stop
from wm_jax.metrics import Progress, say
from wm_jax.models.frames import to_float
from wm_jax.run import Run


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Encode the replays' shards that have no latents yet; returns how many frames there are."""
    stage = run.stage("latents")
    vae, store = load_vae(run, config), open_replays(run, config)
    parents = {"vae": vae.digest, "replays": store.id}
    with stage.lock():
        stage.claim({}, parents, config.model_dump())
        latents = LatentStore.open_or_create(stage.path, vae.digest, store.id, vae.about["settings"]["latent"])
        todo = latents.missing(store)
        if not todo:
            say("latents: every frame is encoded already")
            if (done := stage.summary()) and done["frames"] == store.count().frames:
                return {"frames": done["frames"], "encoded_now": 0}
        began, total = time.monotonic(), store.count().frames
        frames = sum(shard.frames for shard in todo)
        encode = _encoder(vae.graphdef, config.encode.batch)
        with stage.timed() as watch, Progress("encode", total, "frame", done=total - frames) as progress:
            for shard, blocks in store.iter_shards([shard.name for shard in todo]):
                pieces = []
                for block in blocks:
                    pieces.append(encode(vae.params, block))
                    progress.advance(len(block))
                latents.write(shard, *map(np.concatenate, zip(*pieces, strict=True)))
                stop.check()
        summary = {
            "frames": total,
            "encoded_now": frames,
            "frames_per_second": round(frames / (time.monotonic() - began), 1),
            "seconds": watch.seconds(),
        }
        stage.write_summary(summary)
        return summary


def _encoder(graphdef: Any, batch: int) -> Any:
    @jax.jit
    def encode(params: Any, frames: jax.Array) -> Any:
        return nnx.merge(graphdef, params).encode(to_float(frames))

    def encode_all(params: Any, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [F, 64, 64, 3] to two float32 [F, Z], in batches of one size."""
        means, log_vars = [], []
        for start in range(0, len(frames), batch):
            piece = frames[start : start + batch]
            room = np.zeros((batch, *frames.shape[1:]), np.uint8)
            room[: len(piece)] = piece
            posterior = encode(params, room)
            means.append(np.asarray(posterior.mean)[: len(piece)])
            log_vars.append(np.asarray(posterior.log_var)[: len(piece)])
        return np.concatenate(means), np.concatenate(log_vars)

    return encode_all
