"""Comparing auto-encoders: who takes part, what is made of their figures, and the whole command on a tiny game."""

import json
import math
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from wm_jax import cli
from wm_jax.config.layers import load
from wm_jax.config.schema import Config
from wm_jax.config.vaes import VARIANTS, VanillaConfig
from wm_jax.envs.games import find
from wm_jax.models.heads import Categorical, Mixture
from wm_jax.models.vae import make_vae
from wm_jax.render.comparison import Column, Entry, write_comparison
from wm_jax.tools.benchmark.timing import Timing
from wm_jax.tools.compare import pace, ranking, vision
from wm_jax.tools.compare.contenders import parse
from wm_jax.tools.compare.held_out import unseen
from wm_jax.tools.compare.prediction import AHEAD, STARTS, WARM_UP, _starts
from wm_jax.utils.errors import UsageError


def config(game: str = "chaser") -> Config:
    return load(game, "procgen", "quick", {})


def test_contenders_are_variants_with_settings() -> None:
    assert [each.name for each in parse("all")] == list(VARIANTS)
    vanilla, wide = parse("vanilla, vanilla+moving_weight=4+likelihood=laplace")
    (levels,) = parse("fsq+levels=8/8/8")
    assert levels.config(config()).vae.levels == (8, 8, 8)  # pyright: ignore
    assert wide.settings == {"variant": "vanilla", "moving_weight": "4", "likelihood": "laplace"}
    assert vanilla.folder(0) == "compare-vanilla-0" != wide.folder(0) and "+" not in wide.folder(0)
    found = wide.config(config(), steps=77).vae
    assert (found.moving_weight, found.likelihood, found.steps) == (4.0, "laplace", 77)  # pyright: ignore
    assert found.latent == config().vae.latent != VanillaConfig().latent, "what the game's settings say stays"


