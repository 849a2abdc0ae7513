"""Settings: layers, types, and what is said about mistakes."""

from pathlib import Path

import pytest

from wm_jax import cli
from wm_jax.cli.options import parse
from wm_jax.config import layers as layers_module
from wm_jax.config.layers import config_folder, load, presets, validate
from wm_jax.config.schema import Config, ControllerConfig, field_names
from wm_jax.config.text import arguments_of, shown
from wm_jax.config.vaes import CustomVaeConfig, VanillaConfig
from wm_jax.envs.names import PROCGEN, family_of
from wm_jax.utils.errors import UsageError

GAMES = ("carracing", "enduro", "breakout", "gymnasium:Some/Id-v0", *PROCGEN)


@pytest.mark.parametrize("preset", ["smoke", "quick", "gpu", "paper"])
@pytest.mark.parametrize("game", GAMES)
def test_every_config_builds(game: str, preset: str) -> None:
    config = load(game, family_of(game), preset)
    assert (config.game, config.preset) == (game, preset)


def test_every_yaml_file_belongs_to_a_game_a_family_or_a_preset() -> None:
    for path in config_folder().glob("*.yaml"):
        assert path.stem in ("atari", "procgen", "gymnasium", "jax", "own") or family_of(path.stem)
    assert set(presets()) == {"gpu", "paper", "quick", "smoke"}


PAPER = {
    "collect": {"episodes": 10_000},
    "vae": {
        "variant": "vanilla",
        "latent": 32,
        "width": 1.0,
        "beta": 1.0,
        "free_nats": 0.5,
        "batch": 100,
        "frames": "replays",
        "steps": 10 * 10_000 * 1000 // 100,
        "learning_rate": 1e-4,
        "final_learning_rate": None,
        "bfloat16": False,
    },
    "memory": {
        "cell": "lstm",
        "hidden": 256,
        "mixtures": 5,
        "sequence": 1000,
        "batch": 100,
        "steps": 4000,
        "learning_rate": 1e-3,
        "final_learning_rate": None,
        "clip": 1.0,
        "carry_state": False,
    },
    "controller": {
        "inputs": "zh",
        "hidden": 0,
        "sample_latent": True,
        "gas": "tanh",
        "strategy": "CMA_ES",
        "population": 64,
        "episodes": 16,
        "seeds": "paired",
        "sigma": 0.1,
        "weight_decay": 0.01,
        "rounding": 1e-4,
        "generations": 1800,
        "episode_steps": None,
        "short_generations": 0,
        "patience": 0,
        "evaluate_every": 25,
        "evaluate_episodes": 64 * 16,
    },
}
"""The experiment of Ha & Schmidhuber 2018 on CarRacing, as the authors' code has it (docs/paper.md)."""


def test_the_paper_preset_is_the_papers_experiment() -> None:
    config = load("carracing", "carracing", "paper").model_dump()
    for section, settings in PAPER.items():
        assert {name: config[section][name] for name in settings} == settings
    # What the authors did with the car's pedal means nothing elsewhere.
    assert load("enduro", "atari", "paper").controller.gas == "sigmoid"


def test_the_gpu_preset_has_the_papers_networks() -> None:
    config = load("carracing", "carracing", "gpu")
    assert (config.vae.width, config.vae.latent, config.memory.hidden, config.controller.population) == (1, 32, 256, 64)
    assert (config.controller.generations, config.vae.frames) == (400, "generated")
    for game, family in (("carracing", "carracing"), ("enduro", "atari"), ("chaser", "procgen")):
        less, all_of_it = load(game, family, "gpu"), load(game, family, "paper")
        assert less.vae.steps <= all_of_it.vae.steps / 10
        assert less.controller.generations <= all_of_it.controller.generations / 4


