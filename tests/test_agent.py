"""The agent against a plain loop over its parts, and its independence of what is played beside it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VanillaConfig
from wm_jax.envs.spaces import ActionSpace, Continuous, Discrete
from wm_jax.models.agent import Agent, AgentCarry, AgentParams, make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.latents import Gaussian, LatentKind
from wm_jax.models.memory import MDNRNN
from wm_jax.models.preprocess import to_float
from wm_jax.models.vae import Vae
from wm_jax.utils.errors import UserError

T, N, Z, H, P = 6, 4, 3, 5, 7
SEEDS = np.arange(N, dtype=np.int32) + 100
MOVES = Discrete(("left", "stay", "right"), (0, 1, 2))
CAR = Continuous(("steer", "gas"), (-1.0, 0.0), (1.0, 1.0), ("tanh", "sigmoid"))


class PixelVae(Vae):
    """Stands in for V: the latents are four pixels' colours, with a fixed deviation."""

    def __init__(self) -> None:
        self.config = VanillaConfig.model_validate({"latent": Z})
        self.kernel = nnx.Param(1.5 * jax.random.normal(jax.random.key(5), (12, Z)))

    def encode(self, frames: jax.Array) -> Gaussian:
        mean = (frames[:, :2, :2].reshape(-1, 12) - 0.5) @ self.kernel[...]
        return Gaussian(mean, jnp.full_like(mean, np.log(0.25)))


def make_memory(latent: int, action: int, cell: str = "lstm") -> MDNRNN:
    config = MemoryConfig.model_validate({"hidden": H, "mixtures": 2, "cell": cell})
    return MDNRNN(config, LatentKind(latent), action, nnx.Rngs(1))


def parts(
    inputs: Any = "zh", actions: ActionSpace = MOVES, cell: Any = "lstm", population: int | None = None
) -> tuple[PixelVae, MDNRNN, Controller, jax.Array]:
    memory = make_memory(Z, actions.size, cell)
    memory.cell.wx[...] *= 3.0  # So that the state matters.
    controller = Controller(inputs, 0, Z, H, actions)
    shape = (controller.n_params,) if population is None else (population, controller.n_params)
    return PixelVae(), memory, controller, 0.8 * jax.random.normal(jax.random.key(2), shape)


def make_frames(n: int = N) -> jax.Array:
    return jax.random.randint(jax.random.key(3), (T, n, 64, 64, 3), 0, 256).astype(jnp.uint8)


def play(agent: Agent, params: AgentParams, frames: jax.Array, **options: Any) -> tuple[AgentCarry, np.ndarray]:
    carry, actions = agent.init(frames.shape[1]), []
    for now in frames:
        everyone = jnp.arange(len(now))
        carry, action = agent.act(params, carry, everyone, now, SEEDS[: len(now)], **options)
        actions.append(np.asarray(action))
    return carry, np.stack(actions)


@pytest.mark.parametrize("actions", [MOVES, CAR])
@pytest.mark.parametrize(("inputs", "cell"), [("z", "lstm"), ("zh", "gru"), ("zhc", "lstm")])
@pytest.mark.parametrize("reset", [0, 2])
def test_act_is_v_then_c_then_m(inputs: str, cell: str, actions: ActionSpace, reset: int) -> None:
    """The controller sees the state before this frame; M is fed the frame and the action afterwards."""
    vae, memory, controller, params = parts(inputs, actions, cell)
    frames = make_frames()
    _, played = play(*make_agent(vae, memory, controller, params, memory_reset=reset), frames)
    for row in range(N):
        state = memory.init_carry(1)
        for t in range(T):
            if reset and t % reset == 0:
                state = memory.init_carry(1)
            z = vae.encode(to_float(frames[t, row][None])).mode()
            raw = controller.apply(params, controller.features(z, state)[0])[None]
            action = actions.choose(raw)
            np.testing.assert_allclose(played[t, row], action[0], atol=1e-5)
            state = memory.step(state, z, actions.encode(action))


def test_memory_matters_to_the_controller_that_sees_it() -> None:
    """Guards the test above: without the state other actions would be chosen."""
    vae, memory, controller, params = parts(actions=CAR)
    frames = jnp.repeat(make_frames()[:1], T, axis=0)
    _, played = play(*make_agent(vae, memory, controller, params), frames)
    assert (np.abs(played - played[:1]) > 0.01).any()


def test_a_population_plays_like_its_members() -> None:
    vae, memory, controller, params = parts(population=P)
    frames, candidates = make_frames(), jnp.asarray([6, 0, 3, 3])
    _, together = play(*make_agent(vae, memory, controller, params), frames, candidates=candidates)
    for row, candidate in enumerate(candidates):
        _, alone = play(*make_agent(vae, memory, controller, params[candidate]), frames[:, row : row + 1])
        np.testing.assert_array_equal(together[:, row], alone[:, 0])
    assert (together[:, 0] != together[:, 1]).any()


