"""A world with known rules is collected, encoded and learned by M; its dream must then behave as the world does.

The same check finds each of the mistakes that no loss shows: actions, rewards or ends that are shifted by a step, and
training windows that run from one episode into the next.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from sledge_game import FASTEST, FIRST, LAST, PIXELS, Ruler, Sled, moved

from wm_jax import cli
from wm_jax.config.schema import Config, DreamConfig, Ends, EnvConfig, MemoryConfig
from wm_jax.config.vaes import CustomVaeConfig
from wm_jax.data import sequences
from wm_jax.data.beginnings import beginnings
from wm_jax.data.sequences import Either, FlatLatents
from wm_jax.envs.device import start_all, step_all
from wm_jax.envs.games import find
from wm_jax.envs.types import Game
from wm_jax.evaluation.coherence import coherent_steps, faithful_steps
from wm_jax.models.agent import make_agent
from wm_jax.models.controller import Controller
from wm_jax.models.dream import Beginnings, Dream, require_heads
from wm_jax.models.heads import Mixture
from wm_jax.models.latents import Gaussian
from wm_jax.models.memory import MDNRNN, Prediction
from wm_jax.render.video import extract_frames
from wm_jax.rollout.agent_policy import AgentPolicy
from wm_jax.rollout.dreaming import dream_along
from wm_jax.rollout.play import play_in_dream
from wm_jax.run.artifacts import load_memory, load_vae
from wm_jax.run.dreams import load_dream
from wm_jax.run.folder import Run
from wm_jax.run.metrics import read_metrics
from wm_jax.stages import train_memory
from wm_jax.utils.errors import UserError

GAME = "jax:sledge_game:Sledge"
WORDS = ["--game", GAME, "--env.backend", "device", "--preset", "smoke"]
MEMORY = (
    "--memory.hidden 48 --memory.mixtures 2 --memory.sequence 12 --memory.batch 64 --memory.steps 1500 "
    "--memory.learning_rate 1e-2 --memory.final_learning_rate 1e-3 --memory.steps_per_dispatch 100 "
    "--memory.save_every 1500 --memory.report_every 1500 --memory.reward_head true --memory.done_head true "
    "--memory.done_weight 1"
)
DREAMS, STEPS = 300, 8
CONFIG = Config(game=GAME, env=EnvConfig(backend="device"))


class Agreement(NamedTuple):
    """How a dream and the world itself, both with the same actions, part within `STEPS`.

    place: mean distance of the sledges while both go on, in pixels.
    reward: mean difference of the rewards.
    ends: of the worlds that end, the share whose dream ends in the same step.
    """

    place: float
    reward: float
    ends: float


def held_against_the_world(dream: Dream) -> Agreement:
    """Dreams from real beginnings, with random actions."""
    params = dream.params_for(range(DREAMS))
    z, states = start_all(dream, params, jnp.arange(DREAMS))
    sled = Sled(jnp.round(place(z)).astype(jnp.int32), jnp.zeros(DREAMS, jnp.int32))
    apart, wrong, ends = [], [], np.full((2, DREAMS), STEPS)  # of the dream, and of the world
    for step, action in enumerate(np.random.default_rng(0).integers(0, 3, (STEPS, DREAMS), np.int32)):
        z, states, reward, dream_ends = step_all(dream, params, states, jnp.asarray(action))
        sled, true_reward, world_ends = jax.vmap(moved)(sled, jnp.asarray(action))
        going = (ends == STEPS).all(axis=0)
        apart.append(np.abs(place(z) - np.asarray(sled.place))[going])
        wrong.append(np.abs(np.asarray(reward) - np.asarray(true_reward))[going])
        ends = np.where((ends == STEPS) & np.stack([dream_ends, world_ends]), step, ends)
    ended = ends[1] < STEPS
    assert ended.sum() > DREAMS / 10, "games end"
    apart, wrong = (float(np.concatenate(each).mean()) for each in (apart, wrong))
    return Agreement(apart, wrong, float((ends[0] == ends[1])[ended].mean()))


def place(z: Either) -> np.ndarray:
    """In pixels."""
    return (np.asarray(z)[:, 0] + 1) * Ruler.SCALE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with replays and latents."""
    folder = tmp_path_factory.mktemp("dream") / "run"
    words = [*WORDS, "--run", str(folder)]
    collect = "--collect.episodes 600 --collect.hold 2 --collect.slots 200"
    assert cli.main(["collect", *words, *collect.split()]) == 0
    ruler = "--vae.variant sledge_game:Ruler --vae.latent 2 --vae.steps 5"
    assert cli.main(["train_vae", *words, *ruler.split()]) == 0
    assert cli.main(["encode", *words]) == 0
    return folder


