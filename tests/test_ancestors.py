"""Settings that finished stages hand on to those that follow."""

from pathlib import Path
from typing import Any

import pytest

from wm_jax.config.layers import of_record
from wm_jax.config.schema import Config
from wm_jax.config.vaes import CustomVaeConfig, InfoConfig, VanillaConfig
from wm_jax.run.ancestors import COUNTS, inherit_settings
from wm_jax.run.folder import Run
from wm_jax.run.provenance import first_difference
from wm_jax.utils.errors import UserError

CONFIG = Config(game="enduro")


def finish(run: Run, name: str, config: Config, summary: dict[str, Any]) -> None:
    stage = run.stage(name)
    with stage.lock():
        stage.claim({}, {}, config.model_dump())
        stage.write_summary(summary)


def changed(section: str, **values: Any) -> Config:
    return CONFIG.model_copy(update={section: getattr(CONFIG, section).model_copy(update=values)})


@pytest.mark.parametrize(
    ("stage", "section", "after"),
    [
        ("replays", "collect", "evaluation"),
        ("vae", "vae", "evaluation"),
        ("memory", "memory", "evaluation"),
        ("controller", "controller", "evaluation"),
    ],
)
def test_figures_of_a_summary_are_no_settings_whatever_their_names(
    stage: str, section: str, after: str, tmp_path: Path
) -> None:
    """Only what it counts is taken from there."""
    run = Run(tmp_path)
    settings = getattr(CONFIG, section)
    figures = {name: 3 for name in type(settings).model_fields}
    finish(run, stage, CONFIG, figures)
    found = getattr(inherit_settings(CONFIG, run, after), section).model_dump()
    counted = {name for name in found if name in COUNTS[section]}
    assert counted
    assert {name for name, value in found.items() if value != getattr(settings, name)} == counted
    assert all(found[name] == 3 for name in counted)


def test_counts_are_settings_that_may_grow() -> None:
    """`episodes` of the store, `steps` of V and M, `generations` of C."""
    for section, names in COUNTS.items():
        fields = type(getattr(CONFIG, section)).model_fields
        assert names & fields.keys()
        assert not names & getattr(CONFIG, section).fixed().keys()


def test_what_was_made_decides_and_its_count_is_what_there_is(tmp_path: Path) -> None:
    run = Run(tmp_path)
    finish(run, "vae", changed("vae", latent=8, steps=100), {"steps": 70, "latent": 5})
    settled = inherit_settings(CONFIG, run, "memory")
    assert (settled.vae.latent, settled.vae.steps) == (8, 70)


def test_settings_are_read_by_what_they_were_called_then() -> None:
    was = {"controller.anywhere": True, "vae.frames": "fresh", "vae.beta": 2.0}
    now = {"controller.random_start": True, "vae.frames": "generated", "vae.beta": 2.0}
    assert first_difference(was, now) is None
    assert first_difference(was, now | {"controller.random_start": False}) == ("controller.random_start", True, False)
    assert of_record("vae", {"frames": "fresh", "options": {}}) == VanillaConfig(frames="generated")
    given = of_record("vae", {"variant": "info", "divergence": 200.0})
    assert given == InfoConfig(variant="info", divergence_weight=200.0)


def test_a_recorded_setting_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UserError, match=r"^vae.gamma 3: a finished artifact was made with that, .* does not know"):
        of_record("vae", {"gamma": 3})


OWN = {"variant": "m:C", "beta": 0.01, "latent": 8, "options": {"codes": 5}}
"""What an earlier version recorded of an auto-encoder of the user's own: the settings of ours, too."""


def test_records_of_own_auto_encoders_from_before_are_read() -> None:
    assert of_record("vae", OWN) == CustomVaeConfig(variant="m:C", latent=8, options={"codes": 5})
    now = {"vae.variant": "m:C", "vae.latent": 8, "vae.options": {"codes": 5}}
    assert first_difference({f"vae.{name}": value for name, value in OWN.items()}, now) is None


def test_what_chooses_the_settings_is_said_before_them() -> None:
    ours = {"vae.variant": "vanilla", "vae.beta": 0.01}
    assert first_difference(ours, {"vae.variant": "m:C"}) == ("vae.variant", "vanilla", "m:C")
    assert first_difference({"vae.variant": "m:C"}, ours) == ("vae.variant", "m:C", "vanilla")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("beta", 7.0, "vae.beta 7.0: .* was made with vae.variant m:C, which lacks that; leave it out"),
        ("moving_weight", 0.5, "was made with vae.moving_weight 0.0, but now it is 0.5: leave it out"),
    ],
)
def test_a_given_setting_that_a_finished_v_lacks_is_refused(key: str, value: float, said: str, tmp_path: Path) -> None:
    """Also where the setting did not exist yet when it was made."""
    run, own = Run(tmp_path), {"variant": "m:C", "latent": 8}
    with run.stage("vae").lock():
        run.stage("vae").claim({}, {}, {**CONFIG.model_dump(), "vae": own})
        run.stage("vae").write_summary({"steps": 5})
    asked = CONFIG.model_copy(update={"vae": CONFIG.vae.model_copy(update={key: value})})
    with pytest.raises(UserError, match=said):
        inherit_settings(asked, run, "memory", {f"vae.{key}"})
    assert isinstance(inherit_settings(asked, run, "memory").vae, CustomVaeConfig)