@pytest.mark.parametrize("sample", [False, True])
def test_slots_in_any_order_play_like_all_together(sample: bool) -> None:
    """An asynchronous pool: slots step one or two at a time and out of step, with padding in the batch."""
    vae, memory, controller, params = parts(actions=CAR, population=P)
    agent, agent_params = make_agent(vae, memory, controller, params, sample_latent=sample)
    frames, candidates = make_frames(), jnp.asarray([1, 5, 0, 2])
    last, together = play(agent, agent_params, frames, candidates=candidates)
    schedule = [slot for slot in range(N) for _ in range(T)]
    rng = np.random.default_rng(0)
    rng.shuffle(schedule)
    carry, times, apart = agent.init(N), [0] * N, np.zeros_like(together)
    while schedule:
        ids = [schedule.pop()]
        if schedule and schedule[-1] != ids[0]:
            ids.append(schedule.pop())
        padded = jnp.asarray([*ids, -1, N][:3])
        now = jnp.stack([frames[times[slot], slot] for slot in ids] + [frames[0, 0]] * (3 - len(ids)))
        who = jnp.stack([candidates[slot] for slot in ids] + [candidates[0]] * (3 - len(ids)))
        carry, actions = agent.act(agent_params, carry, padded, now, SEEDS[padded % N], who)
        for row, slot in enumerate(ids):
            apart[times[slot], slot] = actions[row]
            times[slot] += 1
    np.testing.assert_allclose(apart, together, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carry, last)


@pytest.mark.parametrize("actions", [MOVES, CAR])
def test_rows_a_few_at_once_are_rows_all_at_once(actions: ActionSpace) -> None:
    """Padding in front, between and behind; whole pieces of it, too."""
    vae, memory, controller, params = parts(actions=actions, population=P)
    agent, agent_params = make_agent(vae, memory, controller, params, sample_latent=True)
    ids = jnp.asarray([-1, 2, 0, N, 3, -1, N + 1, -1])
    frames = make_frames(8)
    seeds, candidates = jnp.arange(8), jnp.arange(8) % P
    results = []
    for at_once in (None, 1, 2, 4, 8):
        carry = agent.init(N)
        for now in frames[:3]:
            carry, played = agent.act(agent_params, carry, ids, now, seeds, candidates, at_once=at_once)
        results.append((carry, played[jnp.asarray([1, 2, 4])]))
    np.testing.assert_array_equal(results[0][0].steps, [3, 0, 3, 3])
    for result in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), result, results[0])


def test_a_fresh_row_starts_over_and_leaves_the_others_alone() -> None:
    vae, memory, controller, params = parts(actions=CAR)
    agent, agent_params = make_agent(vae, memory, controller, params, sample_latent=True)
    frames = make_frames()
    fresh = jnp.asarray([False, True, False, False])
    ids = jnp.arange(N)
    carry, _ = agent.act(agent_params, agent.init(N), ids, frames[0], SEEDS)
    carry, _ = agent.act(agent_params, carry, ids, frames[1], SEEDS, None, fresh)
    undisturbed, _ = agent.act(agent_params, agent.init(N), ids, frames[0], SEEDS)
    undisturbed, _ = agent.act(agent_params, undisturbed, ids, frames[1], SEEDS)
    begun, _ = agent.act(agent_params, agent.init(N), ids, frames[1], SEEDS)
    np.testing.assert_array_equal(carry.steps, [2, 1, 2, 2])
    for mine, others, new in zip(carry.memory, undisturbed.memory, begun.memory, strict=True):
        np.testing.assert_array_equal(mine[fresh], new[fresh])
        np.testing.assert_array_equal(mine[~fresh], others[~fresh])


def test_sampled_latents_differ_between_rows_and_steps_and_have_the_right_spread() -> None:
    vae, memory, controller, params = parts()
    agent, agent_params = make_agent(vae, memory, controller, params, sample_latent=True)
    frames = jnp.zeros((4_000, 64, 64, 3), jnp.uint8)
    keys = jax.random.split(jax.random.key(0), 4_000)
    z = np.asarray(agent.see(agent_params, frames, keys))
    np.testing.assert_allclose(z.std(0), 0.5, rtol=0.05)
    np.testing.assert_allclose(z.mean(0), -0.5 * vae.kernel[...].sum(0), atol=0.04)
    controller = Controller("z", 0, Z, H, Continuous(("x",), (-1e3,), (1e3,), ("tanh",)))
    still, still_params = make_agent(vae, memory, controller, 1e-3 * jnp.ones(Z + 1), sample_latent=True)
    _, played = play(still, still_params, jnp.zeros((T, N, 64, 64, 3), jnp.uint8))
    assert len(np.unique(played)) == T * N