def learned(run: Path, name: str) -> Run:
    """The run of this name, in which M has been trained."""
    words = [*WORDS, "--run", str(run), "--name", name, *MEMORY.split()]
    assert cli.main(["train_memory", *words]) == 0
    return Run.open(run / "named" / name)


def dreamed(run: Run, *, shares_memory: bool = False, **settings: object) -> Dream:
    config = CONFIG.model_copy(update={"dream": DreamConfig.model_validate(settings)})
    game, vae = find(GAME, config.env), load_vae(run, config)
    return load_dream(run, config, game, vae, load_memory(run, vae, game), shares_memory=shares_memory)[0]


@pytest.fixture(scope="module")
def truthful(run: Path) -> Run:
    return learned(run, "truthful")


def test_the_dream_behaves_as_the_world_does(truthful: Run) -> None:
    found = held_against_the_world(dreamed(truthful, temperature=0.1))
    assert found.place < 1.5 and found.reward < 0.1 and found.ends > 0.6, found


def test_m_says_how_well_it_predicts(truthful: Run) -> None:
    summary = truthful.stage("memory").summary()
    assert summary is not None
    assert summary["reward_correlation"] > 0.97 and summary["end_recall"] > 0.6 < summary["end_precision"]
    assert 0.8 < summary["ends_expected"] < 1.25
    assert summary["error_1"] < 0.05 < summary["copied_error_1"] < summary["copied_error_5"]
    assert summary["error_5"] < summary["sampled_error_5"] < summary["copied_error_5"] / 2


def late(values: Either) -> np.ndarray:
    """A step late."""
    return np.roll(values, 1, axis=0)


