"""The chain of artifacts: what each is made from, and by which command."""

from collections.abc import Callable

CHAIN = {
    "replays": "collect",
    "vae": "train_vae",
    "latents": "encode",
    "memory": "train_memory",
    "controller": "train_controller",
    "evaluation": "evaluate",
}
"""The command that makes each artifact, in the order of the data."""

PARENTS = {
    "replays": (),
    "vae": ("replays",),
    "latents": ("replays", "vae"),
    "memory": ("replays", "vae", "latents"),
    "controller": ("vae", "memory"),
    "evaluation": ("controller",),
}
"""What each command reads. The controller may do without M, or without both: see `parents`."""


def parents(artifact: str, inputs: str, world: str) -> tuple[str, ...]:
    """What the artifact is made from under the settings `controller.inputs` and `controller.world`."""
    if artifact == "controller" and (world == "random" or inputs == "z"):
        return () if world == "random" else ("vae",)
    return PARENTS[artifact]


def upstream(artifact: str, inputs: str, world: str, done: Callable[[str], bool] = lambda _: False) -> list[str]:
    """What has to be made before the artifact, in order; ancestors of finished artifacts are left out.

    Args:
      artifact: a name in `CHAIN`.
      inputs, world: as in `parents`.
      done: whether an artifact is finished.
    """
    found: list[str] = []
    for parent in parents(artifact, inputs, world):
        if not done(parent):
            found += [*upstream(parent, inputs, world, done), parent]
    return list(dict.fromkeys(found))