def test_what_the_paper_preset_adds_is_off_by_default() -> None:
    """Agents that were made before there were these settings play as they did."""
    default = ControllerConfig()
    assert (default.sample_latent, default.gas, default.seeds) == (False, "sigmoid", "shared")
    assert (default.rounding, default.weight_decay) == (0, 0)


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of settings of our own, with the preset quick alone."""
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "quick.yaml").write_text("{}")
    monkeypatch.setattr(layers_module, "config_folder", lambda: tmp_path)
    monkeypatch.setattr(layers_module, "presets", lambda: ("quick",))
    return tmp_path


def test_layers_lie_over_each_other_in_order(layers: Path) -> None:
    # Every layer sets what those above it set too, and one thing more, which shows it.
    for place, (file, content) in enumerate(
        [
            ("atari.yaml", "collect: {{hold: {0}, slots: {0}, episodes: {0}, episode_steps: {0}}}"),
            ("enduro.yaml", "collect: {{slots: {0}, episodes: {0}, episode_steps: {0}}}"),
            ("presets/quick.yaml", "collect: {{episodes: {0}, episode_steps: {0}}}\nvae: {{steps: {0}, batch: {0}}}"),
        ],
        start=1,
    ):
        (layers / file).write_text(content.format(place))
    with (layers / "atari.yaml").open("a") as file:
        file.write("\npresets: {quick: {vae: {steps: 4, batch: 4, latent: 4}}}")
    with (layers / "enduro.yaml").open("a") as file:
        file.write("\npresets: {quick: {collect: {episode_steps: 5}, vae: {batch: 5, latent: 5}}}")
    found = load("enduro", "atari", "quick", {"vae": {"latent": 6}})
    assert (found.collect.hold, found.collect.slots, found.collect.episodes, found.collect.episode_steps) == (
        1,
        2,
        3,
        5,
    )
    assert (found.vae.steps, found.vae.batch, found.vae.latent) == (4, 5, 6)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("presets: {quik: {vae: {steps: 3}}}", r"enduro.yaml: presets.quik: no such preset; did you mean quick"),
        ("presets: {quick: 3}", r"enduro.yaml: presets.quick: expected a mapping of sections, found int"),
        ("presets: [quick]", r"enduro.yaml: presets: expected a mapping of sections, found list"),
        ("presets: {quick: {vae: {stps: 3}}}", r"enduro.yaml: vae.stps: no such setting; did you mean vae.steps"),
    ],
)
def test_mistakes_in_a_games_own_presets_are_named(content: str, sentence: str, layers: Path) -> None:
    (layers / "enduro.yaml").write_text(content)
    with pytest.raises(UsageError, match=sentence):
        load("enduro", "atari")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"vae: {beta: 1}\nmemory: {hidden: 8}\nvae: {batch: 3}", r"not valid YAML \(vae is given twice .*line 3"),
        (b"vae:\n  beta: 1\n  beta: 2", r"not valid YAML \(beta is given twice"),
        (b"game: chaser", r"game: the command line says that \(--game\)"),
        (b"preset: paper", r"preset: the command line says that \(--preset\)"),
        (b"2: {beta: 1}", r"2.beta: no such setting"),
        (b"vae: {2: 1}", r"vae.2: no such setting"),
        (b"vae: {learning_rate: 0,0002}", r"vae.0002: no such setting"),
        (b"vae: {? [a, b] : 1}", r"not valid YAML \(a key that is no word"),
        (b"vea: {beta: 1}", r"vea.beta: no such setting; did you mean vae.beta"),
        (b"vae: 3", r"vae: these are settings; give a mapping, vae: {NAME: VALUE}"),
        (b"on: both", r"on: no such setting; did you mean evaluate.on"),
        ("# für\nvae: {beta: 1}".encode("latin-1"), r"not UTF-8 \(byte 3\)"),
    ],
)
def test_mistakes_in_a_file_are_named_with_the_file(content: bytes, sentence: str, layers: Path) -> None:
    (layers / "enduro.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=f"enduro.yaml: {sentence}"):
        load("enduro", "atari")


def test_a_wrong_value_is_blamed_on_who_gave_it(layers: Path) -> None:
    (layers / "atari.yaml").write_text("vae: {beta: 3}")
    (layers / "enduro.yaml").write_text("presets: {quick: {vae: {beta: high}}}")
    with pytest.raises(UsageError, match=r"^enduro.yaml: vae.beta high: input should be a valid number"):
        load("enduro", "atari")
    for beta in ("low", None):
        with pytest.raises(UsageError, match=rf"^vae.beta {beta}: input should be a valid number"):
            load("enduro", "atari", overrides={"vae": {"beta": beta}})
    with pytest.raises(UsageError, match=r"^seed one: "):
        load("enduro", "atari", overrides={"seed": "one", "vae": {"beta": 1}})
    (layers / "enduro.yaml").write_text("seed: two")
    with pytest.raises(UsageError, match=r"^enduro.yaml: seed two: "):
        load("enduro", "atari")


def test_keys_are_words_as_they_are_written(layers: Path) -> None:
    """YAML 1.1 reads `on` as true, and settings are named so."""
    (layers / "enduro.yaml").write_bytes("\ufeffevaluate: {on: both}\r\nvae: {noise_patches: on}\r\n".encode())
    found = load("enduro", "atari")
    assert isinstance(found.vae, VanillaConfig)
    assert (found.evaluate.on, found.vae.noise_patches) == ("both", True)
    (layers / "atari.yaml").write_text("vae: &same {beta: 3, latent: 8}\npresets: {quick: {vae: {<<: *same, beta: 4}}}")
    found = load("enduro", "atari")
    assert isinstance(found.vae, VanillaConfig)
    assert (found.vae.beta, found.vae.latent) == (4, 8)


@pytest.mark.parametrize("content", ["presets:", "presets:\n  quick:", "vae:\npresets: {quick: {vae: }}"])
def test_what_is_left_empty_says_nothing(content: str, layers: Path) -> None:
    (layers / "enduro.yaml").write_text(content)
    assert load("enduro", "atari").vae == VanillaConfig()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vae": {"latnt": 3}}, r"vae.latnt: no such setting; did you mean vae.latent"),
        ({"vae": {"latent": -1}}, r"vae.latent -1: .*greater than 0"),
        ({"vae": {"latent": "many"}}, r"vae.latent many: .*valid integer"),
        ({"vae": {"learning_rate": "0,0002"}}, r"vae.learning_rate 0,0002: .*; fractions have a point"),
        ({"vae": {"steps": True}}, r"vae.steps True: true and false .* are no value"),
        ({"vae": {"steps": "10,000"}}, r"vae.steps 10,000: .*thousands nothing"),
        ({"vae": {"learning_rate": "nan"}}, r"vae.learning_rate nan: .*finite"),
        ({"controller": {"inputs": "hz"}}, r"controller.inputs hz: .*'z', 'zh' or 'zhc'"),
        ({"collect": {"test_fraction": 2}}, r"collect.test_fraction 2: .*less than or equal to 0.5"),
        ({"seed": -1}, r"seed -1: "),
    ],
)
def test_mistakes_are_named(settings: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load("enduro", "atari", "smoke", settings)


def test_arguments_of_an_environment_are_yaml_and_lie_over_each_other(layers: Path) -> None:
    (layers / "gymnasium.yaml").write_text("env: {kwargs: {size: 3, name: x}}")
    words = ["size=4", "lap=1e-3", "wind=false", "sides=[1, 2]", "map={a: b=c}", "name=null"]
    found = load("gymnasium:X-v0", "gymnasium", overrides={"env": {"kwargs": arguments_of("--x", words)}})
    expected = {"size": 4, "name": None, "lap": 0.001, "wind": False, "sides": [1, 2], "map": {"a": "b=c"}}
    assert found.env.kwargs == expected and [type(each) for each in found.env.kwargs.values()] == [
        type(expected[name]) for name in found.env.kwargs
    ]
    assert validate(found.model_dump(mode="json")) == found
    assert load("gymnasium:X-v0", "gymnasium", overrides={"env": {"kwargs": None}}).env.kwargs == {}


def test_values_are_shown_as_they_are_given() -> None:
    given = {"a=1 b=false": {"a": 1, "b": False}, "none": {}, "0 84 0 96": (0, 84, 0, 96), "3": 3, "None": None}
    for text, value in given.items():
        assert shown(value) == text


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="gpu, paper, quick, smoke"):
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vae: {variant: 'm:C', beta: 3}", "enduro.yaml: vae.beta: m:C has no such setting; remove the line"),
        ("memory: {cell: gru, options: {reach: 2}}", "enduro.yaml: memory.options: gru has no such setting"),
        ("vae: {beta: many}", "enduro.yaml: vae.beta many: input should be a valid number"),
    ],
)
def test_settings_of_what_is_not_chosen_are_checked_in_files_too(layers: Path, text: str, said: str) -> None:
    (layers / "enduro.yaml").write_text(text)
    with pytest.raises(UsageError, match=said):
        load("enduro", "atari", overrides={"vae": {"variant": "m:D"}})


def test_what_means_something_else_in_another_auto_encoder_is_not_taken_from_a_file(layers: Path) -> None:
    (layers / "atari.yaml").write_text("vae: {latent: 48, width: 0.5, free_nats: 0.1}")
    dreamer = load("pong", "atari", "quick", {"vae": {"variant": "dreamer"}}).vae
    assert (dreamer.latent, dreamer.width) == (1024, 0.5), "no latent of 48, which is no 32 choices of 32"
    info = load("pong", "atari", "quick", {"vae": {"variant": "info"}}).vae
    assert (info.latent, info.free_nats) == (48, 0.1)  # pyright: ignore[reportAttributeAccessIssue]
    given = load("pong", "atari", "quick", {"vae": {"variant": "dreamer", "latent": 2048, "groups": 64}}).vae
    assert given.latent == 2048
    (layers / "pong.yaml").write_text("vae: {variant: vq, latent: 64}")
    assert load("pong", "atari", "quick", {}).vae.latent == 64
    assert load("pong", "atari", "quick", {"vae": {"variant": "vanilla"}}).vae.latent == 48


def test_options_in_a_file_are_those_of_its_own_choice(layers: Path) -> None:
    (layers / "enduro.yaml").write_text("vae: {variant: 'm:C', options: {codes: 3}, latent: 5}")
    same, other = (load("enduro", "atari", overrides={"vae": {"variant": name}}).vae for name in ("m:C", "m:D"))
    assert isinstance(same, CustomVaeConfig) and isinstance(other, CustomVaeConfig)
    assert (same.options, other.options, same.latent, other.latent) == ({"codes": 3}, {}, 5, 5)


def test_a_file_of_ones_own_lies_between_the_game_s_and_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "vae: {latent: 7, beta: 3}\nseed: 5\npresets: {smoke: {vae: {steps: 11}}, paper: {vae: {steps: 12}}}"
    )
    words = ["--game", "enduro", "--preset", "smoke", "--config", str(mine)]
    config = parse("train_vae", [*words, "--vae.beta", "4"])[1]
    assert isinstance(config.vae, VanillaConfig)
    assert (config.vae.latent, config.vae.beta, config.vae.steps, config.seed) == (7, 4, 11, 5)
    assert config.vae.width == load("enduro", "atari", "smoke").vae.width
    for text, sentence in (
        ("vae: {latnet: 7}", "mine.yaml: vae.latnet: no such setting; did you mean vae.latent"),
        ("vae: [", "mine.yaml: not valid YAML"),
        ("game: enduro", "mine.yaml: game: the command line says that (--game); remove the line"),
        (None, f"--config {mine}: there is no such file"),
    ):
        mine.unlink() if text is None else mine.write_text(text)
        assert cli.main(["train_vae", *words, "--run", str(tmp_path / "none")]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_it_says_of_finished_work_is_held_against_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, run = tmp_path / "mine.yaml", tmp_path / "run"
    mine.write_text("collect: {window: 11}")
    words = ["--game", "jax:side_game:Sides", "--env.backend", "device", "--preset", "smoke", "--run", str(run)]
    assert cli.main(["collect", *words]) == 0
    assert cli.main(["train_vae", *words, "--config", str(mine)]) == 1
    assert "was made with --collect.window 10, but now it is 11" in capsys.readouterr().err
