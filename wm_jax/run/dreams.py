"""The dream of a run: its game as its V and M know it."""

import re

import numpy as np

from wm_jax.config.layers import of_record
from wm_jax.config.schema import Config
from wm_jax.data.beginnings import beginnings
from wm_jax.data.sequences import flat_latents
from wm_jax.distributed.progress import log
from wm_jax.envs.types import Game
from wm_jax.models.dream import Dream, require_heads
from wm_jax.run.artifacts import Trained, latent_like, load_memory, open_latents, open_replays, require_parent
from wm_jax.run.folder import Run
from wm_jax.run.provenance import require_same
from wm_jax.utils import streams
from wm_jax.utils.errors import UserError


def member_run(run: Run, number: int, *, anew: bool = False) -> Run:
    """The run in which a further M of an ensemble lies, `number` from 2 on: a named one of the run with the first.

    Args:
      anew: it is to be trained anew.
    """
    owner = run.stage("memory").run
    return owner.named(f"member-{number}", makes={"memory"}, anew={"memory"} if anew else ())


def members(run: Run) -> list[int]:
    """The numbers of the further M's that there are beside the run's own."""
    found = (re.fullmatch(r"member-(\d+)", name) for name in run.all_named())
    return sorted(int(match[1]) for match in found if match)


def member_seed(seed: int, number: int) -> int:
    """From which such an M is trained."""
    return streams.integer(seed, "memory", "member", number)


def load_dream(
    run: Run, config: Config, game: Game, vae: Trained, memory: Trained, *, shares_memory: bool = False
) -> tuple[Dream, dict[str, str]]:
    """The dream to learn in, which begins where the run's training episodes do; and the identities of its further M's.

    Args:
      vae, memory: the run's.
      shares_memory: see `Dream`.

    Raises:
      UserError: the latents or further M's are missing, or don't fit V and M; or M lacks a head.
    """
    settings = config.dream
    further = {
        f"member-{number}": _member(run, vae, game, number, settings.members)
        for number in range(2, settings.members + 1)
    }
    seen = {memory.digest}
    for number, member in enumerate(further.values(), 2):
        _require_alike(member_run(run, number), memory, member, settings.members)
        if member.digest in seen:
            raise UserError(f"{member_run(run, number).path} is a copy of another M; {_remedy(settings.members)}")
        seen.add(member.digest)
    require_heads(memory.model().config, game, settings.ends)
    # Those that M was trained on, although there may be more by now.
    store = open_replays(run, config, begun=run.stage("memory"))
    require_parent(run, "memory", "replays", memory.about["parents"]["replays"], store.digest)
    latents = open_latents(run, store, vae.digest)
    flat = flat_latents(latents, latent_like(vae), store, game.actions, "train")
    ends = settings.ends if np.any(flat.done) else "never"
    if ends != settings.ends:
        log("no game ended in the replays, of which M could have learned what an end is: dreams last their full time")
    # By default as the real games in which C is chosen.
    anywhere = config.controller.random_start if settings.random_start is None else settings.random_start
    begins = [record.begin for record in store.records if record.split == "train"]
    dream = Dream(
        game,
        vae.model(),
        [each.model() for each in (memory, *further.values())],
        beginnings(flat, begins, settings.warm_up, anywhere=anywhere),
        temperature=settings.temperature,
        ends=ends,
        episode_steps=settings.episode_steps,
        disagreement=settings.disagreement,
        shares_memory=shares_memory,
    )
    return dream, {name: member.digest for name, member in further.items()}


def _member(run: Run, vae: Trained, game: Game, number: int, members: int) -> Trained:
    """One of the further M's.

    Raises:
      UserError: it is not trained yet, or was trained on another V.
    """
    own = member_run(run, number)
    if own.stage("memory").summary() is None:
        raise UserError(
            f"dream.members {members}: {own.path} is not trained yet; run bin/train_memory --dream.members {members} "
            "first, which leaves alone what is there"
        )
    return load_memory(own, vae, game)


def _require_alike(own: Run, first: Trained, member: Trained, members: int) -> None:
    """See that a further M differs from the first one in nothing but its seed.

    Raises:
      UserError: it was trained with other settings, or on other replays.
    """
    was, now = (
        {f"memory.{name}": value for name, value in of_record("memory", each.about["settings"]).fixed().items()}
        | {"replays": each.about["parents"]["replays"]}
        for each in (member, first)
    )
    require_same(own.path, was, now, _remedy(members), mend="train the first one so, too")


def _remedy(members: int) -> str:
    return f"run bin/train_memory --fresh --dream.members {members}, which trains all anew"
