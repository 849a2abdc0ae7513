"""V and C learn what can be learned: to a known error, and to a score that random play cannot reach."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from side_game import COLUMNS, ROWS, Sides

from wm_jax import cli
from wm_jax.config.schema import EnvConfig
from wm_jax.data.replay import ReplayStore
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.rollout.exploration import RandomPolicy
from wm_jax.rollout.play import play
from wm_jax.run.folder import Run
from wm_jax.run.metrics import read_metrics

GAME, STEPS = "jax:side_game:Sides", Sides.episode_steps
WORDS = ["--game", GAME, "--env.backend", "device", "--env.episode_steps", str(STEPS), "--preset", "smoke", "--json"]
WORDS += ["--vae.width", "0.25", "--vae.latent", "16"]


def made(command: str, run: Path, words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """The summary of a stage, by the command line."""
    assert cli.main([command, *WORDS, "--run", str(run), *words.split()]) == 0
    return json.loads(capsys.readouterr().out.strip().split("\n")[-1])


def test_v_draws_the_pictures_of_a_game(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve pictures of two factors. The best constant picture, their mean, leaves their variance: some 330 of squared
    error a frame. V gets below a fifth of that on held-out frames, where z is drawn with its noise.
    """
    made("collect", tmp_path, "--collect.episodes 40 --collect.slots 40", capsys)
    words = "--vae.batch 24 --vae.learning_rate 7e-3 --vae.steps 280 --vae.steps_per_dispatch 20"
    summary = made("train_vae", tmp_path, f"{words} --vae.save_every 280 --vae.report_every 280", capsys)
    store = ReplayStore.open(tmp_path / "replays")
    frames = store.read("test", np.arange(store.count("test").frames)) / 255
    constant = float(frames.var(0).sum())
    assert len(np.unique(frames, axis=0)) == len(ROWS) * len(COLUMNS) and 250 < constant < 400
    assert summary["test_reconstruction"] < constant / 5
    # A code that tells twelve pictures apart says ln 12 nats at least; one that nothing holds back says 59 here.
    assert np.log(12) < summary["test_kl"] < 30


def test_c_learns_a_game_that_takes_looking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On z of an untrained V. Whoever does not look is right in half of the 20 steps: 10 on average, with a deviation
    of 2.2 an episode, 0.4 for the mean of 32. C is to reach 17; 20 is perfect.
    """
    words = "--controller.world random --controller.inputs z --controller.sigma 1 --controller.slots 64"
    words += " --controller.population 32 --controller.episodes 2 --controller.generations 40"
    words += " --controller.save_every 40 --controller.evaluate_every 10 --controller.evaluate_episodes 32"
    summary = made("train_controller", tmp_path, words, capsys)
    game, seeds = find(GAME, EnvConfig(backend="device")), range(32)
    with contextlib.closing(open_pool(game, 32)) as pool:
        random = play(pool, seeds, RandomPolicy("uniform", game.actions, seeds, STEPS)).returns.mean()
    assert 8.5 < random < 11.5
    assert summary["confirmed_episodes"] == 32 and summary["confirmed_score"] > 17
    first, *_, last = [row["mean"] for row in read_metrics(Run(tmp_path).stage("controller").path / "metrics.jsonl")]
    assert first < 13 and last > first + 3, "it was the search that found it"
