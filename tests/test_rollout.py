"""Playing: against the known answers of a probe game, in waves and with restarts, whoever answers first."""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from wm_jax.config.schema import EnvConfig, MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.types import Game, Pool, Step
from wm_jax.models.agent import make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.latents import LatentKind
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae import make_vae
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.exploration import RandomPolicy
from wm_jax.rollout.play import play
from wm_jax.rollout.types import EpisodeStats, Policy

PROBE = "gymnasium:probe_games:Probe-v0"
SEEDS = list(range(20, 31))
LIVES = np.array([seed % 5 + 2 for seed in SEEDS])
"""Steps until the probe ends each episode; the reward of step n is seed + n."""


def probe(steps: int = 100) -> Game:
    return find(PROBE, EnvConfig(episode_steps=steps))


def test_figures_of_no_episodes() -> None:
    """As when there are more processes than episodes."""
    nothing = EpisodeStats(np.zeros(0), np.zeros(0, np.int64), 0.0)
    for played in (nothing, EpisodeStats.concatenate([nothing])):
        assert played.figures() == {"environment_steps": 0, "steps_per_second": 0.0}


class Waves:
    """A pool whose slots can't restart, as EnvPool's can't."""

    restarts = False
    device_game = None

    def __init__(self, pool: Pool):
        self._pool, self.slots, self.episode_steps = pool, pool.slots, pool.episode_steps
        self.resets = 0

    def reset(self, seeds) -> np.ndarray:
        self.resets += 1
        return self._pool.reset(seeds)

    def restart(self, ids, seeds) -> None:
        raise AssertionError("slots can't restart")

    def send(self, ids, actions) -> None:
        self._pool.send(ids, actions)

    def recv(self) -> Step:
        return self._pool.recv()

    def step(self, actions) -> Step:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Scripted:
    """Always the first action; notes who acted, and checks that frames and episodes belong together."""

    def __init__(self) -> None:
        self.acted: Counter[int] = Counter()
        self._episodes: dict[int, int] = {}

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        self._episodes.update(zip(slots.tolist(), episodes.tolist(), strict=True))

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        for slot, frame in zip(ids.tolist(), frames, strict=True):
            episode = self._episodes[slot]
            assert tuple(frame[0, 0]) == (self.acted[episode], SEEDS[episode], 0)
            self.acted[episode] += 1
        return np.zeros(len(ids), np.int32)


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 11, 20])
@pytest.mark.parametrize("restarts", [True, False])
def test_every_episode_is_played_once(slots: int, restarts: bool) -> None:
    shown: Counter[str] = Counter()

    def watch(step: Step, done: np.ndarray) -> None:
        assert (step.frames[:, 0, 0, 0] > 0).all(), "first frames are not steps"
        shown.update(steps=len(step.ids), ends=int(done.sum()))

    with contextlib.closing(open_pool(probe(), slots, workers=2)) as pool:
        pool = pool if restarts else Waves(pool)
        policy = Scripted()
        played = play(pool, SEEDS, policy, watch=watch)
    np.testing.assert_array_equal(played.lengths, LIVES)
    np.testing.assert_array_equal(played.returns, LIVES * SEEDS + LIVES * (LIVES + 1) // 2)
    assert [policy.acted[episode] for episode in range(len(SEEDS))] == LIVES.tolist()
    assert shown == {"steps": LIVES.sum(), "ends": len(SEEDS)}
    if isinstance(pool, Waves):
        assert pool.resets == -(-len(SEEDS) // slots)


def test_time_is_either_the_policys_or_the_environments() -> None:
    with contextlib.closing(open_pool(probe(), 3, workers=1)) as pool:
        played = play(pool, SEEDS, Scripted())
    assert played.acting > 0 and played.waiting > played.acting  # nothing is quicker than this policy
    assert played.acting + played.waiting <= played.seconds
    figures = played.figures()
    assert figures["environment_steps"] == LIVES.sum()
    assert figures["steps_per_second"] == pytest.approx(LIVES.sum() / played.seconds, rel=0.01)
    assert 0 < figures["network_share"] + figures["environments_share"] <= 1.001


@pytest.mark.parametrize("restarts", [True, False])
def test_patience_ends_what_earns_nothing(restarts: bool) -> None:
    class Poor(Waves):
        """Only the first two steps of an episode earn anything."""

        def recv(self) -> Step:
            step = self._pool.recv()
            return step._replace(reward=np.where(step.frames[:, 0, 0, 0] <= 2, step.reward, 0).astype(np.float32))

        def restart(self, ids, seeds) -> None:
            self._pool.restart(ids, seeds)

    with contextlib.closing(open_pool(probe(), 3, workers=2)) as pool:
        poor = Poor(pool)
        poor.restarts = restarts
        played = play(poor, SEEDS, Scripted(), patience=2)
    np.testing.assert_array_equal(played.lengths, np.minimum(LIVES, 4))


@pytest.mark.parametrize("kind", [lambda pool: pool, Waves])
def test_steps_end_what_lasts_longer(kind: Callable[[Pool], Any]) -> None:
    with contextlib.closing(open_pool(probe(), 3, workers=2)) as pool:
        played = play(kind(pool), SEEDS, Scripted(), steps=3)
        np.testing.assert_array_equal(played.lengths, np.minimum(LIVES, 3))
        assert LIVES.max() > 3 > LIVES.min()
        np.testing.assert_array_equal(play(kind(pool), SEEDS, Scripted()).lengths, LIVES)


def test_what_watch_raises_ends_the_play_and_the_pool_can_be_used_again() -> None:
    def watch(step: Step, done: np.ndarray) -> None:
        raise KeyboardInterrupt

    with contextlib.closing(open_pool(probe(), 3, workers=2)) as pool:
        with pytest.raises(KeyboardInterrupt):
            play(pool, SEEDS, Scripted(), watch=watch)
        np.testing.assert_array_equal(play(pool, SEEDS, Scripted()).lengths, LIVES)


class Diary:
    """Every action that a policy took, in the order of each episode."""

    def __init__(self, policy: Policy):
        self._policy, self._playing = policy, {}
        self.actions: dict[int, list] = {}

    def start(self, slots: np.ndarray, episodes: np.ndarray) -> None:
        self._policy.start(slots, episodes)
        self._playing.update(zip(slots.tolist(), episodes.tolist(), strict=True))

    def act(self, ids: np.ndarray, frames: np.ndarray) -> np.ndarray:
        actions = self._policy.act(ids, frames)
        for slot, action in zip(ids.tolist(), actions, strict=True):
            self.actions.setdefault(self._playing[slot], []).append(action.tolist())
        return actions


def test_slots_and_workers_change_nothing() -> None:
    """Carracing, whose actions are numbers with all their bits, by the real V and M; and by the random policy."""
    game = find("carracing", EnvConfig(backend="gymnasium", episode_steps=4))
    seeds = [3, 4, 5, 6, 7]
    controller = Controller("zh", 0, 32, 16, game.actions)
    memory = MDNRNN(MemoryConfig(hidden=16), LatentKind(32), game.actions.size, nnx.Rngs(1))
    params = 0.3 * jax.random.normal(jax.random.key(0), (5, controller.n_params))
    agent, agent_params = make_agent(make_vae(VanillaConfig(), nnx.Rngs(0)), memory, controller, params)

    def played(slots: int, workers: int, restarts: bool = True) -> tuple[EpisodeStats, list[dict[int, list]]]:
        diaries = [
            Diary(AgentPolicy(agent, agent_params, np.arange(5), seeds, slots)),
            Diary(RandomPolicy("brownian", game.actions, seeds, 4)),
        ]
        with contextlib.closing(open_pool(game, slots, workers=workers)) as pool:
            results = [play(pool if restarts else Waves(pool), seeds, diary) for diary in diaries]
        return results[0], [diary.actions for diary in diaries]

    reference, actions = played(5, 1)
    assert len({str(episode) for episode in actions[0].values()}) == 5
    for slots, workers, restarts in ((2, 2, True), (3, 1, True), (2, 1, False)):
        result, again = played(slots, workers, restarts)
        assert again == actions
        np.testing.assert_array_equal(result.returns, reference.returns)
