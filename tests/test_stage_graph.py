"""What has to be made before what."""

from typing import Any

import pytest

from wm_jax.config.schema import ControllerConfig
from wm_jax.run.stage_graph import CHAIN, PARENTS, upstream


def test_the_chain_is_in_the_order_of_the_data() -> None:
    names = list(CHAIN)
    assert list(PARENTS) == names
    for artifact, parents in PARENTS.items():
        assert all(names.index(parent) < names.index(artifact) for parent in parents)


@pytest.mark.parametrize(
    ("artifact", "settings", "done", "needed"),
    [
        ("replays", {}, [], []),
        ("memory", {}, [], ["replays", "vae", "latents"]),
        ("memory", {}, ["replays", "vae"], ["latents"]),
        ("controller", {}, [], ["replays", "vae", "latents", "memory"]),
        # Replays and latents that are gone are not needed by what is made from V and M alone.
        ("controller", {}, ["vae", "memory"], []),
        ("controller", {}, ["vae"], ["replays", "latents", "memory"]),
        ("controller", {"inputs": "z"}, [], ["replays", "vae"]),
        ("controller", {"world": "random"}, [], []),
        ("controller", {"arena": "dream"}, ["vae", "memory"], ["replays", "latents"]),
        ("controller", {"arena": "dream", "inputs": "z"}, ["replays", "vae", "latents"], ["memory"]),
        ("evaluation", {}, [], ["replays", "vae", "latents", "memory", "controller"]),
        ("evaluation", {}, ["controller"], []),
        ("evaluation", {"world": "random"}, [], ["controller"]),
    ],
)
def test_only_what_is_missing_and_needed_comes_before(
    artifact: str, settings: dict[str, Any], done: list[str], needed: list[str]
) -> None:
    found = upstream(artifact, ControllerConfig(**settings), done=lambda name: name in done)
    assert found == needed
