"""The code in the documents runs."""

import re
import sys
from pathlib import Path

import jax
import pytest

import wm_jax
from wm_jax import cli

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_models_and_games_of_the_documents_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in the current folder, as the reader's would."""
    models, games = re.findall(r"```python\n(.*?)```", (DOCS / "architecture.md").read_text(), re.DOTALL)
    (tmp_path / "documented_models.py").write_text(models)
    (tmp_path / "documented_games.py").write_text(games)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])  # so that what is added goes again
    words = ["train_controller", "--game", "jax:documented_games:Catch", "--preset", "smoke", "--run", "run"]
    own = ["--vae.variant", "documented_models:Small", "--vae.options", "hidden=16", "--vae.latent", "4"]
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # as outside of our tests
        assert cli.main([*words, *own]) == 0
    assert (tmp_path / "run" / "controller" / "summary.json").exists()


def test_the_page_of_the_library_is_made_from_its_docstrings() -> None:
    """And has all of it: whoever changes one makes the page anew, by the command that it names."""
    from wm_jax.tools.api import PAGE, page

    there, made = (DOCS.parent / PAGE).read_text(), page()
    assert there == made, f"run {sys.executable} -m wm_jax.tools.api"
    for name in wm_jax.__all__:
        assert f"## {name}\n" in made
    for member in ("encode", "decode", "predict", "act", "play", "film"):
        assert f"### TrainedAgent.{member}\n" in made