MISTAKES: dict[str, tuple[Callable[[FlatLatents], FlatLatents], Callable[[Agreement], bool]]] = {
    "actions a step late": (lambda it: it._replace(action=late(it.action)), lambda found: found.place > 2.5),
    "rewards a step late": (lambda it: it._replace(reward=late(it.reward)), lambda found: found.reward > 0.4),
    "ends a step early": (lambda it: it._replace(done=np.roll(it.done, -1)), lambda found: found.ends < 0.3),
    "ends a step late": (lambda it: it._replace(done=late(it.done)), lambda found: found.ends < 0.3),
    "windows across episodes": (lambda it: it._replace(offsets=it.offsets[[0, -1]]), lambda found: found.place > 2.5),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_check_finds_a_mistake(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake, finds = MISTAKES[name]
    true = sequences.flat_latents
    monkeypatch.setattr(train_memory, "flat_latents", lambda *given: mistake(true(*given)))
    found = held_against_the_world(dreamed(learned(run, name.replace(" ", "-")), temperature=0.1))
    assert finds(found), found


def stepped(dream: Dream, seeds: Sequence[int], action: int) -> tuple[np.ndarray, ...]:
    """The first z, the second one, the reward and the end, of dreams that take one step."""
    params = dream.params_for(seeds)
    first, states = start_all(dream, params, jnp.arange(len(seeds)))
    second, _, reward, end = step_all(dream, params, states, jnp.full(len(seeds), action, jnp.int32))
    return tuple(np.asarray(each) for each in (first, second, reward, end))


def test_a_seed_decides_its_dream(truthful: Run) -> None:
    """Whichever others are dreamt beside it."""
    dream = dreamed(truthful)
    some, others = stepped(dream, (3, 5, 7), 2), stepped(dream, (5, 3, 11), 2)
    for one, other in zip(some[:3], others[:3], strict=True):
        np.testing.assert_allclose(one[:2], other[1::-1], atol=1e-5)
    assert np.abs(some[0][2] - others[0][2]).max() > 0.01


def test_an_agent_draws_nothing_that_the_dream_has_drawn(truthful: Run) -> None:
    """Both draw from the seed of the episode and the number of the frame."""
    (of_dream,) = jax.random.key_data(dreamed(truthful).params_for([3]).keys)
    assert of_dream.tolist() != jax.random.key_data(jax.random.key(3)).tolist()


def test_frames_before_the_beginning_are_seen(truthful: Run) -> None:
    """They show the speed, which a single frame does not: without them, where the sledge slides to is a guess."""
    dream = dreamed(truthful, warm_up=4, random_start=True, temperature=0.01)
    rows = dream.beginnings
    assert rows.action.shape[1:] == (4, 3) and rows.latent.mean.shape[1:] == (5, 2)
    before, last = (place(rows.latent.mean[:, i]) for i in (-2, -1))
    fast = (np.abs(last - before) == FASTEST * PIXELS) & (last >= FIRST + 6) & (last <= LAST - 6)
    seen = jax.tree.map(lambda leaf: leaf[fast], rows)

    def off(beginnings: Beginnings) -> float:
        dream.beginnings = beginnings
        first, second, *_ = stepped(dream, range(DREAMS), 1)
        return float(np.abs(np.abs(place(second) - place(first)) - FASTEST * PIXELS).mean())

    alone = Beginnings(jax.tree.map(lambda leaf: leaf[:, -1:], seen.latent), seen.action[:, :0])
    assert off(seen) < 1.5 < 3 < off(alone)


class Says(MDNRNN):
    """An M that always says the same of ends: with weight 10 in training, odds of 1 to 1 mean odds of 1 to 10."""

    def __init__(self, logit: float):
        self.logit, self.config = logit, MemoryConfig(hidden=4, done_head=True, reward_head=True, done_weight=10.0)

    def init_carry(self, n: int) -> jax.Array:
        return jnp.zeros((n, 4))

    def output(self, carry: jax.Array) -> jax.Array:
        return carry

    def step(self, carry: jax.Array, z: jax.Array, action: jax.Array) -> jax.Array:
        return carry

    def predict(self, h: jax.Array) -> Prediction:
        mixture = Mixture(jnp.zeros((len(h), 1, 2)), jnp.ones((len(h), 1, 2)), jnp.zeros((len(h), 1, 2)))
        return Prediction(mixture, jnp.full(len(h), 7.0), jnp.full(len(h), self.logit))


def told(ends: Ends, logit: float, game: Game | None = None, temperature: float = 1.0) -> tuple[np.ndarray, ...]:
    """Z, rewards and ends of many dreams' first step."""
    rows = Beginnings(Gaussian(np.zeros((1, 1, 2), np.float32), np.zeros((1, 1, 2), np.float32)), NOTHING)
    vae = Ruler(CustomVaeConfig(variant="sledge_game:Ruler", latent=2), nnx.Rngs(0))
    dream = Dream(game or find(GAME, CONFIG.env), vae, [Says(logit)], rows, ends=ends, temperature=temperature)
    return stepped(dream, range(2000), 1)[1:]


NOTHING = np.zeros((1, 0, 3), np.float32)


def test_ends_come_as_they_are_asked_for() -> None:
    assert told("threshold", 0.1)[2].all() and not told("threshold", -0.1)[2].any()
    assert not told("never", 100.0)[2].any()
    assert told("sampled", 0.0)[2].mean() == pytest.approx(1 / 11, abs=0.02)
    assert told("sampled", float(np.log(10)))[2].mean() == pytest.approx(1 / 2, abs=0.03)


class Expects(Says):
    """An M that always expects one z, as far as its outputs of 1 are not masked."""

    def __init__(self, z: float, dropout: float = 0.0):
        super().__init__(-1.0)
        self.config = self.config.model_copy(update={"dropout": dropout})
        self.cell = self.config  # which says how many outputs there are
        self.z = nnx.Param(jnp.float32(z))

    def output(self, carry: jax.Array) -> jax.Array:
        return jnp.ones((len(carry), 4))

    def predict(self, h: jax.Array) -> Prediction:
        mean = self.z[...] * h[:, None, :2]
        mixture = Mixture(jnp.zeros_like(mean), mean, jnp.full(mean.shape, -7.0))
        return Prediction(mixture, jnp.full(len(h), 7.0), jnp.full(len(h), -1.0))


def expected(*memories: MDNRNN, disagreement: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Z [T + 1, N, 2] of dreams by these M's, and rewards [T, N]."""
    rows = Beginnings(Gaussian(np.zeros((1, 1, 2), np.float32), np.zeros((1, 1, 2), np.float32)), NOTHING)
    vae = Ruler(CustomVaeConfig(variant="sledge_game:Ruler", latent=2), nnx.Rngs(0))
    dream = Dream(find(GAME, CONFIG.env), vae, memories, rows, disagreement=disagreement)
    found = dream_along(dream, range(1000), np.zeros((6, 1000), np.int32))
    return np.asarray(found.z), np.asarray(found.reward)


def test_each_dream_is_that_of_one_m() -> None:
    z, reward = expected(Expects(1.0), Expects(3.0), Expects(8.0))
    each = z[1:].round(1)
    assert (each == each[:1]).all(), "of one and the same M from the first step to the last"
    np.testing.assert_allclose([(each[0, :, 0] == guess).mean() for guess in (1, 3, 8)], 1 / 3, atol=0.05)
    assert (reward == 7).all()


def test_what_they_do_not_agree_on_costs_reward() -> None:
    reward = expected(Expects(1.0), Expects(3.0), disagreement=0.5)[1]
    np.testing.assert_allclose(reward, 7 - 0.5 * 1.0, rtol=1e-6)  # 1 and 3 have a standard deviation of 1


def test_each_dream_does_without_the_same_outputs_throughout() -> None:
    z = expected(Expects(1.0, dropout=0.5))[0][1:].round(2)
    assert (z == z[:1]).all()
    assert set(np.unique(z)) == {0.0, 2.0} and z.mean() == pytest.approx(1, abs=0.1)


def test_further_ms_are_trained_and_named(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--run", str(truthful.path), *CONTROLLER.split(), "--name", "many", "--dream.members", "2"]
    assert cli.main(["train_controller", *words]) == 1
    assert "named/member-2 is not trained yet; run bin/train_memory --dream.members 2 first" in capsys.readouterr().err
    training = ["train_memory", *WORDS, "--run", str(truthful.path.parent.parent), "--name", "truthful"]
    assert cli.main([*training, *MEMORY.split(), "--dream.members", "2"]) == 0
    assert cli.main(["train_controller", *words, "--dream.disagreement", "0.5"]) == 0
    made = Run.open(truthful.path / "named" / "many").stage("controller").manifest() or {}
    member = Run.open(truthful.path / "named" / "member-2").stage("memory").summary() or {}
    assert made["parents"]["member-2"] == member["weights"] != (truthful.stage("memory").summary() or {})["weights"]
    assert cli.main(["train_controller", *words]) == 1
    assert "was made with --dream.disagreement 0.5, but now it is 0.0" in capsys.readouterr().err


def test_a_member_is_no_copy_and_goes_with_the_first(
    truthful: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(truthful.path.parent.parent, run)
    quick = [*MEMORY.replace("1500", "20").split(), "--dream.members", "2"]
    words = ["--game", GAME, *WORDS[2:], "--run", str(run), "--name", "pair", *quick]
    assert cli.main(["train_memory", *words]) == 0
    before = [(Run.open(path).stage("memory").summary() or {})["weights"] for path in members(run)]
    assert cli.main(["train_memory", *words, "--fresh", "--memory.hidden", "24"]) == 0
    after = [(Run.open(path).stage("memory").summary() or {})["weights"] for path in members(run)]
    assert len({*before, *after}) == 4
    evolving = [
        "train_controller",
        *words,
        *CONTROLLER.split(),
        "--memory.hidden",
        "24",
        "--controller.generations",
        "1",
    ]
    assert cli.main(evolving) == 0
    shutil.rmtree(members(run)[1] / "memory")
    shutil.copytree(members(run)[0] / "memory", members(run)[1] / "memory")
    assert cli.main([*evolving, "--fresh"]) == 1
    assert "is a copy of another M; run bin/train_memory --fresh --dream.members 2" in capsys.readouterr().err


def members(run: Path) -> tuple[Path, Path]:
    return run / "named" / "pair", run / "named" / "pair" / "named" / "member-2"


def test_one_m_disagrees_with_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_controller", *WORDS, "--run", str(tmp_path / "none"), "--in", "dream", "--dream.disagreement", "1"]
    assert cli.main(words) == 2
    assert "--dream.disagreement 1: a single M disagrees with nobody; give --dream.members 4" in capsys.readouterr().err


def test_the_temperature_widens_what_is_drawn() -> None:
    """The variances of the mixture are multiplied by it."""
    for temperature in (0.25, 1.0, 4.0):
        z = told("never", 0.0, temperature=temperature)[0]
        assert z.mean() == pytest.approx(1, abs=0.1) and z.var() == pytest.approx(temperature, rel=0.1)


def test_a_reward_that_is_known_is_not_predicted() -> None:
    game = find(GAME, CONFIG.env)
    assert set(told("never", 0.0, game)[1].tolist()) == {7.0}
    assert set(told("never", 0.0, replace(game, step_reward=1.0))[1].tolist()) == {1.0}


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("doom", {"backend": "gymnasium"}),
        ("carracing", {"backend": "device"}),
        ("enduro", {"backend": "gymnasium", "actions": ("RIGHT", "NOOP", "FIRE")}),
    ],
)
def test_a_dream_takes_actions_as_its_game_does(name: str, env: dict[str, Any]) -> None:
    space = find(name, EnvConfig.model_validate(env)).actions
    actions = jnp.asarray(space.draw(np.random.default_rng(0), 50))
    np.testing.assert_array_equal(space.from_game(space.in_game(actions)), actions)


@pytest.mark.parametrize("warm_up", [0, 2])
def test_a_dreams_bits_do_not_depend_on_those_beside_it(truthful: Run, warm_up: int) -> None:
    """48 dreams, or 16 of them alone, stepped in pieces of 16 as agents play them on a CPU."""
    dream, found = dreamed(truthful, warm_up=warm_up), []
    for count in (48, 16):
        params = dream.params_for(range(count))
        _, states = start_all(dream, params, jnp.arange(count))
        z, _, reward, _ = step_all(dream, params, states, jnp.ones(count, jnp.int32), 16)
        found.append((np.asarray(z)[:16], np.asarray(reward)[:16]))
    for some, alone in zip(*found, strict=True):
        np.testing.assert_array_equal(some, alone)


def returns_in(dream: Dream, run: Run) -> np.ndarray:
    """Of an agent that acts on M's state as much as on z."""
    vae = load_vae(run, CONFIG)
    memory = load_memory(run, vae, find(GAME, CONFIG.env)).model()
    shape = Controller("zhc", 0, 2, memory.cell.hidden, dream.actions)
    controller = jax.random.normal(jax.random.key(0), (1, shape.n_params))
    agent, params = make_agent(vae.model(), memory, shape, controller)
    policy = AgentPolicy(agent, params, np.zeros(32, np.int32), range(32), 32)
    return play_in_dream(dream, range(32), policy, 32).returns


def test_an_agent_that_shares_the_dreams_memory_acts_as_one_that_runs_its_own(truthful: Run) -> None:
    """Unless the dream was warmed up: only what is shared has seen those frames."""
    own, shared = (returns_in(dreamed(truthful, shares_memory=shares), truthful) for shares in (False, True))
    np.testing.assert_allclose(own, shared, atol=1e-3)
    own, shared = (returns_in(dreamed(truthful, shares_memory=shares, warm_up=4), truthful) for shares in (False, True))
    assert len(set(np.round(own, 3))) > 8 and np.abs(own - shared).max() > 0.1


def flat(lengths: Sequence[int]) -> FlatLatents:
    """Episodes of so many frames; every mean is the frame's place among all of them."""
    count = sum(lengths)
    mean = np.arange(count, dtype=np.float32)[:, None]
    zero = np.zeros(count, np.float32)
    return FlatLatents(Gaussian(mean, mean), mean, zero, zero, np.cumsum([0, *lengths]))


@pytest.mark.parametrize(
    ("warm_up", "anywhere", "expected"),
    [
        (0, False, [0]),  # the second stretch begins amid an episode, the third has no step
        (0, True, [0, 1, 2, 4, 5, 6]),
        (2, False, [2]),
        (2, True, [2, 6]),
    ],
)
def test_where_dreams_begin(warm_up: int, anywhere: bool, expected: list[int]) -> None:
    found = beginnings(flat([4, 4, 1]), [0, 7, 0], warm_up, anywhere=anywhere)
    assert found.latent.mean[:, -1, 0].tolist() == expected
    assert found.action[:, :, 0].tolist() == [[at - warm_up + i for i in range(warm_up)] for at in expected]


def test_no_beginning_is_an_error() -> None:
    with pytest.raises(UserError, match=r"--dream.warm_up 3: no episode .* give fewer, or --dream.random_start"):
        beginnings(flat([4, 4, 1]), [0, 0, 0], 3, anywhere=False)


@pytest.mark.parametrize(("ends", "lacking"), [("threshold", "reward"), ("never", "reward"), ("sampled", "done")])
def test_a_head_that_lacks_is_named(ends: Ends, lacking: str) -> None:
    settings = MemoryConfig(hidden=4, reward_head=lacking != "reward", done_head=False)
    with pytest.raises(UserError, match=f"M predicts no {lacking}, .* --memory.{lacking}_head true"):
        require_heads(settings, find(GAME, CONFIG.env), ends)


CONTROLLER = (
    "--in dream --controller.inputs z --controller.population 16 --controller.episodes 8 --controller.sigma 0.5 "
    "--controller.generations 10 --controller.evaluate_every 3 --controller.evaluate_episodes 16 --controller.slots 32"
)


def evolved(run: Path, name: str, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The summary of a controller that was evolved in the dream of the run's M."""
    command = ["train_controller", *WORDS, "--run", str(run), "--name", name, *CONTROLLER.split(), "--json", *words]
    assert cli.main(command) == 0
    return json.loads(capsys.readouterr().out.strip().split("\n")[-1])


def test_a_controller_learns_in_the_dream(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A score in the real game that random play, 0 on average, does not reach; chosen there, and by the dream alone."""
    summary = evolved(truthful.path, "learner", capsys)
    assert summary["confirmed_score"] > 2 and summary["dream_confirmed_score"] > 1
    assert 0 < summary["real_steps"] <= 4 * 16 * 12
    rows = read_metrics(Run(truthful.path / "named" / "learner").stage("controller").path / "metrics.jsonl")
    evaluated = [row["step"] for row in rows if "dream_mean" in row]
    assert evaluated == [row["step"] for row in rows if "evaluation_mean" in row] == [3, 6, 9, 10]
    assert summary["best_score"] == pytest.approx(max(row.get("evaluation_mean", -9) for row in rows), abs=0.01)
    assert summary["dream_best_score"] == pytest.approx(max(row.get("dream_mean", -9) for row in rows), abs=0.01)


def test_what_the_dream_alone_would_keep_is_scored_too(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    summary = evolved(truthful.path, "learner", capsys)
    own = Run.open(truthful.path / "named" / "learner")
    words = ["evaluate", *WORDS, "--run", str(own.path), *CONTROLLER.split()[:4], "--evaluate.on", "training", "--json"]
    words += ["--evaluate.episodes", "16", "--evaluate.looked_at", "0", "--evaluate.baseline", "false"]
    found = {}
    for choice in ("true", "false"):  # asked for without it, what was played before is not lost
        assert cli.main([*words, "--evaluate.dream_choice", choice]) == 0
        found[choice] = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    played = json.loads((own.stage("evaluation").path / "training-dream.json").read_text())["scores"]
    assert found["true"]["training_dream_mean"] == pytest.approx(np.mean(played), abs=0.01)
    assert found["true"]["training_mean"] == found["false"]["training_mean"]
    assert "training_dream_mean" not in found["false"]
    kept = (
        Run.open(own.path)
        .stage("controller")
        .weights.restore(dict.fromkeys(("best", "latest", "dream"), np.zeros(summary["parameters"], np.float32)))
    )
    assert kept is not None
    if np.array_equal(kept[1]["best"], kept[1]["dream"]):
        assert found["true"]["training_dream_mean"] == found["true"]["training_mean"]

    game = ["--run", str(truthful.path), "--name", "awake", *CONTROLLER.split()[2:6], "--controller.generations", "1"]
    assert cli.main(["evaluate", *WORDS, *game, "--evaluate.dream_choice", "true"]) == 2
    assert "was not evolved in the dream; leave it out" in capsys.readouterr().err


def test_a_controller_sees_its_own_memory_in_the_dream(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    summary = evolved(
        truthful.path, "remembering", capsys, "--controller.inputs", "zhc", "--controller.generations", "3"
    )
    assert summary["parameters"] == 3 * (2 + 48 + 48 + 1) and np.isfinite(summary["confirmed_score"])


def test_m_is_a_parent_of_what_learned_in_its_dream(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the controller itself sees z alone."""
    evolved(truthful.path, "heir", capsys, "--controller.generations", "1")
    heir = Run.open(truthful.path / "named" / "heir")
    assert set((heir.stage("controller").manifest() or {})["parents"]) == {"vae", "memory"}


def test_a_search_in_the_dream_goes_on_where_it_was(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    straight = evolved(truthful.path, "straight", capsys)
    evolved(truthful.path, "halted", capsys, "--controller.generations", "4")
    resumed = evolved(truthful.path, "halted", capsys)
    same = [name for name in straight if "score" in name or name in ("weights", "mean", "dream_mean")]
    assert len(same) > 6 and {name: resumed[name] for name in same} == {name: straight[name] for name in same}
    words = ["train_controller", *WORDS, "--run", str(truthful.path), "--name", "halted", *CONTROLLER.split()]
    assert cli.main([*words, "--dream.temperature", "2"]) == 1
    assert "was made with --dream.temperature 1.0, but now it is 2.0" in capsys.readouterr().err


def test_a_table_of_temperatures(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train_controller", *WORDS, "--run", str(truthful.path), *CONTROLLER.split(), "--json"]
    words += ["--controller.generations", "2", "--temperatures", "0.1", "2"]
    for _ in range(2):  # the second time all of it is there
        assert cli.main(words) == 0
        found = json.loads(capsys.readouterr().out.strip().split("\n")[-1])["temperatures"]
        assert list(found) == ["0.1", "2"] and None not in found["2"].values()
    lines = (truthful.path / "temperatures.md").read_text().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| 0.1 |") and lines[0].count("|") == lines[2].count("|") == 8
    made = Run.open(truthful.path / "named" / "temperature-2").stage("controller")
    assert (made.manifest() or {})["config"]["dream"]["temperature"] == 2
    assert cli.main([*words[:-2], "2", "--fresh"]) == 0
    moved = truthful.path / "named" / "temperature-2" / "discarded"
    assert len(list(moved.glob("controller-*"))) == 1 and not (truthful.path / "discarded").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--temperatures", "1"], "--temperatures: only dreams have one; add --in dream"),
        (["--in", "dream", "--temperatures", "1", "0"], "--temperatures 0: give numbers above 0"),
        (["--in", "dream", "--temperatures", "1", "1"], "--temperatures 1: it is given twice"),
        (["--in", "night"], "--controller.arena night"),
    ],
)
def test_temperatures_that_make_no_sense(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train_controller", *WORDS, "--run", str(tmp_path / "none"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_untrained_m_has_no_dream(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--run", str(truthful.path / "none"), "--in", "dream", "--controller.world", "random"]
    assert cli.main(["train_controller", *words]) == 2
    assert "--controller.world random: an untrained M dreams of nothing" in capsys.readouterr().err
    assert cli.main(["train_controller", *words[:-4], *words[-2:], "--vae.start_from", str(truthful.path)]) == 2
    assert "with --controller.world random nothing trained is used" in capsys.readouterr().err


# Films


def test_a_dream_is_filmed(truthful: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """By random actions, and where there is one by the agent: it acts as it did in the real game."""
    for name, actions in (("learner", "agent"), ("truthful", "random")):
        run = Run.open(truthful.path.parent / name) if name == "truthful" else Run.open(truthful.path / "named" / name)
        words = ["dream", *WORDS, "--run", str(run.path), "--film.actions", actions, "--film.warm_up", "3", "--json"]
        words += ["--dream.temperature", "0.1"]
        assert cli.main([*words, "--film.temperatures", "0.1", "2", "--film.steps", "20"]) == 0
        said = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
        assert set(said["temperatures"]) == {"0.1", "2"} and 2 <= said["warm_up"] <= 3
        # A game of this world has at most 12 steps, of which M predicts what its hand-made V sees.
        assert 2 <= said["prediction_holds"] <= said["steps"] <= 12 - said["warm_up"]
        folder = run.stage("dream").path
        made = {each.name for each in folder.iterdir()}
        assert made == {f"{kind}.{end}" for kind in ("dream", "temperatures") for end in ("mp4", "gif")} | {
            "dream.png",
            "summary.json",
        }
        film = extract_frames(folder / "dream.mp4", range(said["steps"] + said["warm_up"] + 1))
        assert film.shape[1:3] == (26 * 2 + 64 * 4 + 12, 12 + 4 * (64 * 4 + 12))
        with Image.open(folder / "temperatures.gif") as gif:
            assert getattr(gif, "n_frames", 1) == 20 - said["warm_up"] + 1


def test_how_long_a_dream_holds() -> None:
    """As long as most of ten frames in a row are no stranger than 99 % of the game's."""
    usual = np.arange(100.0)
    strange = np.full(60, 50.0)
    assert coherent_steps(strange, usual) == 60
    strange[5] = 1000.0
    assert coherent_steps(strange, usual) == 60, "a single strange frame is no end"
    strange[30:] = 1000.0
    assert coherent_steps(strange, usual) == 30
    assert coherent_steps(np.full(3, 1000.0), usual) == 0
    game = np.zeros((40, 64, 64, 3), np.uint8)
    game[::2] = 255
    assert faithful_steps(game[:20], game[:20], game) == 20
    assert faithful_steps(255 - game[:20], game[:20], game) == 0
