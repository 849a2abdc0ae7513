"""Playing on the device: the same episodes as through a pool, whoever plays beside them."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wm_jax.config.schema import EnvConfig, MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.distributed.mesh import RowSharing
from wm_jax.envs.car_racing.game import CarRacingGame
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.models.agent import make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.latents import LatentKind
from wm_jax.rollout import device
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.device import play_on_device
from wm_jax.rollout.play import play
from wm_jax.rollout.types import EpisodeLimits
from wm_jax.run.artifacts import init_memory, init_vae
from wm_jax.run.interrupt import Interrupted, Stop
from wm_jax.utils.errors import UserError

STEPS = 60
SEEDS = [
    1000,
    1001,
    1002,
    1000,
    1001,
    1002,
    1003,
    1004,
    1005,
    1003,
    1004,
    1005,
    1006,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
]
CANDIDATES = np.array([seed % 3 for seed in range(len(SEEDS))])


def game(steps: int = STEPS):
    return find("carracing", EnvConfig(backend="device", episode_steps=steps))


@pytest.fixture(scope="module")
def actor():
    space = game().actions
    vae = nnx.merge(*init_vae(VanillaConfig(width=0.125), 0))
    memory = nnx.merge(*init_memory(MemoryConfig(hidden=16), LatentKind(32), space.size, 0))
    controller = Controller("zh", 0, 32, 16, space)
    params = 0.3 * jax.random.normal(jax.random.key(1), (3, controller.n_params))
    # One drives off, one stands still, one turns.
    return make_agent(vae, memory, controller, params.at[:, -2].set(jnp.array([3.0, -9.0, 1.0])))


def through_a_pool(actor, rules: EpisodeLimits, count: int = len(SEEDS)):
    """Steps whose frames the host sees."""
    agent, params = actor
    with contextlib.closing(open_pool(game(rules.steps), count)) as pool:
        policy = AgentPolicy(agent, params, CANDIDATES[:count], SEEDS[:count], count)
        return play(pool, SEEDS[:count], policy, patience=rules.patience, watch=lambda step, done: None)


@pytest.mark.parametrize("steps", [STEPS // 2, 2 * STEPS])
def test_play_ends_episodes_after_so_many_steps(actor, steps):
    """On the device, and where the host looks on; but no later than the pool does."""
    agent, params = actor
    with contextlib.closing(open_pool(game(STEPS), len(SEEDS))) as pool:
        policy = AgentPolicy(agent, params, CANDIDATES, SEEDS, len(SEEDS))
        ours, seen = (play(pool, SEEDS, policy, steps=steps, watch=watch) for watch in (None, lambda step, done: None))
    np.testing.assert_array_equal(ours.lengths, min(steps, STEPS))
    np.testing.assert_array_equal(seen.lengths, ours.lengths)
    np.testing.assert_allclose(ours.returns, seen.returns, atol=1e-3)


def directly(actor, rules: EpisodeLimits, slots: int, count: int = len(SEEDS), **more):
    agent, params = actor
    return play_on_device(
        CarRacingGame(),
        SEEDS[:count],
        agent,
        params,
        CANDIDATES[:count],
        rules,
        slots=slots,
        devices=RowSharing(None),
        **more,
    )


def test_no_episodes_are_none(actor):
    """As when there are more processes than episodes."""
    nothing = directly(actor, EpisodeLimits(STEPS, 0), 8, 0)
    assert len(nothing.returns) == len(nothing.lengths) == 0


@pytest.mark.parametrize("patience", [0, 20])
def test_episodes_are_those_of_a_pool(actor, patience):
    rules = EpisodeLimits(STEPS, patience)
    pool = through_a_pool(actor, rules)
    ours = directly(actor, rules, len(SEEDS))
    np.testing.assert_array_equal(ours.lengths, pool.lengths)
    np.testing.assert_allclose(ours.returns, pool.returns, atol=1e-3)
    assert len(set(ours.lengths)) > 1 if patience else set(ours.lengths) == {STEPS}
    assert np.ptp(ours.returns) > 5


def test_slots_that_others_have_left_change_nothing(actor, monkeypatch):
    """Waiting episodes begin in the slots of those that have ended; at the end they move together."""
    monkeypatch.setattr(device, "CPU_ROWS", 8)  # no more than the fewest slots
    monkeypatch.setattr(device, "cores", lambda: 1)
    rules = EpisodeLimits(STEPS, 20)
    expected = directly(actor, rules, len(SEEDS))
    begun, sizes = [], set()

    def begin(*rows):
        begun.append(int(np.sum(rows[-1])))
        return real_begin(*rows)

    def segment(*words):
        sizes.add(len(words[-1].running))
        return real_segment(*words)

    real_begin, real_segment = device._begin, device._segment
    monkeypatch.setattr(device, "_begin", begin)
    monkeypatch.setattr(device, "_segment", segment)
    monkeypatch.setattr(device, "LEAST_SLOTS", 8)
    monkeypatch.setattr(device, "SHRINK", 2)
    for slots, seen in ((8, {8}), (16, {16, 8})):
        found = directly(actor, rules, slots)
        np.testing.assert_array_equal(found.lengths, expected.lengths)
        np.testing.assert_array_equal(found.returns, expected.returns)
        assert sizes == seen and sum(begun) == len(SEEDS) and begun[0] == slots and len(begun) > 1
        sizes.clear()
        begun.clear()


def test_cores_share_the_episodes(actor, monkeypatch):
    """In groups of slots; which of them plays an episode changes nothing."""
    monkeypatch.setattr(device, "CPU_ROWS", 4)
    monkeypatch.setattr(device, "LEAST_SLOTS", 4)
    rules, found = EpisodeLimits(STEPS, 20), []
    for count, sizes in ((1, [20]), (2, [12, 12]), (3, [8] * 3), (64, [8] * 4)):
        monkeypatch.setattr(device, "cores", lambda count=count: count)
        assert device._group_sizes(len(SEEDS)) == sizes
        found.append(directly(actor, rules, len(SEEDS)))
        found.append(directly(actor, rules, 8))
    for other in found[1:]:
        np.testing.assert_array_equal(other.lengths, found[0].lengths)
        np.testing.assert_array_equal(other.returns, found[0].returns)


def test_play_takes_the_device_where_nobody_watches(actor):
    agent, params = actor
    with contextlib.closing(open_pool(game(), 4)) as pool:
        policy = AgentPolicy(agent, params, CANDIDATES[:4], SEEDS[:4], 4)
        played = play(pool, SEEDS[:4], policy)
    np.testing.assert_array_equal(played.lengths, STEPS)
    assert set(played.figures()) == {"environment_steps", "steps_per_second"}


def test_episodes_begin_where_the_pool_says_whoever_looks_on(actor):
    """At the line, or anywhere along the track, where there are other bends ahead."""
    agent, params = actor
    returns = {}
    for anywhere in (False, True):
        with contextlib.closing(open_pool(game(), 8, random_start=anywhere)) as pool:
            for watch in (None, lambda step, done: None):
                policy = AgentPolicy(agent, params, CANDIDATES[:8] * 0, SEEDS[:8], 8)
                returns[anywhere, watch is None] = play(pool, SEEDS[:8], policy, watch=watch).returns
        np.testing.assert_allclose(returns[anywhere, True], returns[anywhere, False], atol=1e-3)
    assert (np.abs(returns[True, True] - returns[False, True]) > 0.1).any()


def test_it_stops_when_asked(actor):
    stop, ended = Stop(), []

    class Impatient:
        def advance(self, count: int) -> None:
            ended.append(count)
            stop.requested = True

    with pytest.raises(Interrupted):
        directly(actor, EpisodeLimits(STEPS, 20), 4, stop=stop, progress=Impatient())
    assert 0 < sum(ended) < len(SEEDS)


def test_numbers_that_are_none_are_refused(actor):
    agent, params = actor
    broken = params._replace(controller=params.controller.at[1, 0].set(jnp.nan))
    with contextlib.closing(open_pool(game(), 4)) as pool:
        policy = AgentPolicy(agent, broken, CANDIDATES[:4], SEEDS[:4], 4)
        with pytest.raises(
            UserError, match=r"CarRacing: the return of the episode of seed 1001 is nan by step 1, .*not f"
        ):
            play(pool, SEEDS[:4], policy)


class Bankrupt(CarRacingGame):
    """Pays more than numbers hold in its second step, and goes on."""

    name = "Bankrupt"

    def step(self, params, state, action):
        frame, state, reward, terminated = super().step(params, state, action)
        return frame, state, jnp.where(state.steps == 3, jnp.inf, reward), terminated


def test_rewards_that_are_no_numbers_are_refused_before_the_episode_ends(actor, monkeypatch):
    agent, params = actor
    monkeypatch.setattr(device, "SEGMENT", 4)
    devices, rules, bankrupt = RowSharing(None), EpisodeLimits(STEPS), Bankrupt()
    with pytest.raises(UserError, match="Bankrupt: the return of the episode of seed 1000 is inf by step 4,"):
        play_on_device(bankrupt, SEEDS[:1], agent, params, CANDIDATES[:1], rules, slots=1, devices=devices)
