"""check_car_racing: it runs, it says what it found, it notices a wrong game; and the comparison of returns."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wm_jax import cli
from wm_jax.envs.car_racing.track import bank
from wm_jax.tools.fidelity import parts, pictures, returns
from wm_jax.tools.fidelity.figures import Figure, Table, judged
from wm_jax.tools.fidelity.returns import POLICIES, Agreement, Comparison, Outcome
from wm_jax.tools.fidelity.seeing import Eyesight, Seen

SMALL = ("check_car_racing", "--small", "--json", "--debug")
SEEDS, STEPS = (7000, 7001, 7002), 300
"""As `--small` has them: nothing is compiled anew."""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, dict]:
    """Exit status, what was printed but the last line, and the JSON of the last line."""
    status = cli.main([*SMALL, *words])
    *lines, last = capsys.readouterr().out.strip().split("\n")
    return status, "\n".join(lines), json.loads(last)


@cache
def compared() -> dict[str, Comparison]:
    return returns.compare({name: POLICIES[name] for name in ("racing", "leaving", "blind, held")}, SEEDS, STEPS)


def test_every_part_runs_and_its_figures_are_those_of_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    status, said, found = run(capsys, "--sheet", str(sheet))
    assert (status, found["missed"]) == (0, [])
    assert {row["part"] for row in found["figures"]} == {"motion", "pictures", "seeing", "returns", "speed"}
    assert found["bars"] == sum(row["met"] is not None for row in found["figures"]) > 30
    assert f"All {found['bars']} bars are met." in said
    for row in found["figures"]:
        line = re.compile(rf"^  {re.escape(row['row'])} .*(?<!\S){re.escape(row['text'])}(?!\S)", re.MULTILINE)
        assert line.search(said), row
    assert {row["table"] for row in found["figures"]} >= {"one step", "drift", "lap", "near", "zooming", "returns"}
    with Image.open(sheet) as picture:
        assert picture.width > 1000 and np.ptp(np.asarray(picture.convert("RGB"))) > 200


@pytest.mark.parametrize("part", ["motion", "pictures", "returns"])
def test_a_wrong_game_misses_its_bars(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the tracks of other seeds."""
    for module in (parts, pictures, returns):
        monkeypatch.setattr(module, "bank", lambda seeds, **options: bank([seed + 1 for seed in seeds], **options))
    status, said, found = run(capsys, "--part", part)
    assert status == 1
    assert found["missed"] and {sentence.split(",")[0] for sentence in found["missed"]} == {part}
    assert f"{found['bars'] - len(found['missed'])} of {found['bars']} bars are met." in said
    assert all(f"missed: {sentence}" in said for sentence in found["missed"])
    assert " FAIL" in said


@pytest.mark.parametrize("name", ["racing", "blind, held"])
def test_the_same_policy_earns_the_same_on_both_sides(name: str) -> None:
    pair = compared()[name]
    np.testing.assert_allclose(pair.ours.returns, pair.theirs.returns, atol=1.5 * pair.tile.max())
    np.testing.assert_array_equal(pair.ours.lengths, STEPS)
    found = Agreement.of([pair])
    assert found.ended == found.lengths == 1 and found.within_tile > 0.6


def test_who_leaves_the_field_ends_the_game_on_both_sides() -> None:
    pair = compared()["leaving"]
    assert pair.ours.terminated.all() and pair.theirs.terminated.all()
    np.testing.assert_array_equal(pair.ours.lengths, pair.theirs.lengths)
    np.testing.assert_allclose(pair.ours.returns, pair.theirs.returns, atol=0.01)


def test_where_sides_differ_gymnasium_is_held_against_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not compared()["blind, held"].differs and compared()["blind, held"].nudged is None
    nothing = Outcome(np.zeros(3), np.zeros(3, np.int64), np.zeros(3, bool))
    monkeypatch.setattr(returns, "play", lambda tracks, aim, noise: nothing)
    _, said, found = run(capsys, "--part", "returns")
    rows = {row["row"]: row for row in found["figures"] if row["table"] == "nudged" and row["figure"] == "one tile"}
    assert set(rows) == {"following", "on the grass", "blind, held"}
    assert all(row["value"] == 1 and row["met"] is None for row in rows.values())
    assert "with the wheel turned by 1e-06 more" in said


def test_policies_differ_and_most_of_them_look() -> None:
    assert len({(each.aim, each.noise) for each in POLICIES.values()}) == len(POLICIES)
    assert sum(each.aim.sighted > 0 for each in POLICIES.values()) >= 10
    both = compared()
    assert np.all(both["racing"].theirs.returns != both["blind, held"].theirs.returns)


