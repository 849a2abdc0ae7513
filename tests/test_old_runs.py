"""A run that an early version made: its records are read today, and mean what they meant.

`golden/old_run` holds what that version (0.1.0 of 26 November 2026) wrote of a V, M and C for CarRacing: `stage.json`,
`summary.json`, and as `about.json` what it kept beside the weights. The weights themselves are not there; the digest of
their names, shapes and types is (`layout`). Nothing in that folder is ever to be changed: where a setting, a field or a
layer gets another name, these tests ask for a way to read the old one.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from wm_jax import cli
from wm_jax.cli.options import parse
from wm_jax.config.base import Section
from wm_jax.config.layers import load, of_record
from wm_jax.config.schema import Config, current_names
from wm_jax.models.latents import LatentKind
from wm_jax.models.memory import MDNRNN
from wm_jax.models.vae import make_vae
from wm_jax.run.ancestors import inherit_settings
from wm_jax.run.artifacts import load_agent
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.stages import train_controller
from wm_jax.tools.pipeline import report
from wm_jax.utils.errors import UserError

RECORDS = Path(__file__).parent / "golden" / "old_run"
PARTS = ("vae", "memory", "controller")
ACTIONS = 3

MEANT = {
    "env": {"kwargs": {}, "observation": None, "pixels": "observation"},
    "vae": {"moving_weight": 0.0},
    "controller": {"gas": "sigmoid", "seeds": "shared", "weight_decay": 0.0, "rounding": 0.0, "random_start": False},
}
"""Settings that came later, and what that version did."""


def about(part: str) -> dict[str, Any]:
    return json.loads((RECORDS / part / "about.json").read_text())


def shapes_of(part: str) -> Any:
    """Of the part's weights, as today's networks have them."""
    if part == "controller":
        count = json.loads((RECORDS / part / "summary.json").read_text())["parameters"]
        return {name: jax.ShapeDtypeStruct((count,), np.float32) for name in ("best", "latest")}
    settings = about(part)["settings"]
    if part == "vae":
        return nnx.split(nnx.eval_shape(lambda: make_vae(of_record("vae", settings), nnx.Rngs(0))))[1]
    latent = LatentKind(about("vae")["settings"]["latent"])
    return nnx.split(nnx.eval_shape(lambda: MDNRNN(of_record("memory", settings), latent, ACTIONS, nnx.Rngs(0))))[1]


def restored(path: Path) -> Run:
    """The old run, with weights of zeros: their digests take the place of the old ones wherever these stand."""
    run, new = Run(path), {}
    for part in PARTS:
        stage, record = run.stage(part), about(part)
        shutil.copytree(RECORDS / part, stage.path, ignore=shutil.ignore_patterns("about.json"))
        summary, manifest = stage.summary(), stage.manifest()
        assert summary is not None and manifest is not None
        assert summary["weights"] == record["digest"]
        known = {name: new.get(name, digest) for name, digest in record.get("parents", {}).items()}
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(part))
        count = summary["generations" if part == "controller" else "steps"]
        kept = {name: value for name, value in record.items() if name not in ("digest", "layout")}
        new[part] = stage.weights.save(count, zeros, kept | ({"parents": known} if known else {}))
        stage.write_record("stage.json", manifest | {"parents": manifest["parents"] | known})
        stage.write_summary(summary | {"weights": new[part]})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return restored(tmp_path_factory.mktemp("old") / "run")


def config_of(part: str) -> dict[str, Any]:
    """All settings of then, as the part recorded them."""
    return json.loads((RECORDS / part / "stage.json").read_text())["config"]


def assert_means(section: Section, name: str, then: dict[str, Any]) -> None:
    """The section says what the old one said, and what that version did besides."""
    now = section.model_dump(mode="json")
    then = current_names(name, then)
    expected = then | MEANT.get(name, {})
    assert {key: now[key] for key in expected} == expected
    assert not then.keys() & MEANT.get(name, {}).keys()


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_of_then_is_one_today(part: str) -> None:
    then = config_of(part)
    assert then.keys() <= Config.model_fields.keys()
    sections = [name for name, value in then.items() if isinstance(value, dict)]
    assert len(sections) == 9
    for name in sections:
        assert_means(of_record(name, then[name]), name, then[name])


@pytest.mark.parametrize("part", PARTS)
def test_todays_weights_have_the_names_and_shapes_of_then(part: str, run: Run) -> None:
    now = run.stage(part).weights.about()
    assert now is not None and now["layout"] == about(part)["layout"]


def test_v_m_and_c_are_loaded_as_what_they_were(run: Run) -> None:
    _, config = parse("evaluate", ["--game", "carracing"])
    world, controller, record = load_agent(run, config)
    assert world.agent.memory is not None
    v = nnx.merge(world.agent.vae, world.base_params.vae)
    m = nnx.merge(world.agent.memory, world.base_params.memory)
    assert_means(v.config, "vae", about("vae")["settings"])
    assert_means(m.config, "memory", about("memory")["settings"])
    assert (m.action, m.cell.hidden, controller.shape) == (ACTIONS, 128, (483,))
    spec = world.agent.controller
    assert (spec.inputs, spec.hidden, spec.latent, spec.memory_hidden) == ("zh", 0, 32, 128)
    assert getattr(spec.actions, "squash", None) == ("tanh", "sigmoid", "positive_tanh")
    assert list(spec.actions.names) == record["actions"] == ["steer", "gas", "brake"]
    assert not world.agent.sample_latent and world.agent.memory_reset == 0


def test_what_was_made_holds_for_what_is_made_from_it(run: Run) -> None:
    """Today's presets are others; a command goes on with what the run was made with, and finds C evolved already."""
    overrides = {name: current_names(name, config_of("controller")[name]) for name in ("env", "controller")}
    today = load("carracing", "carracing", "smoke", overrides)
    config = inherit_settings(today, run, "controller")
    assert config.memory.hidden == 128 != today.memory.hidden
    for part in ("vae", "memory"):
        assert_means(getattr(config, part), part, about(part)["settings"])
    assert train_controller.run(config, run, Stop())["best_score"] == 862.99
    other = config.model_copy(update={"controller": config.controller.model_copy(update={"rounding": 0.5})})
    with pytest.raises(UserError, match=r"was made with controller.rounding 0.0, but now it is 0.5: give that, or"):
        train_controller.run(other, run, Stop())


def test_a_report_tells_of_it(run: Run) -> None:
    """Its summaries have no warnings, no confirmed score, and nothing of what moves."""
    _, config = parse("evaluate", ["--game", "carracing"])
    summary = report.run(config, run, Stop())
    page = Path(summary["report"]).read_text()
    assert summary["warnings"] == [] and "862.99" in page and "confirmed score" not in page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--game", "carracing", "--env.backend", "envpool"],
            "was made with --env.backend device, but now it is envpool: give",
        ),
        (["--game", "enduro"], "was made with game carracing, but now it is enduro: give"),
    ],
)
def test_what_it_was_not_made_for_is_refused_in_one_sentence(
    words: list[str], sentence: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "--run", str(run.path), *words]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and sentence in said and "\n" not in said
