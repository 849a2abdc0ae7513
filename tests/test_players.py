"""Who plays the episodes of the replays: which controller an episode has, and how whoever played once plays again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest

from wm_jax.config.layers import load
from wm_jax.config.schema import CollectConfig
from wm_jax.envs.games import find
from wm_jax.rollout import players
from wm_jax.run.folder import Run
from wm_jax.run.kept import KeptControllers
from wm_jax.utils.errors import UserError

SEEDS = list(range(200))
KEPT = KeptControllers.of({name: jnp.full(50, value) for name, value in (("best", 1), ("latest", 2))})
OF_DREAM = KEPT._replace(dream=KEPT.best + 2)


def controllers(kept: KeptControllers, seeds: list[int], **settings: Any) -> np.ndarray:
    return np.asarray(players._controllers(kept, seeds, CollectConfig(**settings)))


def test_half_of_the_episodes_are_played_by_what_the_dream_would_have_kept() -> None:
    chosen = controllers(OF_DREAM, SEEDS)
    assert set(chosen.flat) == {1.0, 3.0} and 60 < (chosen[:, 0] == 3).sum() < 140
    for share, value in ((0.0, 1.0), (1.0, 3.0)):
        assert set(controllers(OF_DREAM, SEEDS, dream_share=share).flat) == {value}
    assert set(controllers(KEPT, SEEDS).flat) == {1.0}, "evolved in the game, there is no other"


def test_noise_is_of_an_episode_and_as_large_as_asked_for_at_most() -> None:
    noisy = controllers(KEPT, SEEDS, noise=0.2)
    spread = (noisy - 1).std(axis=1)
    assert spread.max() < 0.2 * 1.5 and spread.min() < 0.02 and spread.mean() == pytest.approx(0.1, abs=0.02)
    assert len(np.unique(noisy)) > 0.99 * noisy.size, "every weight has its own"
    # The seed alone decides it, whoever plays beside it.
    np.testing.assert_array_equal(controllers(KEPT, SEEDS[::-1], noise=0.2)[::-1], noisy)
    np.testing.assert_array_equal(controllers(KEPT, [7], noise=0.2)[0], noisy[7])


class Recorded:
    """In place of `AgentPolicy`: remembers the controllers."""

    def __init__(self, agent: Any, params: np.ndarray, candidates: np.ndarray, seeds: list[int], slots: int):
        self.played = np.asarray(params)[candidates]
        self.rows = len(params)


@pytest.fixture
def dreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that was evolved in the dream."""
    world = SimpleNamespace(agent=None, params=lambda controllers: controllers)
    monkeypatch.setattr(players, "load_controllers", lambda run, config: (world, OF_DREAM, {"digest": "abc"}))
    monkeypatch.setattr(players, "AgentPolicy", Recorded)


@pytest.mark.usefixtures("dreamer")
def test_who_played_in_an_earlier_version_plays_as_it_did(tmp_path: Path) -> None:
    """Then all that an agent played was played by the controller that is kept, without noise."""
    config = load("carracing", "carracing", "smoke", {"collect": {"policy": "agent", "noise": 0.3}})
    game, run = find("carracing", config.env), Run(tmp_path)
    now = players.player_of(config, run, game)
    assert now.about == {
        "policy": "agent",
        "weights": "abc",
        "random_start": True,
        "noise": 0.3,
        "dream_share": 0.5,
    }
    policy = cast(Recorded, now.policy(SEEDS[:5], 8))
    assert policy.rows == 8 and len(np.unique(policy.played)) > 200
    old = {"policy": "agent", "weights": "abc", "random_start": True}
    then = players.player_again(config, run, game, now, old, [3])
    assert then.about == old and set(cast(Recorded, then.policy(SEEDS[:5], 5)).played.flat) == {1.0}
    with pytest.raises(UserError, match="played by the agent def, which can't play them again"):
        players.player_again(config, run, game, now, old | {"weights": "def"}, [3])


def test_random_play_of_an_earlier_version_is_what_it_was(tmp_path: Path) -> None:
    config = load("carracing", "carracing", "smoke", {})
    game, run = find("carracing", config.env), Run(tmp_path)
    now = players.player_of(config, run, game)
    old = {"policy": "brownian", "hold": 8.0}
    assert now.about == old | {"random_start": True}
    assert players.player_again(config, run, game, now, old, [3]).about == old
