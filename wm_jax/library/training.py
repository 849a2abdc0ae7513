"""V and M trained on arrays, in one call: the same stages as those of the commands, with a folder or without."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from wm_jax import stages
from wm_jax.config import layers
from wm_jax.config.schema import Config
from wm_jax.data.importing import checked
from wm_jax.library.agents import TrainedAgent, load
from wm_jax.library.given import path_of, settings_of
from wm_jax.library.recordings import digest_of, import_recordings, with_actions_of
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.utils.errors import UserError

GAME = "own:arrays"


def train(
    frames: ArrayLike | Sequence[ArrayLike],
    actions: ArrayLike | Sequence[ArrayLike] | None = None,
    rewards: ArrayLike | Sequence[ArrayLike] | None = None,
    ends: ArrayLike | Sequence[ArrayLike] | None = None,
    *,
    folder: str | Path | None = None,
    preset: str = "quick",
    seed: int = 0,
    vae: Mapping[str, Any] | None = None,
    memory: Mapping[str, Any] | None = None,
) -> TrainedAgent:
    """Train V on frames, and M on what was done between them, if that is told.

    Args:
      frames: of one recording, an array of uint8 or floats in [0, 1], [N, H, W, 3] (grey, with alpha and channels first
        are understood, too); or a list of recordings. They are shrunk to 64 x 64.
      actions: integers [N] or [N - 1] from 0 on, or floats [.., A]; action i follows frame i. None: V alone is trained.
      rewards: one for each action; M then predicts them.
      ends: whether an episode ended with an action, which M then predicts; the next frame is another one's first.
      folder: a run's folder, in which everything is kept, and where the same call goes on after an interruption;
        None: a temporary one.
      preset: `quick`, or `smoke` to see whether all works.
      seed: of all that is random.
      vae, memory: settings, as in `{"variant": "vq", "steps": 2000}`; `bin/train_vae --help` and
        `bin/train_memory --help` show them.

    Returns:
      V, and M if there are actions.

    Raises:
      UserError: the arrays, or the settings, do not fit; or the folder holds other arrays.
      ValueError: there are not as many recordings of one thing as of another.
      TypeError: there are no frames, or settings are not given by name.
    """
    if frames is None:
        raise TypeError("frames: None, expected an array, or a list of recordings")
    single = hasattr(frames, "shape") and str(getattr(frames, "dtype", "")) != "object"  # of NumPy, JAX or PyTorch
    given = {"frames": frames, "actions": actions, "rewards": rewards, "ends": ends}
    parts = {name: [each] if single else list(each) for name, each in given.items() if each is not None}
    count = len(parts["frames"])
    if wrong := [name for name, each in parts.items() if len(each) != count]:
        raise ValueError(f"{wrong[0]}: {len(parts[wrong[0]])} recordings, but {count} of frames")
    found = [checked(f"recording {i}", {name: each[i] for name, each in parts.items()}) for i in range(count)]
    told = {"reward_head": rewards is not None, "done_head": ends is not None}
    overrides = {"seed": seed, "vae": settings_of(vae, "vae"), "memory": told | settings_of(memory, "memory")}
    config, stop = with_actions_of(found, layers.load(GAME, "own", preset, overrides)), Stop()
    artifacts = ("vae", *(("latents", "memory") if actions is not None else ()))
    for artifact in artifacts:
        stages.accept(artifact, config)
    with _folder(folder) as path:
        run = Run.open(path)
        replays = run.stage("replays").summary()
        if replays is None:
            import_recordings(config, run, stop, found)
        elif "content" in replays and replays["content"] != digest_of(found):
            raise UserError(f"{path} holds other recordings than these; give another folder")
        _require_as_made(run, config, artifacts)
        for artifact in artifacts:
            stages.make(artifact, config, run, stop)
        return load(path)


def _require_as_made(run: Run, config: Config, artifacts: Sequence[str]) -> None:
    """See that V is as it was when the rest was made of it: longer training would leave that without its V.

    Raises:
      UserError: there is more, and V is asked for longer.
    """
    made, later = run.stage("vae").summary(), artifacts[1:]
    if made is not None and made["steps"] < config.vae.steps and any(run.stage(name).summary() for name in later):
        raise UserError(
            f"vae.steps {config.vae.steps}: the V in {run.path} was trained for {made['steps']:,}, and M learned from "
            "it; give another folder"
        )


@contextlib.contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        yield path_of(folder, "folder")
        return
    with tempfile.TemporaryDirectory(prefix="wm_jax-") as path:
        yield Path(path)