def test_sampled_actions_are_as_likely_as_the_outputs_say() -> None:
    """Each by its episode's seed and its frame alone."""
    vae, memory, _, _ = parts()
    controller = Controller("z", 0, Z, H, MOVES)
    outputs = jnp.log(jnp.asarray([0.6, 0.3, 0.1]))
    params = jnp.concatenate([jnp.zeros(3 * Z), outputs])
    agent, agent_params = make_agent(vae, memory, controller, params, sample_action=True)
    count = 6_000
    frames, seeds = jnp.zeros((count, 64, 64, 3), jnp.uint8), jnp.arange(count, dtype=jnp.int32)
    carry, first = agent.act(agent_params, agent.init(count), jnp.arange(count), frames, seeds)
    _, second = agent.act(agent_params, carry, jnp.arange(count), frames, seeds)
    for actions in (first, second):
        np.testing.assert_allclose(np.bincount(actions, minlength=3) / count, [0.6, 0.3, 0.1], atol=0.02)
    both = np.mean((np.asarray(first) == 0) & (np.asarray(second) == 0))
    assert both == pytest.approx(0.36, abs=0.02)
    _, again = agent.act(agent_params, agent.init(4), jnp.asarray([3, 1]), frames[:2], seeds[jnp.asarray([17, 5])])
    np.testing.assert_array_equal(again, first[jnp.asarray([17, 5])])


def test_a_controller_on_z_alone_runs_no_memory() -> None:
    vae, _, controller, params = parts("z")
    agent, agent_params = make_agent(vae, None, controller, params)
    carry, _ = agent.act(agent_params, agent.init(N), jnp.arange(N), make_frames()[0], SEEDS)
    assert agent_params.memory is None
    assert carry.memory == ()


def test_one_compilation_serves_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, memory, controller, params = parts()
    agent, agent_params = make_agent(vae, memory, controller, params)
    traces, see = [], Agent.see
    monkeypatch.setattr(Agent, "see", lambda *arguments: (traces.append(1), see(*arguments))[1])
    play(agent, agent_params, make_frames())
    play(agent, agent_params, make_frames())
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, m, c, p: (v, m, Controller("zh", 0, Z, H + 1, MOVES), jnp.zeros(30)), "hidden units of M"),
        (lambda v, m, c, p: (v, m, c, p[:-1]), "parameters of C"),
        (lambda v, m, c, p: (v, None, c, p), "needs a memory"),
        (lambda v, m, c, p: (v, make_memory(Z, 9), c, p), "action dimensions"),
        (lambda v, m, c, p: (v, make_memory(9, 3), c, p), "latents of M"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: Callable[..., Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_agent(*change(*parts()))


def test_a_gru_cannot_serve_zhc() -> None:
    with pytest.raises(UserError, match=r"controller\.inputs zhc"):
        make_agent(*parts("zhc", cell="gru"))


def test_bits_do_not_depend_on_who_answers_together() -> None:
    """The real V and M, in batches of any size and order up to what a rollout uses on CPU."""
    from flax import nnx

    from wm_jax.config.schema import MemoryConfig
    from wm_jax.config.vaes import VanillaConfig
    from wm_jax.models.vae import make_vae
    from wm_jax.rollout.agent_policy import AgentPolicy

    n = 70
    controller = Controller("zh", 0, 32, 64, CAR)
    memory = MDNRNN(MemoryConfig(hidden=64), LatentKind(32), CAR.size, nnx.Rngs(1))
    params = 0.3 * jax.random.normal(jax.random.key(0), (2, controller.n_params))
    agent, agent_params = make_agent(make_vae(VanillaConfig(), nnx.Rngs(0)), memory, controller, params)
    frames = np.asarray(make_frames(n))

    def played(size: int, seed: int) -> np.ndarray:
        policy = AgentPolicy(agent, agent_params, np.arange(n) % 2, list(range(n)), n)
        policy.start(np.arange(n), np.arange(n))
        random, actions = np.random.default_rng(seed), np.zeros((3, n, CAR.size), np.float32)
        for t in range(3):
            order = random.permutation(n).astype(np.int32)
            for ids in np.array_split(order, -(-n // size)):
                actions[t, ids] = policy.act(ids, frames[t][ids])
        return actions

    reference = played(n, 0)
    for size in (3, 24, 40):
        np.testing.assert_array_equal(played(size, size), reference)
