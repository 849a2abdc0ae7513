"""DoomTakeCover: the paper's game, by ViZDoom."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wm_jax.config.schema import EnvConfig
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.names import canonical_name
from wm_jax.envs.official import is_official, is_transfer, official
from wm_jax.rollout.exploration import RandomPolicy
from wm_jax.rollout.play import play
from wm_jax.utils.errors import UsageError

pytest.importorskip("vizdoom", reason="no wheel of ViZDoom here")
from wm_jax.envs.host.doom import TakeCover  # (needs ViZDoom only to be made; but what else is there to try?)

ENV = EnvConfig(backend="gymnasium")


@pytest.fixture(scope="module")
def env():
    with contextlib.closing(TakeCover()) as env:
        yield env


def frames(env: TakeCover, seed: int, actions: list[int]) -> NDArray[np.uint8]:
    return np.stack([env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)])


def test_a_seed_decides_a_game(env: TakeCover) -> None:
    actions = [0, 1, 1, 2, 0] * 8
    one, again, other = (frames(env, seed, actions) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def shift(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> int:
    """By how many pixels the far wall has moved to the right on the screen."""
    one, other = (each[48:66].mean(axis=(0, 2)) for each in (before, after))
    return min(range(-20, 21), key=lambda by: np.abs(np.roll(one, by) - other)[25:-25].sum())


def test_actions_move_the_player(env: TakeCover) -> None:
    """What is seen moves to the other side."""
    right, left, stay = (frames(env, 1, [action] * 12) for action in (1, 2, 0))
    assert shift(right[0], right[-1]) < 0 < shift(left[0], left[-1])
    assert shift(stay[0], stay[-1]) == 0


def test_the_game_ends_with_a_black_frame(env: TakeCover) -> None:
    env.reset(seed=0)
    for _ in range(2100):
        frame, reward, terminated, truncated, _ = env.step(0)
        assert reward == 1 and not truncated and (frame.any() != terminated)
        if terminated:
            break
    assert terminated, "who stands still is hit"


def test_the_catalogue_has_the_papers_terms() -> None:
    game = find("DoomTakeCover", ENV)
    assert game == find("doom", ENV) and canonical_name("take_cover") == "doomtakecover"
    assert game.actions.outputs == 1 and game.actions.names == ("left", "stay", "right")
    assert game.actions.checked([0, 1, 2], 3).tolist() == [2, 0, 1]
    assert (game.episode_steps, game.solved, game.step_reward, game.crop) == (2100, 750, 1.0, (0, 100, 0, 160))
    assert is_official(game) and not is_transfer(game)
    harder = find("doom", EnvConfig(backend="gymnasium", skill=5))
    assert not is_official(harder) and is_transfer(harder) and official(harder) == game
    with pytest.raises(UsageError, match="runs on gymnasium only"):
        find("doom", EnvConfig(backend="envpool"))
    with pytest.raises(UsageError, match=r"env.skill 5: only doom games have that"):
        find("enduro", EnvConfig(backend="gymnasium", skill=5))


def test_random_play_survives_as_long_as_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """210 +- 108 over 100 episodes in the paper. At skill 5 it would be 70. Nothing is left in the current folder."""
    monkeypatch.chdir(tmp_path)
    game, seeds = find("doom", ENV), range(100)
    with contextlib.closing(open_pool(game, 20)) as pool:
        played = play(pool, seeds, RandomPolicy("uniform", game.actions, seeds, game.episode_steps))
    assert 180 < played.returns.mean() < 240 and 60 < played.returns.std() < 130
    np.testing.assert_array_equal(played.returns, played.lengths)
    assert not list(tmp_path.iterdir())
