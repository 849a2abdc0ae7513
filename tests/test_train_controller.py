"""The evolution of C: who plays which episodes, what the search is told, what is kept, and what is said of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from wm_jax import cli
from wm_jax.cli.options import parse
from wm_jax.config.layers import load
from wm_jax.config.schema import Config
from wm_jax.envs.names import family_of
from wm_jax.evaluation.fitness import ControllerState, FitnessEvaluator
from wm_jax.rollout.types import EpisodeStats
from wm_jax.run.artifacts import load_agent
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.run.pretrained import AGENTS
from wm_jax.stages import train_controller
from wm_jax.tools.pipeline import report
from wm_jax.training.evolution import Evolution, EvolutionState
from wm_jax.utils import streams

N = 12
CHASED = ["--game", "chaser", "--preset", "smoke", "--controller.world", "random"]


def settings(game: str = "chaser", **controller: Any) -> Config:
    return load(game, family_of(game), "smoke", {"controller": controller})


class Rehearsal(FitnessEvaluator):
    """An arena without a game: every episode returns what `score` says of its weights and its seed."""

    def __init__(self, config: Config, score: Any):
        controller = config.controller
        search = Evolution("CMA_ES", N, controller.population, controller.sigma, jax.random.key(0))
        super().__init__(config, None, search, None)  # pyright: ignore[reportArgumentType]
        object.__setattr__(self, "score", score)
        object.__setattr__(self, "seen", [])

    def _play(self, controllers: jax.Array, candidates: np.ndarray, seeds: list[int], **how: Any) -> EpisodeStats:
        weights = np.atleast_2d(np.asarray(controllers))[candidates]
        self.seen.append((np.asarray(controllers), seeds))  # pyright: ignore[reportAttributeAccessIssue]
        returns = np.array([self.score(*pair) for pair in zip(weights, seeds, strict=True)])  # pyright: ignore
        return EpisodeStats(returns, np.ones(len(seeds), np.int64), 1.0)


def begin(arena: FitnessEvaluator) -> ControllerState:
    return ControllerState(arena.evolution.init(), jnp.zeros(N), jnp.float32(-jnp.inf))


# Who plays what


@pytest.mark.parametrize("generation", [0, 7])
def test_by_default_all_candidates_share_their_episodes(generation: int) -> None:
    config = settings(population=6, episodes=3)
    seeds = Rehearsal(config, None).episode_seeds(generation)
    assert seeds == [streams.integer(0, "controller", generation, episode) for episode in range(3)] * 6


def test_pairs_share_their_episodes_as_in_the_papers_code() -> None:
    """Its seeds of half the population, twice: candidates i and i + P / 2 meet the same; each has 16 of its own."""
    arena = Rehearsal(settings(population=6, episodes=3, seeds="paired"), None)
    of = np.reshape(arena.episode_seeds(4), (6, 3))
    np.testing.assert_array_equal(of[:3], of[3:])
    assert len(np.unique(of[:3])) == 9
    assert not set(of.flat) & set(arena.episode_seeds(5))


def test_candidates_may_have_episodes_of_their_own() -> None:
    arena = Rehearsal(settings(population=5, episodes=3, seeds="own"), None)
    assert len(set(arena.episode_seeds(0))) == 15
    assert not set(arena.episode_seeds(0)) & set(arena.episode_seeds(1))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--controller.seeds", "paired", "--controller.population", "5"], "--controller.population 5: "),
        (["--controller.gas", "tanh"], "--controller.gas tanh: only carracing has a gas pedal; leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("train_controller", "pipeline"):
        assert cli.main([command, "--game", "chaser", "--preset", "smoke", "--run", str(tmp_path / "run"), *words]) == 2
        assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("game", ["carracing", "doomtakecover"])
def test_actions_are_drawn_only_where_each_has_an_output(
    game: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--game", game, "--preset", "smoke", "--run", str(tmp_path / "run"), "--controller.sample_action", "true"]
    assert cli.main(["train_controller", *words]) == 2
    assert "--controller.sample_action: C has no output for each of several actions of" in capsys.readouterr().err


# What the search is told, and what is kept


def test_candidates_play_rounded_and_the_search_is_told_of_those_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = Rehearsal(settings(population=6, episodes=2, rounding=0.25, sigma=1.0), lambda weights, seed: weights.sum())
    search, told = begin(arena), []
    tell = Evolution.tell

    def telling(self: Evolution, state: EvolutionState, returns: Any) -> EvolutionState:
        told.append((np.asarray(state.population), np.asarray(returns)))
        return tell(self, state, returns)

    monkeypatch.setattr(Evolution, "tell", telling)
    after, _ = arena.play_generation(search, 0, Stop())
    (played, _), (asked, returns) = arena.seen[0], told[0]  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_array_equal(played, np.round(asked * 4) / 4)
    assert not np.array_equal(played, asked)
    np.testing.assert_allclose(returns, np.repeat(played.sum(1)[:, None], 2, 1), rtol=1e-5)
    kept, _ = arena.evaluate_mean(after)
    mean = np.asarray(arena.evolution.mean(after.evolution))
    np.testing.assert_array_equal(kept.best, np.round(mean * 4) / 4)
    assert not np.array_equal(kept.best, mean)


def test_weight_decay_is_the_searchs_business_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    tell = Evolution.tell
    monkeypatch.setattr(Evolution, "tell", lambda *given: told.append(np.asarray(given[2])) or tell(*given))
    arena = Rehearsal(settings(population=6, episodes=2, weight_decay=0.5, sigma=1.0), lambda weights, seed: 10.0)
    _, figures = arena.play_generation(begin(arena), 0, Stop())
    played = arena.seen[0][0].astype(np.float64)  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(told[0], 10.0 - 0.5 * np.repeat((played**2).mean(1)[:, None], 2, 1))
    assert (figures["mean"], figures["best"], figures["worst"]) == (10.0, 10.0, 10.0)


def test_the_error_of_an_evaluation_is_its_interval() -> None:
    arena = Rehearsal(settings(evaluate_episodes=8), lambda weights, seed: seed % 100)
    _, figures = arena.evaluate_mean(begin(arena))
    returns = np.array(arena.seen[0][1]) % 100  # pyright: ignore[reportAttributeAccessIssue]
    expected = scipy.stats.t.ppf(0.975, 7) * scipy.stats.sem(returns)
    assert figures["evaluation_error"] == pytest.approx(expected, abs=1e-3)
    arena = Rehearsal(settings(evaluate_episodes=1), lambda weights, seed: seed % 100)
    assert arena.evaluate_mean(begin(arena))[1]["evaluation_error"] is None


# Confirmation


def test_what_is_kept_is_confirmed_on_episodes_that_never_chose_it() -> None:
    arena = Rehearsal(settings(evaluate_episodes=8, population=4, seeds="own"), lambda weights, seed: weights[0] + 1.0)
    search = begin(arena)._replace(best=jnp.full(N, 2.0))
    arena.evaluate_mean(search)
    for generation in range(3):
        arena.play_generation(search, generation, Stop())
    figures = arena.confirm(search, Stop())
    *choosing, (weights, seeds) = arena.seen  # pyright: ignore[reportAttributeAccessIssue]
    assert len(seeds) == 8 and not set(seeds) & {seed for _, used in choosing for seed in used}
    np.testing.assert_array_equal(weights, np.full(N, 2.0))
    assert figures == {
        "confirmed_score": 3.0,
        "confirmed_error": 0.0,
        "confirmed_episodes": 8,
        "confirmed_approximate": True,
    }
    more = Rehearsal(settings(confirm_episodes=20), lambda weights, seed: float(seed))
    assert more.confirm(search, Stop())["confirmed_approximate"] is False
    one = Rehearsal(settings(confirm_episodes=1), lambda weights, seed: 5.0)
    assert one.confirm(search, Stop())["confirmed_error"] is None


def test_where_a_search_begins_is_no_choice_of_the_dream() -> None:
    """In rounds it is what real games have chosen, of which the dream alone would know nothing."""
    arena = Rehearsal(settings(evaluate_episodes=2), lambda weights, seed: float(weights[0]))
    search = ControllerState.first(arena.evolution, jnp.zeros(N), in_dream=True)
    search = arena.evaluate_start(search, jnp.full(N, 9.0))
    assert search.best_score == 9 and len(arena.seen) == 1  # pyright: ignore[reportAttributeAccessIssue]
    search, _ = arena.evaluate_mean(search)
    assert search.best_score == 9 and search.dream is not None and search.dream.best_score == 0
    assert search.dream.real_steps == 4


def evolve(words: list[str], path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    assert cli.main(["train_controller", *words, "--run", str(path), "--json"]) == 0
    out, said = capsys.readouterr()
    return json.loads(out.strip().split("\n")[-1]), said


def test_a_stopped_confirmation_is_made_as_if_it_had_not_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*CHASED, "--controller.confirm_episodes", "3"]
    straight, said = evolve(words, tmp_path / "straight", capsys)
    assert straight["confirmed_episodes"] == 3 and "episodes that never chose it" in said
    assert "(approximate)" in said
    _, config = parse("train_controller", words)
    confirm = FitnessEvaluator.confirm

    def stopped(self: FitnessEvaluator, search: ControllerState, stop: Stop) -> dict[str, Any]:
        stop.requested = True
        return confirm(self, search, stop)

    broken = Run(tmp_path / "broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitnessEvaluator, "confirm", stopped)
        with pytest.raises(Interrupted):
            train_controller.run(config, broken, Stop())
    assert broken.stage("controller").summary() is None
    assert broken.stage("controller").checkpoints.steps()[-1] == config.controller.generations
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FitnessEvaluator, "play_generation", None)  # no generation is played again
        resumed, _ = evolve(words, broken.path, capsys)
    same = [name for name in straight if "confirmed" in name or name in ("weights", "best_score", "evaluation_mean")]
    assert len(same) == 7 and {name: resumed[name] for name in same} == {name: straight[name] for name in same}
    row = report._row(broken, "controller")
    assert row.facts is not None and "95 % interval, approximate; 3 episodes" in row.facts["confirmed score"]


# Agents


def test_an_agent_keeps_its_gas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--game", "carracing", "--preset", "smoke", "--controller.world", "random", "--env.backend", "envpool"]
    words += ["--controller.episode_steps", "5"]
    evolve([*words, "--controller.gas", "tanh"], tmp_path / "run", capsys)
    _, config = parse("evaluate", words)
    space = load_agent(Run(tmp_path / "run"), config)[0].agent.controller.actions
    assert getattr(space, "squash", None) == ("tanh", "tanh", "positive_tanh")
    assert cli.main(["train_controller", *words, "--run", str(tmp_path / "run")]) == 1
    assert "was made with --controller.gas tanh, but now it is sigmoid" in capsys.readouterr().err


def test_an_agent_from_before_plays_as_it_did(tmp_path: Path) -> None:
    shutil.copytree(AGENTS / "carracing", tmp_path / "run")
    _, config = parse("evaluate", ["--game", "carracing"])
    world, _, about = load_agent(Run(tmp_path / "run"), config)
    assert "gas" not in about["settings"]
    assert getattr(world.agent.controller.actions, "squash", None) == ("tanh", "sigmoid", "positive_tanh")
    assert not world.agent.sample_latent
