"""The benchmarks: their arithmetic, their agreement with PyTorch, and that they run."""

import json
import multiprocessing
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from wm_jax import cli
from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import VARIANTS, VanillaConfig
from wm_jax.models.latents import LatentKind
from wm_jax.run.artifacts import init_memory, init_vae
from wm_jax.tools.benchmark import controller, flops, memory, vae, vaes
from wm_jax.tools.benchmark.case import DECODED, ENVIRONMENTS, NETWORK, OURS, PLAIN, REAL, TUNED, WRITTEN, Options
from wm_jax.tools.benchmark.command import _of_games
from wm_jax.tools.benchmark.timing import Timing, alternate


def test_ratios_are_taken_within_rounds() -> None:
    # A machine that slows down to a third half-way slows both: the ratio stays.
    ours = Timing(5.0, (1.0, 1.0, 3.0, 3.0, 3.0))
    theirs = Timing(2.0, (2.0, 2.0, 6.0, 6.0, 6.0))
    assert ours.faster_than(theirs) == 2.0 and theirs.faster_than(ours) == 0.5
    assert ours.compiling == 2.0 and theirs.compiling == 0.0
    assert Timing(1.0, (1.0,)).spread == 0.0


def test_contenders_take_turns() -> None:
    called: list[str] = []
    timings = alternate({name: lambda name=name: called.append(name) for name in "ab"}, 3)
    assert called == list("ab" * 5)
    assert all(len(timing.seconds) == 3 for timing in timings.values())


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_operations_of_v_are_those_that_xla_counts(width: float) -> None:
    config = VanillaConfig(width=width, fast_kernels=False)
    graphdef, params = init_vae(config, 0)

    def counted(function, *shapes) -> float:
        arguments = [jnp.zeros(shape) for shape in shapes]
        analysis = jax.jit(function).lower(*arguments).compile().cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    model = nnx.merge(graphdef, params)
    assert flops.encoding(config) == pytest.approx(counted(model.encode, (1, 64, 64, 3)), rel=0.1)
    # XLA counts a transposed convolution's products with inserted zeros only where it knows them: compare by hand.
    if width == 1.0:
        decoder = 32 * 1024 + 1024 * 25 * 128 + 25 * 25 * 128 * 64 + 169 * 36 * 64 * 32 + 900 * 36 * 32 * 3
        assert flops.decoding(config) == 2 * decoder


def test_operations_of_m() -> None:
    config = MemoryConfig(fast_kernels=False)
    model = nnx.merge(*init_memory(config, LatentKind(32), 3, 0))
    assert flops.memory_update(model) == 6 * 256 * (4 * (35 + 256) + 480)


def test_operations_of_play() -> None:
    config = VanillaConfig()
    model = nnx.merge(*init_memory(MemoryConfig(), LatentKind(32), 3, 0))
    assert flops.playing(config, model, 867) == flops.encoding(config) + 2 * (1024 * (35 + 256) + 867)


@pytest.mark.parametrize("case", [vae.training, vae.encoding, memory.training, controller.generation, vaes.training])
def test_pytorch_computes_the_same(case, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra `bench` is not installed")
    found = case(Options((OURS, TUNED), tmp_path, small=True))
    assert found.agreement() < found.tolerance


def test_the_whole_is_held_against_its_halves() -> None:
    """A machine that is three times slower in the second round; environments take 2 s, the network 1 s, both 4 s."""
    timings = {name: Timing(9.0, (s, 3 * s)) for name, s in ((OURS, 4.0), (ENVIRONMENTS, 2.0), (NETWORK, 1.0))}
    said = controller.shares(timings)
    assert "reaches 50% of the speed of its slower half" in said and said.endswith("reaches 75%.")


def test_processes_of_pytorch_play_every_candidate(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra `bench` is not installed")
    before = len(multiprocessing.active_children())
    work = controller.generation(Options((OURS, WRITTEN), tmp_path, small=True)).makers[WRITTEN]()
    work()
    work()
    assert len(multiprocessing.active_children()) == before + (os.cpu_count() or 1)


@pytest.mark.parametrize("case", [vae.training, vae.encoding, memory.training, controller.generation])
def test_ours_runs_with_and_without_fast_kernels(case, tmp_path: Path) -> None:
    found = case(Options((OURS, PLAIN), tmp_path, small=True))
    for name in (OURS, PLAIN):
        work = found.makers[name]()
        work()
        work()


def test_every_auto_encoder_is_timed(tmp_path: Path) -> None:
    case = vaes.training(Options((OURS,), tmp_path, small=True))
    assert set(VARIANTS) - {"vanilla"} <= set(case.parts) and set(case.parts) < set(case.makers)
    for name in ("factor", "grid", "noise, weights"):  # with a discriminator, other networks, what surrounds a loss
        case.makers[name]()()
    timings = {OURS: Timing(1.0, (1.0, 2.0)), "factor": Timing(1.0, (1.5, 3.0)), "grid": Timing(1.0, (4.0, 8.0))}
    assert vaes.costs(timings).endswith("grid 4.00, factor 1.50.")


def test_pictures_of_beginnings_are_held_against_those_of_later(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--small", "--stage", "drawing", "--rounds", "2", "--against", "none"]) == 0
    said = capsys.readouterr().out
    assert "one of 16 begins" in said and "Of the speed without beginnings: one of 16 begins" in said


def test_dreams_are_held_against_their_game(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "--small", "--stage", "dream:carracing", "--rounds", "2", "--against", "none", "--json"]
    assert cli.main(words) == 0
    figures = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert [row["contender"] for row in figures["rows"]] == [OURS, DECODED, REAL]
    assert _of_games("dream") == ["dream:carracing", "dream:enduro", "dream:doomtakecover"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "--small", "--stage", "encode", "--against", "plain", "--rounds", "2", "--json"]
    assert cli.main([*words, "--plot", str(tmp_path / "plot.png")]) == 0
    figures = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert [row["contender"] for row in figures["rows"]] == [OURS, PLAIN]
    for row in figures["rows"]:
        assert row["per_second"] > 0 and row["of_peak"] > 0 and 0.1 < row["memory_gb"] < 20
    assert figures["rows"][0]["times_ours"] == 1.0 and (tmp_path / "plot.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["--stage", "vea"], 2, "--stage: invalid choice: 'vea'"),
        (["--rounds", "0"], 2, "--rounds 0: give 1 or more"),
        (["--batch", "-2"], 2, "--batch: give 1 or more"),
        (["--devices", "0"], 2, "--devices 0: give 1 or more"),
        (["--game", "enduro"], 2, "unrecognized arguments: --game enduro"),
    ],
)
def test_mistakes(words: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", *words]) == status
    said = capsys.readouterr().err
    assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
