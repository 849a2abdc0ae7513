"""Weights as files for others: what was saved comes back bit for bit, and what is not whole is not taken for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open

import wm_jax
from wm_jax.models.variables import Buffer
from wm_jax.run.checkpoints import Checkpoints, DamagedCheckpoints
from wm_jax.run.folder import Run
from wm_jax.run.pretrained import AGENTS
from wm_jax.run.weights import ARRAYS, RECORD, Weights
from wm_jax.utils.errors import UserError


def tree() -> dict[str, Any]:
    """Of every kind that models have."""
    numbers = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    return {
        "deep": {"kernel": numbers, "list": [numbers[0], np.array(True)], "nothing": np.zeros((0, 2), np.float32)},
        "half": jnp.asarray(numbers, jnp.bfloat16),
        "count": np.int32(7),
        "key": jax.random.key(3),
    }


def kept() -> dict[str, Any]:
    """What Orbax takes of it."""
    return {**tree(), "deep": {"kernel": tree()["deep"]["kernel"]}}


def same(one: Any, other: Any) -> bool:
    leaves = [jax.tree.leaves(jax.tree.map(plain, each)) for each in (one, other)]
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(*leaves, strict=True)
    )


def plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def test_what_was_saved_comes_back_and_others_can_read_it(tmp_path: Path) -> None:
    weights = Weights(tmp_path / "weights")
    assert weights.restore(tree()) is None and weights.about() is None
    digest = weights.save(5, tree(), {"settings": {"beta": 2.0}})
    found = weights.restore(tree())
    assert found is not None and found[0] == 5 and same(found[1], tree())
    assert found[2]["digest"] == digest and found[2]["settings"] == {"beta": 2.0}
    with safe_open(tmp_path / "weights" / ARRAYS, "np") as file:
        np.testing.assert_array_equal(file.get_tensor("deep.kernel"), tree()["deep"]["kernel"])
        assert file.metadata()["digest"] == digest
    assert Weights(tmp_path / "a").save(5, kept()) == Checkpoints(tmp_path / "older").save(5, kept()), (
        "as it was before"
    )


def test_newer_ones_replace_the_older(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.save(1, {"w": np.zeros(3, np.float32)})
    digest = weights.save(2, {"w": np.ones(3, np.float32)})
    assert weights.holds(digest, {"w": np.zeros(3, np.float32)}) and not weights.holds(
        "other", {"w": np.zeros(3, np.float32)}
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, ARRAYS]


def test_what_versions_before_wrote_is_read_and_then_replaced(tmp_path: Path) -> None:
    older = Checkpoints(tmp_path)
    digest = older.save(3, kept(), {"settings": {"beta": 1}})
    weights = Weights(tmp_path)
    found = weights.restore(kept())
    assert found is not None and found[0] == 3 and same(found[1], kept()) and weights.holds(digest, kept())
    assert (weights.about() or {})["settings"] == {"beta": 1}
    weights.save(4, tree())
    found = weights.restore(tree())
    assert found is not None and found[0] == 4


@pytest.mark.parametrize("how", ["torn arrays", "other arrays", "no arrays", "torn record", "a flipped bit"])
def test_damage_is_named(how: str, tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    digest = weights.save(1, tree())
    arrays, record = tmp_path / ARRAYS, tmp_path / RECORD
    content = bytearray(arrays.read_bytes())
    content[-9] ^= 4
    match how:
        case "torn arrays":
            arrays.write_bytes(arrays.read_bytes()[:-5])
        case "other arrays":
            other = Weights(tmp_path / "other")
            other.save(1, {"w": np.zeros(2, np.float32)})
            arrays.write_bytes((tmp_path / "other" / ARRAYS).read_bytes())
        case "no arrays":
            arrays.unlink()
        case "torn record":
            record.write_text(record.read_text()[:-20])
        case _:
            arrays.write_bytes(content)
    with pytest.raises(DamagedCheckpoints, match="is damaged"):
        weights.restore(tree())
    assert not weights.holds(digest, tree())


def test_other_models_are_refused(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.save(1, tree())
    for other in ({"deep": 1.0}, tree() | {"count": np.int64(7)}, tree() | {"half": np.zeros((3, 4), np.float32)}):
        with pytest.raises(UserError, match="holds arrays of other sizes or names"):
            weights.restore(jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else np.asarray(leaf), other))


class Counting(nnx.Module):
    """Something learned, and something counted that an earlier version did not know."""

    def __init__(self, **buffers: Any) -> None:
        self.kernel = nnx.Param(jnp.arange(3.0))
        for name, value in buffers.items():
            setattr(self, name, Buffer(value))


def test_what_an_earlier_version_did_not_know_is_zero(tmp_path: Path) -> None:
    older, now = (nnx.state(Counting(**each)) for each in ({}, {"seen": jnp.ones(2), "often": jnp.int32(5)}))
    weights = Weights(tmp_path)
    digest = weights.save(4, older)
    found = weights.restore(now)
    assert found is not None and found[0] == 4 and weights.holds(digest, now)
    np.testing.assert_array_equal(found[1]["kernel"][...], jnp.arange(3.0))
    np.testing.assert_array_equal(found[1]["seen"][...], np.zeros(2))
    assert found[1]["often"][...] == 0
    weights.save(4, nnx.state(Counting(seen=jnp.ones(2))))
    with pytest.raises(UserError, match="holds arrays of other sizes or names"):
        weights.restore(now)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights(tmp_path)
    digest = weights.save(1, tree())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="No space left"):
        weights.save(2, {"w": np.zeros(10**4, np.float32)})
    assert weights.holds(digest, tree())


def test_the_shipped_agent_is_a_handful_of_files_with_a_card() -> None:
    folder = AGENTS / "carracing"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    parts = ("stage.json", "summary.json", f"weights/{ARRAYS}", f"weights/{RECORD}")
    assert files == {"MODEL_CARD.md", *(f"{part}/{name}" for part in ("vae", "memory", "controller") for name in parts)}
    text = (folder / "MODEL_CARD.md").read_text()
    about = wm_jax.load("carracing").about
    assert all(f"`{summary['weights'][:12]}`" in text for summary in about.values())
    assert "Score in the official game: 864** over 100 episodes" in text and 'wm_jax.load("carracing")' in text


def test_every_run_gets_a_card(tmp_path: Path) -> None:
    small = {"steps": 3, "width": 0.125, "latent": 4}
    frames = np.random.default_rng(0).integers(0, 255, (600, 8, 8, 3), np.uint8)
    wm_jax.train(frames, folder=tmp_path / "mine", preset="smoke", vae=small)
    text = (tmp_path / "mine" / "MODEL_CARD.md").read_text()
    assert "# own:arrays: V of a world model" in text and "| V, the auto-encoder | vanilla | 3 steps |" in text
    assert "What is known to be wrong:" in text and "small objects are missing" in text


OTHER_JAX = os.environ.get("WM_JAX_OTHER_PYTHON", "")


@pytest.mark.skipif(not OTHER_JAX, reason="WM_JAX_OTHER_PYTHON names no Python with another JAX")
def test_another_version_of_jax_reads_the_same_bits() -> None:
    """Of every array of the shipped agent; and what its V makes of a frame."""
    code = (
        "import json, sys, hashlib, jax, numpy as np, wm_jax\n"
        "agent = wm_jax.load('carracing')\n"
        "leaves = jax.tree.leaves((agent.params,))\n"
        "digest = hashlib.sha256(b''.join(np.asarray(x).tobytes() for x in leaves)).hexdigest()\n"
        "z = agent.encode(np.full((1, 64, 64, 3), 90, np.uint8))\n"
        "print(json.dumps([jax.__version__, digest, z.tolist()]))"
    )
    root = Path(wm_jax.__file__).parent.parent
    answers = []
    for python in (sys.executable, OTHER_JAX):
        done = subprocess.run(
            [python, "-P", "-c", code], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    assert answers[0][0] != answers[1][0] and answers[0][1] == answers[1][1]
    np.testing.assert_allclose(answers[0][2], answers[1][2], atol=1e-4)
    assert Run(AGENTS / "carracing").stage("vae").weights.about() is not None
