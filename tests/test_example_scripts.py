"""The scripts in examples/ run, at a small size, from another folder, and say and write what they are to."""

import json
import runpy
import sys
from pathlib import Path

import jax
import pytest
from PIL import Image

from wm_jax.tools import notebook

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOWN = {
    "own_frames": ("held-out error: ", "own_frames.png", (640, 128)),
    "own_game": ("returns of eight episodes, 5 at most:", None, None),
    "own_memory": ("error of z one step ahead: ", None, None),
    "open_an_agent": ("C says {'steer': ", None, None),
    "look_at_latents": ("by their deviation: ", "look_at_latents.png", (576, 192)),
    "drive_with_your_policy": ("generation 1: mean ", None, None),
}
"""What each prints, and the picture that it writes, with its size."""


@pytest.mark.parametrize("name", SHOWN)
def test_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, picture, size = SHOWN[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--small"])
    # Users write as NumPy lets them; only our own code is held to more.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert words in capsys.readouterr().out
    if picture is not None:
        with Image.open(picture) as image:
            assert image.size == size and len(image.getcolors(10**6) or range(9)) > 5


def test_there_are_no_others_and_each_is_described() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN)
    text = (EXAMPLES / "README.md").read_text()
    assert all(f"| `{name}.py` |" in text for name in SHOWN)


def test_the_notebook_is_made_from_them() -> None:
    """Whoever changes one makes it anew, by the command that `wm_jax/tools/notebook.py` names."""
    there = json.loads((EXAMPLES.parent / notebook.NOTEBOOK).read_text())
    kinds = {True: "code", False: "markdown"}
    made = [(kinds[cell.is_code], cell.source) for cell in notebook.cells(EXAMPLES)]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in there["cells"]] == made
    outputs = [cell.get("outputs", []) for cell in there["cells"]]
    assert sum(map(bool, outputs)) > len(SHOWN) and max(len(json.dumps(each)) for each in outputs) < 12_000


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    outputs = json.dumps(notebook.run(notebook.cells(EXAMPLES), small=True))
    for words, picture, _ in SHOWN.values():
        assert words in outputs.replace('\\"', '"')
        assert picture is None or (tmp_path / picture).exists()
    assert outputs.count("image/jpeg") == sum(picture is not None for _, picture, _ in SHOWN.values())
