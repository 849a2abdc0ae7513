"""Atari in training is the official game: every picture, reward and end of ALE/NAME-v5, the last picture included."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms

from wm_jax import cli
from wm_jax.config.layers import load
from wm_jax.config.schema import EnvConfig
from wm_jax.envs import games, official
from wm_jax.envs.host.resize import shrink
from wm_jax.envs.make import open_pool
from wm_jax.envs.types import Game

Answer = tuple[np.ndarray, float, bool]
"""A frame uint8[64, 64, 3], the reward, and whether the game has ended."""


def settings(name: str, **changes: float) -> EnvConfig:
    """Those of training, as the user gets them."""
    return load(name, "atari").env.model_copy(update=changes)


def emulated(game: Game, seed: int, actions: np.ndarray) -> list[Answer]:
    """An episode on a bare emulator, which Gymnasium gives the second word of what NumPy makes of the seed."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    emulator = ALEInterface()
    emulator.setFloat("repeat_action_probability", game.env.sticky)
    emulator.setInt("random_seed", int(np.random.SeedSequence(seed).generate_state(2)[1].astype(np.int32)))
    emulator.loadROM(str(roms.get_rom_path(game.name)))
    emulator.reset_game()
    buttons = emulator.getMinimalActionSet()
    answers = [(shrink(emulator.getScreenRGB()[None], game.crop)[0], 0.0, False)]
    for action in actions:
        reward = float(sum(emulator.act(buttons[action]) for _ in range(game.env.frame_skip)))
        answers.append((shrink(emulator.getScreenRGB()[None], game.crop)[0], reward, emulator.game_over()))
        if emulator.game_over():
            break
    return answers


def episodes(game: Game, seeds: list[int], slots: int, actions: np.ndarray) -> list[list[Answer]]:
    """Every answer of one episode per seed; slots that have ended theirs begin the next ones."""
    answers: list[list[Answer]] = [[] for _ in seeds]
    waiting = list(range(slots, len(seeds)))
    with contextlib.closing(open_pool(game, slots)) as pool:
        playing = dict(enumerate(range(slots)))
        for slot, frame in enumerate(pool.reset(seeds[:slots])):
            answers[slot].append((frame, 0.0, False))
            pool.send([slot], actions[slot, :1])
        while playing:
            step = pool.recv()
            for slot, frame, reward, terminated, _ in zip(*step[:5], strict=True):
                episode = answers[playing[slot]]
                episode.append((frame, float(reward), bool(terminated)))
                if not terminated and len(episode) <= actions.shape[1]:
                    pool.send([slot], actions[playing[slot], [len(episode) - 1]])
                elif waiting:
                    playing[slot] = waiting.pop(0)
                    pool.restart([slot], [seeds[playing[slot]]])
                else:
                    del playing[slot]
    return answers


@pytest.mark.parametrize(
    ("name", "changes", "steps"),
    [
        ("enduro", {}, 120),
        ("enduro", {"sticky": 0.0}, 60),
        ("breakout", {}, 400),
        ("breakout", {"sticky": 0.0, "frame_skip": 3}, 60),
    ],
)
def test_every_frame_is_the_emulators(name: str, changes: dict[str, float], steps: int) -> None:
    game = games.find(name, settings(name, **changes))
    seeds = [3, 2**31 - 1, 4]
    actions = np.random.default_rng(0).integers(0, game.actions.size, (3, steps))
    ends = []
    for seed, row, played in zip(seeds, actions, episodes(game, seeds, 2, actions), strict=True):
        expected = emulated(game, seed, row)
        assert [answer[1:] for answer in played] == [answer[1:] for answer in expected]
        np.testing.assert_array_equal([frame for frame, *_ in played], [frame for frame, *_ in expected])
        if (name, steps) == ("breakout", 400):
            assert played[-1][2] and len(played) <= steps  # to its end
            assert sum(reward for _, reward, _ in played) > 0
            ends.append((played[-1][0] != played[-2][0]).any())
    assert not ends or any(ends)  # the last frame is seen, which is another than the one before


@pytest.mark.parametrize("name", ["enduro", "breakout"])
def test_training_plays_the_official_game(name: str) -> None:
    game = games.find(name, settings(name))
    assert official.is_official(game) and not official.is_transfer(game)


def test_episodes_begin_anywhere_in_the_day_as_their_seeds_say() -> None:
    """In an emulator's state of a game in which nobody acts, with the seed's own random numbers from there on."""
    game, asked = games.find("enduro", settings("enduro")), list(range(8))
    actions = np.random.default_rng(0).integers(0, game.actions.size, (8, 30))

    def played(seeds: list[int], slots: int, **how: bool) -> list[list[bytes]]:
        with contextlib.closing(open_pool(game, slots, **how)) as pool:
            shown = [[frame.tobytes()] for frame in pool.reset(seeds)]
            for moves in actions.T:
                for i, frame in enumerate(pool.step(moves[: len(seeds)]).frames):
                    shown[i].append(frame.tobytes())
        return shown

    anywhere = played(asked, 8, random_start=True)
    assert len({frames[0] for frames in anywhere}) > 4, "all begin at the same time of day"
    assert played(asked[:3], 3, random_start=True) == anywhere[:3]
    assert played(asked[:2], 2, random_start=True, official=True) == played(asked[:2], 2)


def test_replays_of_envpools_game_are_used_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--game", "enduro", "--preset", "smoke", "--run", str(tmp_path)]
    assert cli.main(["collect", *words, "--env.backend", "envpool"]) == 0
    capsys.readouterr()
    for command in ("collect", "train_vae"):
        assert cli.main([command, *words]) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith(
            f"error: {tmp_path / 'replays'} was made with --env.backend envpool, but now it is gymn"
        )
        assert "\n" not in error
    assert cli.main(["train_vae", *words, "--env.backend", "envpool"]) == 0
