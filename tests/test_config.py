"""Settings: layers, types, and what is said about mistakes."""

import pytest
import yaml

from wm_jax.config import Config, config_folder, field_names, load, presets, validate
from wm_jax.envs.games import PROCGEN, family_of
from wm_jax.errors import UsageError

GAMES = ("carracing", "enduro", "breakout", "gymnasium:Some/Id-v0", *PROCGEN)


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
@pytest.mark.parametrize("game", GAMES)
def test_every_config_builds(game: str, preset: str) -> None:
    config = load(game, family_of(game), preset)
    assert (config.game, config.preset) == (game, preset)


def test_every_yaml_file_belongs_to_a_game_a_family_or_a_preset() -> None:
    for path in config_folder().glob("*.yaml"):
        assert path.stem in ("atari", "procgen", "gymnasium") or family_of(path.stem)
    assert set(presets()) == {"paper", "quick", "smoke"}


def test_the_paper_preset_has_the_papers_settings() -> None:
    config = load("carracing", "carracing", "paper")
    assert (config.collect.episodes, config.vae.steps, config.vae.batch, config.vae.latent) == (10_000, 10**6, 100, 32)
    assert (config.memory.hidden, config.memory.mixtures, config.memory.sequence, config.memory.steps) == (
        256,
        5,
        1000,
        4000,
    )
    assert (config.controller.population, config.controller.episodes, config.controller.sigma) == (64, 16, 0.1)


def test_layers_lie_over_each_other_in_order() -> None:
    assert (
        load("enduro", "atari", "smoke").collect.hold
        == yaml.safe_load((config_folder() / "enduro.yaml").read_text())["collect"]["hold"]
    )
    assert load("enduro", "atari", "smoke").vae.steps == 20
    assert load("enduro", "atari", "smoke", {"vae": {"steps": 3}}).vae.steps == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vae": {"latnt": 3}}, r"--vae.latnt: no such setting; did you mean vae.latent"),
        ({"vae": {"latent": -1}}, r"--vae.latent -1: .*greater than 0"),
        ({"vae": {"latent": "many"}}, r"--vae.latent many: .*valid integer"),
        ({"vae": {"learning_rate": "nan"}}, r"--vae.learning_rate nan: .*finite"),
        ({"controller": {"inputs": "hz"}}, r"--controller.inputs hz: .*'z', 'zh' or 'zhc'"),
        ({"collect": {"test_fraction": 2}}, r"--collect.test_fraction 2: .*less than or equal to 0.5"),
        ({"seed": -1}, r"--seed -1: "),
    ],
)
def test_mistakes_are_named(settings: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load("enduro", "atari", "smoke", settings)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="paper, quick, smoke"):
        load("enduro", "atari", "fast")


def test_settings_survive_their_record() -> None:
    config = load("chaser", "procgen", "quick")
    assert validate(config.model_dump(mode="json")) == config


def test_settings_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        load("chaser", "procgen", "quick").vae.latent = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_every_setting_is_described() -> None:
    assert "vae.beta" in field_names()
    for section in Config.model_fields.values():
        for name, field in getattr(section.annotation, "model_fields", {}).items():
            assert field.description, name