def test_what_v_sees_by_hand() -> None:
    def seen(errors: Sequence[float], mean: Sequence[Sequence[float]]) -> Seen:
        return Seen(np.array(errors), np.array(mean), np.full((3, 2), 0.5))

    theirs = seen([4.0, 8.0, 100.0], [[0.0, 1.0], [2.0, 3.0], [50.0, 50.0]])
    ours = seen([3.0, 5.0, 1.0], [[0.5, 1.0], [2.0, 2.0], [0.0, 0.0]])
    found = Eyesight.of(theirs, ours, np.array([True, True, False]))
    assert found == (6.0, 4.0, pytest.approx(np.sqrt((1 + 0 + 0 + 4) / 4)))


def test_a_v_that_sees_our_frames_alone_misses_its_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures.Album, "frames", lambda album: 255 - album.ours())
    status, _, found = run(capsys, "--part", "seeing")
    assert status == 1 and [sentence.split(",")[0] for sentence in found["missed"]] == ["seeing"]


def test_a_run_is_for_the_part_that_looks_at_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check_car_racing", "--part", "motion", "--run", str(tmp_path)]) == 2
    assert "--run: only the part seeing looks at a run; add --part seeing" in capsys.readouterr().err
    assert cli.main(["check_car_racing", "--part", "seeing", "--run", str(tmp_path)]) == 1
    assert f"{tmp_path / 'vae'} does not exist: run bin/train_vae" in capsys.readouterr().err


def test_agreement_by_hand() -> None:
    def outcome(earned: Sequence[float], steps: Sequence[int], ended: Sequence[bool]) -> Outcome:
        return Outcome(np.array(earned), np.array(steps), np.array(ended))

    theirs = outcome([0.0, 10.0, 20.0, 30.0], [5, 5, 5, 5], [True, False, True, False])
    ours = outcome([1.0, 10.0, 16.0, 30.0], [5, 5, 4, 5], [True, True, True, False])
    found = Agreement.of([Comparison(ours, theirs, np.full(4, 3.0))])
    assert (found.ours, found.theirs, found.difference, found.span) == (14.25, 15.0, 1.25, 30.0)
    assert (found.within_tile, found.ended, found.lengths) == (0.75, 0.75, 0.75)
    assert found.correlation == pytest.approx(np.corrcoef(ours.returns, theirs.returns)[0, 1])
    constant = Agreement.of([Comparison(ours, outcome([1.0] * 4, [5] * 4, [True] * 4), np.full(4, 3.0))])
    assert np.isnan(constant.correlation)


def test_bars_are_missed_by_what_is_over_under_or_no_number() -> None:
    row = {
        "told": Figure(9.0),
        "low": Figure(0.5, ".2f", 1.0),
        "high": Figure(1.0, ".2f", 1.0),
        "share": Figure(0.97, ".1%", 0.97, above=True),
        "less": Figure(0.96, ".1%", 0.97, above=True),
        "none": Figure(float("nan"), ".2f", 1.0, above=True),
    }
    assert [figure.met for figure in row.values()] == [None, True, False, True, False, False]
    table = Table("motion", "drift", "Drift", {"fast": row, "slow": {"low": Figure(3.0, ".2f", 2.0)}})
    bars, missed = judged([table])
    assert bars == 6 and len(missed) == 4
    assert missed[1] == "motion, drift, fast: less 96.0% (bar: >= 97%)"
    assert "0.50 ok (< 1)" in str(table) and "3.00 FAIL (< 2)" in str(table) and "96.0% FAIL" in str(table)
    assert table.records()[5]["value"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--part", "movies"], "--part: invalid choice: 'movies'"),
        (["--style", "slow"], "--style: invalid choice: 'slow'"),
        (["--seeds", "0"], "--seeds 0: give 1 or more"),
        (["--episodes", "-1"], "--episodes -1: give 1 or more"),
        (["--first-seed", "-5"], "--first-seed -5: seeds must lie in 0..2147483647"),
        (["--first-seed", "2147483640"], "--first-seed 2147483640: seeds must lie in 0..2147483647"),
        (["--part", "speed", "--sheet", "x.png"], "--sheet: only the part pictures draws one"),
        (["--sheet", "{tmp}"], "give the name of a file"),
        (["--game", "carracing"], "unrecognized arguments: --game carracing"),
    ],
)
def test_mistakes(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check_car_racing", *(word.replace("{tmp}", str(tmp_path)) for word in words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
