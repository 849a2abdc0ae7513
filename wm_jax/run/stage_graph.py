"""The chain of artifacts: what each is made from, and by which command."""

from collections.abc import Callable

from wm_jax.config.schema import ControllerConfig

CHAIN = {
    "replays": "collect",
    "vae": "train_vae",
    "latents": "encode",
    "memory": "train_memory",
    "controller": "train_controller",
    "evaluation": "evaluate",
    "dream": "dream",
}
"""The command that makes each artifact, in the order of the data."""

MODELS = ("vae", "memory", "controller")
"""The artifacts that have weights: the parts of an agent, each made from those before."""

PARENTS = {
    "replays": (),
    "vae": ("replays",),
    "latents": ("replays", "vae"),
    "memory": ("replays", "vae", "latents"),
    "controller": ("vae", "memory"),
    "evaluation": ("controller",),
    "dream": ("vae", "memory"),
}
"""What each command reads. The controller may do without M, or without both, or read more: see `parents`."""


def parents(artifact: str, controller: ControllerConfig) -> tuple[str, ...]:
    """What the artifact is made from.

    Args:
      controller: the settings of C. On z alone it needs no M, in an untrained world nothing; in the dream, M and what
        dreams begin at.
    """
    if artifact != "controller":
        return PARENTS[artifact]
    if controller.world == "random":
        return ()
    if controller.arena == "dream":
        return ("replays", "vae", "latents", "memory")
    return ("vae",) if controller.inputs == "z" else PARENTS[artifact]


def whole_chain(controller: ControllerConfig) -> list[str]:
    """All that the pipeline makes, in order: an evaluation, and what it takes.

    Args:
      controller: as in `parents`.
    """
    return [*upstream("evaluation", controller), "evaluation"]


def upstream(artifact: str, controller: ControllerConfig, done: Callable[[str], bool] = lambda _: False) -> list[str]:
    """What has to be made before the artifact, in order; ancestors of finished artifacts are left out.

    Args:
      artifact: a name in `CHAIN`.
      controller: as in `parents`.
      done: whether an artifact is finished.
    """
    found: list[str] = []
    for parent in parents(artifact, controller):
        if not done(parent):
            found += [*upstream(parent, controller, done), parent]
    return list(dict.fromkeys(found))
