"""Games of the user's own, as functions of JAX. `test_own_models.py` takes one through every stage."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from grid_game import Grid

from wm_jax.config.schema import EnvConfig
from wm_jax.distributed.mesh import RowSharing
from wm_jax.envs.games import find
from wm_jax.envs.make import open_pool
from wm_jax.envs.official import is_official, is_transfer, official
from wm_jax.envs.spaces import Discrete
from wm_jax.envs.types import DeviceGame
from wm_jax.models.agent import AgentParams
from wm_jax.models.controller import Controller
from wm_jax.rollout.device import play_on_device
from wm_jax.rollout.types import EpisodeLimits
from wm_jax.utils import streams
from wm_jax.utils.errors import UsageError, UserError

GRID = "jax:grid_game:Grid"
DEVICE = EnvConfig(backend="device")


def test_what_it_says_of_itself_is_what_is_played() -> None:
    game = find(GRID, DEVICE)
    assert (game.title, game.episode_steps, game.solved, game.actions) == ("Grid", 30, 0.5, Grid.actions)
    assert is_official(game) and not is_transfer(game) and official(game) == game
    with contextlib.closing(open_pool(game, 3, official=True)) as pool:
        first = pool.reset([0, 9, 60])
        steps = [pool.step([0, 0, 0]) for _ in range(30)]
    assert first.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(first[1, 8:16, 8:16], np.broadcast_to([255, 0, 0], (8, 8, 3)))
    assert not steps[-2].truncated.any() and steps[-1].truncated.all()


def test_chosen_actions_are_the_games_own_numbers() -> None:
    """`down` alone, its fourth: the square goes down in a pool and on the device, where nobody looks."""
    game = find(GRID, EnvConfig(backend="device", actions=("down", "up")))
    with contextlib.closing(open_pool(game, 1)) as pool:
        pool.reset([6 + 8 * 4])
        steps = [pool.step([0]) for _ in range(2)]
        assert steps[1].terminated[0] and steps[0].reward[0] == np.float32(-0.1) and steps[1].reward[0] == 1.0
    assert _returns(game.actions, [6 + 8 * 4, 7 + 8 * 4, 0]) == pytest.approx([0.9, 0.8, -3.0], abs=1e-5)


def _returns(actions: Any, seeds: list[int]) -> list[float]:
    """Of an agent that always takes the first action."""
    agent: Any = _Stubborn(Controller("z", 0, 2, 0, actions))
    params = AgentParams(None, None, jnp.zeros(agent.controller.n_params))
    candidates = np.zeros(len(seeds), np.int64)
    rules, devices = EpisodeLimits(30), RowSharing(None)
    return play_on_device(Grid(), seeds, agent, params, candidates, rules, slots=8, devices=devices).returns.tolist()


class _Stubborn:
    """The part of `Agent` that playing needs."""

    def __init__(self, controller: Controller):
        self.controller = controller

    def init(self, n: int) -> jax.Array:
        return jnp.zeros(n)

    def act(self, params: Any, carry: Any, ids: Any, *_: Any, at_once: int | None) -> tuple[Any, jax.Array]:
        return carry, jnp.zeros_like(ids)


def test_equal_games_are_compiled_once() -> None:
    assert Grid() == Grid() != Grid(6) and hash(Grid()) == hash(Grid())


class Plain(DeviceGame):
    """Without `dataclass`."""

    name, actions = "Plain", Grid.actions

    def __init__(self, size: int = 8):
        self.size = size

    params_for, start, step = Grid.params_for, Grid.start, Grid.step  # type: ignore[assignment]


def test_equal_games_are_equal_without_a_dataclass_too() -> None:
    assert Plain() == Plain() != Plain(9) and hash(Plain()) == hash(Plain())


class Narrow(Grid):
    """Shows half a picture."""

    name = "Narrow"

    def _draw(self, at: jax.Array, goal: jax.Array) -> jax.Array:
        return super()._draw(at, goal)[:32]


class Broken:
    """No game."""


def raises() -> DeviceGame:
    raise ValueError("no such level")


def nameless() -> DeviceGame:
    class Nameless(Grid):
        actions = None

    return Nameless()


@pytest.mark.parametrize(
    ("name", "settings", "error", "sentence"),
    [
        ("jax:grid_game", {}, UsageError, "give the module and the class in it, MODULE:CLASS"),
        ("jax:no_such_module:Grid", {}, UsageError, "there is no module no_such_module, neither installed nor"),
        ("jax:grid_game:Gird", {}, UsageError, "the module grid_game has no Gird"),
        ("jax:test_own_games:raises", {}, UserError, r"it can't be made \(ValueError: no such level\); mend it"),
        ("jax:test_own_games:Broken", {}, UserError, "it makes Broken, no wm_jax.envs.types.DeviceGame with a name"),
        (
            "jax:test_own_games:nameless",
            {},
            UserError,
            "it makes Nameless, no wm_jax.envs.types.DeviceGame",
        ),
        (GRID, {"kwargs": {"sides": 3}}, UserError, "unexpected keyword argument"),
        (GRID, {"backend": "envpool"}, UsageError, "env.backend envpool: .* runs on the device only"),
        (GRID, {"crop": (0, 9, 0, 9)}, UsageError, "env.crop 0 9 0 9: "),
        (GRID, {"sticky": 0.5}, UsageError, "env.sticky 0.5: only atari games have that"),
        (GRID, {"actions": ("fly",)}, UsageError, "env.actions fly: no such action; choose all, or left, right"),
    ],
)
def test_what_is_no_such_game_is_refused(
    name: str, settings: dict[str, Any], error: type[UserError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence) as raised:
        find(name, EnvConfig(**{"backend": "device", **settings}))
    assert type(raised.value) is error


def test_arguments_reach_it() -> None:
    game = find(GRID, EnvConfig(backend="device", kwargs={"side": 4}))
    with contextlib.closing(open_pool(game, 1)) as pool:
        assert pool.device_game == Grid(4)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(UserError, match=r"Narrow: it shows uint8\[32, 64, 3\], no frame uint8\[64, 64, 3\] and no"):
        find("jax:test_own_games:Narrow", DEVICE)
    agent: Any = _Stubborn(Controller("z", 0, 2, 0, Grid.actions))
    params = AgentParams(None, None, jnp.zeros(agent.controller.n_params))
    with pytest.raises(UserError, match=r"Narrow shows uint8 \[32, 64, 3\], but agents act on frames uint8 \[64, "):
        play_on_device(
            Narrow(), [0], agent, params, np.zeros(1, int), EpisodeLimits(3), slots=1, devices=RowSharing(None)
        )


class Drifting(Grid):
    """One thing about its steps is wrong."""

    name = "Drifting"
    wrong: str

    def __init__(self, wrong: str):
        super().__init__()
        object.__setattr__(self, "wrong", wrong)

    def step(self, params, state, action):
        shown, after, reward, ended = super().step(params, state, action)
        if self.wrong == "state":
            after = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), after)
        if self.wrong == "branch" and ended:
            return shown, after, reward, ended
        reward = reward.astype(jnp.int32) if self.wrong == "reward" else reward
        return (shown, after, reward) if self.wrong == "three" else (shown, after, reward, ended)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("state", r"after a step, its state must stay int32.*, not become float16"),
        ("reward", r"after a step, its reward must be float32\[\], not int32\[\]; mend it"),
        ("three", r"its step fails \(ValueError: not enough values to unpack \(expected 4, got 3\)\); mend it"),
        ("branch", r"its step fails \(TracerBoolConversionError"),
    ],
)
def test_a_game_that_does_not_do_as_it_should_is_refused_before_anything_is_played(wrong: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find("jax:test_own_games:Drifting", EnvConfig(backend="device", kwargs={"wrong": wrong}))


class Dream(DeviceGame):
    """Shows latents: a number that walks as its key, and the action, say; 20 steps of one episode."""

    name, actions, episode_steps = "Dream", Discrete(("down", "up"), (0, 1)), 20

    def params_for(self, seeds):
        return jax.vmap(jax.random.key)(jnp.array([streams.integer(seed, "dream") for seed in seeds], jnp.uint32))

    def start(self, params, place):
        return jnp.zeros(1), (params[place], jnp.zeros(1))

    def step(self, params, state, action):
        key, own = jax.random.split(state[0])
        z = state[1] + 0.01 * jax.random.normal(own, (1,)) + jnp.where(action == 1, 1.0, -1.0)
        return z, (key, z), -jnp.abs(z[0]), jnp.abs(z[0]) > 5


def test_an_agent_plays_a_game_that_shows_latents() -> None:
    """As a dream does: V is not asked. C goes down where z is above 0, so that z stays near it."""
    from wm_jax.models.agent import Agent

    controller = Controller("z", 0, 1, 0, Dream.actions)
    unused = nnx.split(nnx.Dict())[0]
    agent = Agent(vae=unused, memory=None, begin=(), controller=controller, memory_reset=0, sample_latent=False)
    back, away = jnp.array([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])
    params = AgentParams(None, None, jnp.stack([back, away]))
    seeds, rules, devices = [1, 2, 1, 2], EpisodeLimits(20), RowSharing(None)
    played = play_on_device(Dream(), seeds, agent, params, np.array([0, 0, 1, 1]), rules, slots=4, devices=devices)
    assert played.lengths.tolist() == [20, 20, 6, 6]
    assert (played.returns[:2] > -12).all() and (played.returns[2:] < -19).all()
    assert played.returns[0] != played.returns[1], "each seed draws its own noise"