def test_what_is_chosen_for_the_game_holds_for_every_variant() -> None:
    """beta and free nats of Chaser, which nearly all variants have, are the same for all: else nothing is compared."""
    plain = config().vae
    for contender in parse("all"):
        found = contender.config(config()).vae
        for name in ("beta", "free_nats", "moving_weight", "width", "batch", "learning_rate"):
            fields = type(found).model_fields
            if name in fields and fields[name].default == type(plain).model_fields[name].default:
                assert getattr(found, name) == getattr(plain, name), (contender.name, name)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("vanila", "--variants vanila: no such auto-encoder; did you mean vanilla"),
        (",", "--variants: none is named"),
        ("vanilla,vanilla", "--variants vanilla: it is named twice"),
        ("vanilla+grid", "'grid' is no NAME=VALUE"),
    ],
)
def test_wrong_contenders_are_named(words: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("pair", ["mowing_weight=4", "moving_weight=many"])
def test_wrong_settings_of_a_contender_are_named(pair: str) -> None:
    (contender,) = parse(f"vanilla+{pair}")
    with pytest.raises(UsageError) as caught:
        contender.config(config())
    assert pair.split("=")[0] in str(caught.value)


def trial(contender: str, seed: int = 0, **figures: float) -> dict[str, object]:
    return {"contender": contender, "settings": {"variant": contender}, "seed": seed, **figures}


def test_the_table_is_ranked_by_scores_and_then_by_small_objects() -> None:
    trials = [
        trial("a", moving_error=0.3, size=8, active_units=8, score=5.0),
        trial("b", moving_error=0.1, size=8, active_units=8),
        trial("c", moving_error=0.2, size=8, active_units=3, score=7.0),
        trial("b", 1, moving_error=0.14, size=8, active_units=8),
    ]
    rows = ranking.table(trials)
    assert [row.name for row in rows] == ["c", "a", "b"]
    assert rows[2].figures["moving_error"] == pytest.approx(0.12) and rows[2].spread["moving_error"] == pytest.approx(
        0.04
    )
    assert rows[2].seeds == 2 and ranking.best(trials, 2) == ["b", "c"]
    said = " | ".join(ranking.advice(rows))
    assert "b sees small things best: 0.12" in said and "0.04 apart between 2 seeds" in said
    assert "The best controller plays on c: 7" in said
    assert "c uses 3 of its 8 units" in said and "b uses" not in said
    assert ranking.predictors(rows) == [], "two scores agree with anything"


def test_a_latent_that_collapsed_is_named() -> None:
    """Of classes, by the classes in use: most of the numbers that stand for them are always 0."""
    trials = [
        trial("a", moving_error=0.3, active_units=40.0, size=100),
        trial("b", moving_error=0.3, active_units=40.0, size=100, codes_in_use=9.0, classes=16),
        trial("c", moving_error=0.3, active_units=90.0, size=100, codes_in_use=7.0, classes=16),
    ]
    said = [sentence for sentence in ranking.advice(ranking.table(trials)) if "collapsed" in sentence]
    assert [sentence.split(":")[0] for sentence in said] == ["a uses 40 of its 100 units", "c uses 7 of its 16 classes"]


def test_the_short_table_has_what_there_is() -> None:
    rows = ranking.table([trial("a", moving_error=0.31, error=1234.5), trial("a", moving_error=0.29, error=1234.5)])
    header, _, line = ranking.as_markdown(rows).splitlines()
    assert header == "| auto-encoder | seeds | moving error | error |" and line == "| a | 2 | 0.3 (0.02) | 1,234 |"


def test_advice_says_what_it_does_not_know() -> None:
    one = ranking.table([trial("a", moving_error=0.3), trial("vanilla", moving_error=0.6)])
    assert any("one seed" in sentence for sentence in ranking.advice(one))
    assert any("0.50 times vanilla's" in sentence for sentence in ranking.advice(one))
    near = [trial("a", 0, moving_error=0.3), trial("a", 1, moving_error=0.2), trial("b", moving_error=0.26)]
    assert any(
        "Seeds differ by more" in sentence and "b" in sentence for sentence in ranking.advice(ranking.table(near))
    )
    apart = [trial("a", moving_error=0.1, score=9.0, score_low=7.0, score_high=11.0)]
    apart += [trial("b", moving_error=0.2, score=8.0, score_low=6.0, score_high=10.0)]
    assert any("overlaps with that of b" in sentence for sentence in ranking.advice(ranking.table(apart)))
    lost = [trial("a", score=0.3, score_low=0.2, score_high=0.4, moving_error=0.3, random_score=0.5)]
    assert any("No score lies above that of random play, 0.5" in each for each in ranking.advice(ranking.table(lost)))


def test_a_figure_that_orders_as_scores_do_is_found() -> None:
    trials = [
        trial(f"v{i}", moving_error=1.0 / (i + 1), error=float(i % 3), ssim=float(-i), score=float(i)) for i in range(8)
    ]
    found = {each["figure"]: each["correlation"] for each in ranking.predictors(ranking.table(trials))}
    assert found["moving_error"] == pytest.approx(1.0) and found["ssim"] == pytest.approx(-1.0)
    assert abs(found["error"]) < 0.6


def test_a_machine_that_slows_down_takes_updates_away_from_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All are timed beside the same reference, whose own time is measured with the first, and kept."""
    slowness = [1.0]

    def alternate(works: dict[str, float], rounds: int) -> dict[str, Timing]:
        return {name: Timing(9.0, (work * slowness[0],) * rounds) for name, work in works.items()}

    monkeypatch.setattr(pace, "alternate", alternate)
    monkeypatch.setattr(pace, "work_of", lambda config, frames, each: 0.01 * config.batch * each)
    monkeypatch.setattr(pace.Pace, "_frames", None)

    def settings(batch: int, each: int) -> VanillaConfig:
        return VanillaConfig(batch=batch, steps_per_dispatch=each)

    def seconds(config: VanillaConfig) -> float:
        found = pace.Pace(cast("Any", None), tmp_path / "reference.json")
        return found.seconds_per_update(config)

    assert seconds(settings(2, 10)) == pytest.approx(0.02)
    slowness[0] = 3.0
    assert seconds(settings(2, 10)) == pytest.approx(0.02)
    assert seconds(settings(5, 40)) == pytest.approx(0.05)


def test_best_guesses() -> None:
    log_weights = np.log(np.array([[0.25], [0.75]], np.float32))
    parts = (log_weights, np.array([[4.0], [8.0]], np.float32), log_weights)
    mixture = Mixture(*(jnp.asarray(each) for each in parts))
    np.testing.assert_allclose(mixture.best_guess(), [7.0], rtol=1e-6)
    choice = Categorical(jnp.log(jnp.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])))
    np.testing.assert_array_equal(choice.best_guess(), [1, 0])


@pytest.mark.parametrize("length", [3, 20, 40, 101])
def test_predictions_begin_where_there_is_something_to_predict(length: int) -> None:
    starts = _starts(length)
    assert len(starts) == STARTS and starts.min() >= 0 and starts.max() < length
    if length > WARM_UP + AHEAD:
        assert starts.min() >= WARM_UP and starts.max() + AHEAD < length


def test_the_page_escapes_and_marks_the_best(tmp_path: Path) -> None:
    entries = [
        Entry("<b>x</b>", 2, {"error": 2.0, "psnr": math.nan}, {"error": 0.5}, []),
        Entry("y", 1, {"error": 3.0}, {}, []),
    ]
    columns = [Column("error", "error", "low", "Of & all"), Column("psnr", "PSNR", "high", "")]
    path = write_comparison(
        tmp_path / "page.html",
        game="Chaser",
        subtitle="",
        advice=["Take <x>"],
        columns=columns,
        entries=entries,
        predictors=[{"figure": "error", "contenders": 3, "correlation": 0.5, "low": math.nan, "high": 0.9}],
        settings={"width": 0.5},
    )
    html = path.read_text()
    assert "&lt;b&gt;x" in html and "<b>x" not in html and "Take &lt;x&gt;" in html
    assert html.count('class="best"') == 1 and "±0.25" in html and "PSNR" not in html, "a column of nothing is left out"
    assert "http" not in html.replace("http-equiv", "")


WORDS = ["compare_vaes", "--game", "jax:side_game:Sides", "--env.backend", "device", "--env.episode_steps", "20"]
WORDS += ["--preset", "smoke", "--vae.width", "0.125", "--vae.latent", "8", "--budget", "0.01"]


def test_the_whole_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *WORDS,
        "--run",
        str(tmp_path),
        "--variants",
        "vanilla,beta_tc,vanilla+learning_rate=1e30",
        "--leaders",
        "1",
        "--seeds",
        "2",
    ]
    words += ["--generations", "1", "--episodes", "2", "--json"]
    assert cli.main(words) == 0
    summary = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    results = json.loads((tmp_path / "comparison" / "results.json").read_text())
    trials = {(each["contender"], each["seed"]): each for each in results["trials"]}
    assert len(trials) == 3 and summary["contenders"] == 2
    assert sum("score" in each for each in results["trials"]) == 1
    for each in results["trials"]:
        for name in ("error", "moving_error", "ssim", "kl", "active_units", "one_step_error", "fifteen_step_error"):
            assert each[name] is not None and math.isfinite(each[name]), name
        assert each["steps"] >= 20 and each["parameters"] > 1000
        assert each["probe_linear"] is not None and list(each["probes"]) == ["column"]
    html = (tmp_path / "comparison" / "report.html").read_text()
    assert "beta_tc" in html and html.count("data:image/png") >= 6
    with Image.open(tmp_path / "comparison" / "compare-vanilla-0.png") as sheet:
        assert sheet.size[0] > 500
    assert list(results["failed"]) == ["vanilla+learning_rate=1e30, seed 0"] and "is left out" in html
    # Given again it finds all there, and makes the same page.
    assert cli.main(words) == 0
    again = json.loads((tmp_path / "comparison" / "results.json").read_text())
    assert again["trials"] == results["trials"]
    assert cli.main([*words, "--budget", "0.02"]) == 1
    assert "was compared with --budget 0.01 before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--budget", "0"], "--budget 0: give 0.01 or more"),
        (["--seeds", "0"], "--seeds 0: give 1 or more"),
        (["--variants", "vanilla+beta=x"], "beta"),
    ],
)
def test_what_can_not_be_compared_is_refused_before_anything_is_played(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*WORDS, "--run", str(tmp_path / "run"), *words]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_settings_that_make_no_auto_encoder_are_refused_before_anything_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*WORDS, "--run", str(tmp_path / "run"), "--variants", "vanilla,vanilla+encoder=grid"]) == 1
    said = capsys.readouterr().err
    assert "--variants vanilla+encoder=grid: --vae.encoder grid: 8 numbers" in said
    assert not (tmp_path / "run" / "comparison").exists()


def test_held_out_episodes_are_of_levels_that_training_never_sees() -> None:
    found = unseen(config())
    game = find(found.game, found.env)  # which refuses levels that overlap
    assert game.env.first_level >= config().env.test_first_level > config().env.first_level + config().env.levels
    assert game.env.levels > 1000 and found.seed != config().seed
    assert unseen(load("enduro", "atari", "quick", {})).env == load("enduro", "atari", "quick", {}).env


def test_traversals_show_the_numbers_that_change_the_picture() -> None:
    vae: Any = make_vae(VanillaConfig(width=0.125, latent=4), nnx.Rngs(0))
    vae.decoder.dense.kernel[...] = vae.decoder.dense.kernel[...].at[1].set(0.0)
    graphdef, params = nnx.split(vae)
    z = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    z[:, 1] *= 100  # varies most, and is not decoded
    rows = vision.traversals(graphdef, params, np.full((64, 64, 3), 90, np.uint8), z, rows=4)
    assert rows.shape == (4, 7, 64, 64, 3)
    changes = np.abs(rows[:, 0].astype(int) - rows[:, -1]).sum((1, 2, 3))
    assert (np.diff(changes) <= 0).all() and changes[2] > 0 and changes[3] == 0


def test_help_shows_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["compare_vaes", "--help"])
    said = capsys.readouterr().out
    assert all(f"--{name}" in said for name in ("variants", "budget", "leaders", "seeds", "generations", "episodes"))
