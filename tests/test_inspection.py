"""An agent's own games are looked at: whether it meets what V never saw is reported, and is right."""

import json
from pathlib import Path

import numpy as np
import pytest

from wm_jax import cli
from wm_jax.data.episodes import Episode, Whole
from wm_jax.evaluation import inspection
from wm_jax.evaluation.inspection import Inspector, Looked
from wm_jax.stages import evaluate
from wm_jax.utils.moving_pixels import Moving

GAME = ["--game", "gymnasium:probe_games:TwoHalves-v0", "--preset", "smoke", "--env.episode_steps"]
SIZES = ["--vae.width", "0.25", "--vae.steps", "300", "--vae.learning_rate", "2e-3", "--vae.beta", "0.1"]
SHORT = ["--vae.save_every", "300", "--vae.report_every", "300", "--controller.generations", "1"]


@pytest.mark.parametrize("covered", [False, True])
def test_frames_that_v_never_saw_are_reported(
    covered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    run = ["--run", str(tmp_path), *SIZES, *SHORT]
    steps = "40" if covered else "20"
    assert cli.main(["train_controller", *GAME, steps, *run]) == 0
    assert cli.main(["evaluate", *GAME, "40", *run, "--evaluate.episode_steps", "40", "--json"]) == 0
    out, said = capsys.readouterr()
    summary = json.loads(out.strip().split("\n")[-1])
    unseen = [warning for warning in summary["warnings"] if "V's error is" in warning]
    assert bool(unseen) != covered
    ratio = summary["official_error"] / summary["official_held_out_error"]
    assert ratio < 1.5 if covered else ratio > 5
    folder = tmp_path / "evaluation"
    curve = json.loads((folder / "official-seen.json").read_text())["curve"]
    if not covered:
        assert "worst around step" in unseen[0] and "--collect.policy agent" in unseen[0] and unseen[0] in said
        halves = np.array_split(np.array(curve["error"]), 2)
        assert halves[1].mean() > 5 * halves[0].mean()
    assert len(curve["step"]) == len(curve["error"]) == 41 and len(curve["surprise"]) == 41
    assert (folder / "official-seen.png").stat().st_size > 5000 and (folder / "official-worst.png").exists()
    # Looking again plays nothing and says the same.
    before = (folder / "official-seen.json").read_bytes()
    assert cli.main(["evaluate", *GAME, "40", *run, "--evaluate.episode_steps", "40"]) == 0
    assert (folder / "official-seen.json").read_bytes() == before


def result(mean: float, low: float | None, random_high: float | None) -> dict:
    return {"mean": mean, "ci_low": low, "random": {"mean": 0.6, "ci_high": random_high}}


def seen(error: float, held_out: float | None, moving: float | None) -> dict:
    curve = {"step": [5.0, 15.0, 25.0], "error": [1.0, None, 9.0], "surprise": []}
    return {"error": error, "held_out": {"error": held_out}, "moving_explained": moving, "curve": curve}


def test_what_is_worth_a_warning():
    fine = seen(19.0, 10.0, 0.8)
    assert evaluate._warnings("official", result(1.0, 0.9, 0.7), fine) == []
    (score,) = evaluate._warnings("official", result(0.24, 0.2, 0.7), fine)
    assert "does not lie above the random policy's (0.6, up to 0.7)" in score
    (error,) = evaluate._warnings("official", result(1.0, 0.9, 0.7), seen(21.0, 10.0, 0.8))
    assert "21, 2.1 times" in error and "around step 25" in error
    (moving,) = evaluate._warnings("official", result(1.0, 0.9, 0.7), seen(10.0, 10.0, -0.1))
    assert "V draws 0% of what moves" in moving
    # What is not known is no reason to warn.
    assert evaluate._warnings("official", result(1.0, None, None), seen(21.0, None, None)) == []
    assert evaluate._warnings("official", {"mean": 1.0, "ci_low": 0.5}, {}) == []


def looked(step: list[int], error: list[float], surprise: list[float]) -> Looked:
    nothing = Moving(*np.zeros((3, 1)))
    frames = np.zeros((len(step), 64, 64, 3), np.uint8)
    return Looked(np.array(step), np.array(error), frames, np.array(surprise), nothing)


def test_a_curve_has_the_mean_of_every_stretch_of_steps():
    games = [looked([0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7]), looked([2, 3, 9], [5, 6, 7], [1, 1])]
    found = inspection.curve(games, points=5)
    assert found["step"] == [1, 3, 5, 7, 9]
    assert found["error"] == [1.5, 4.5, None, None, 7]
    assert found["surprise"] == [5.5, 3.0, None, None, None]
    assert inspection.figures(games) == {"error": 4.0, "surprise": 4.0, "moving_explained": None}


def test_the_worst_frames_are_not_all_of_one_moment():
    game = looked(list(range(100)), [float(i) for i in range(100)], [])
    assert inspection.worst([game], 3, apart=20) == [(0, 99), (0, 79), (0, 59)]


def test_error_and_surprise_are_those_of_the_models():
    """Beside the losses that V and M are trained with, on windows that begin anywhere."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from wm_jax.config.schema import MemoryConfig
    from wm_jax.config.vaes import VanillaConfig
    from wm_jax.envs.spaces import Discrete
    from wm_jax.models.agent import make_agent
    from wm_jax.models.controller import Controller
    from wm_jax.models.latents import Gaussian, LatentKind
    from wm_jax.models.memory import MDNRNN, Sequences
    from wm_jax.models.vae import make_vae
    from wm_jax.run.artifacts import Trained, WorldModel

    space = Discrete(("a", "b", "c"), (0, 1, 2))
    vae = make_vae(VanillaConfig(latent=4, width=0.125), nnx.Rngs(0))
    memory = MDNRNN(MemoryConfig(hidden=8), LatentKind(4), 3, nnx.Rngs(1))
    controller = Controller("zh", 0, 4, 8, space)
    agent, params = make_agent(vae, memory, controller, jnp.zeros(controller.n_params))
    rng = np.random.default_rng(0)
    frames, actions = rng.integers(0, 256, (24, 64, 64, 3), np.uint8), rng.integers(0, 3, 23).astype(np.int32)
    flags = np.zeros(23, bool)
    episode = Episode(frames, actions, np.zeros(23, np.float32), flags, flags, 0, Whole(100, 500, 1.0))
    inspector = Inspector(WorldModel(agent, params, Trained(*nnx.split(vae), "vae", {}), None), sequence=10)
    found = inspector.look(episode)
    assert found.step.tolist() == list(range(100, 124)) and found.error.shape == (24,) and found.surprise.shape == (23,)
    z, _, _, decoded = seen = inspector._see(frames)
    target, drawn = frames / 255, np.asarray(vae.decode(jnp.asarray(z)))
    np.testing.assert_allclose(found.error, np.square(drawn - target).sum((1, 2, 3)), rtol=1e-3)
    mean = vae.encode(jnp.asarray(target, jnp.float32)).mode()
    assert np.abs(decoded / 255 - np.asarray(vae.decode(mean))).max() < 1.01 / 255
    # The first window as M's own loss has it, from a posterior without variance.
    window = Sequences(
        latent=Gaussian(jnp.asarray(z[:11])[:, None], jnp.full((11, 1, 4), -60.0)),
        action=jax.nn.one_hot(actions[:10], 3)[:, None],
        reward=jnp.zeros((10, 1)),
        done=jnp.zeros((10, 1)),
        is_first=jnp.zeros((10, 1), bool).at[0].set(True),
        weight=jnp.ones((10, 1)),
    )
    nll = memory.loss(window, memory.init_carry(1), jax.random.key(0))[1][0]["nll"]
    assert found.surprise[:10].mean() == pytest.approx(float(nll), rel=1e-4)
    # Windows begin from zero: the second one knows nothing of the first.
    again = inspector._predict(type(seen)(*(each[10:] for each in seen)), actions[10:])
    np.testing.assert_allclose(again, found.surprise[10:], rtol=1e-4, atol=1e-4)
