"""Models of the user's own: codes instead of numbers, and attention instead of an LSTM, through every stage."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from own_models import GROUPS, Attention, TinyVq
from test_memory import learn

from wm_jax import cli
from wm_jax.config.layers import validate
from wm_jax.config.schema import MemoryConfig
from wm_jax.config.vaes import CustomVaeConfig, VaeConfig
from wm_jax.models.heads import LOG_SQRT_TWO_PI, CategoricalHead
from wm_jax.models.latents import Codes, LatentKind, from_named, named
from wm_jax.models.memory import MDNRNN, Sequences, restart
from wm_jax.models.vae import make_vae
from wm_jax.run.artifacts import init_memory, init_vae
from wm_jax.utils.errors import UsageError, UserError

WORDS = ["--game", "jax:grid_game:Grid", "--preset", "smoke", "--vae.frames", "generated", "--vae.batch", "16"]
VQ = ["--vae.variant", "own_models:TinyVq", "--vae.options", "codes=8", "--vae.latent", "8"]
LOOKING_BACK = ["--memory.cell", "own_models:Attention", "--memory.options", "reach=6", "--memory.hidden", "12"]


def test_codes_and_attention_go_through_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a game of one's own, too: V, encode, M, C, evaluate and the report."""
    assert cli.main(["pipeline", *WORDS, *VQ, *LOOKING_BACK, "--run", str(tmp_path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert -3.0 <= summary["official_mean"] <= 1.0 and summary["official_episodes"] == 2
    assert "Grid" in (tmp_path / "report.html").read_text()
    arrays = np.load(next((tmp_path / "latents").glob("*.npz")))
    assert arrays["indices"].dtype == np.int32 and arrays["indices"].shape[1:] == (GROUPS,)
    assert arrays["indices"].max() < 8 and arrays["vectors"].shape[1:] == (8,)
    summary = json.loads((tmp_path / "memory" / "summary.json").read_text())
    assert 0 < summary["test_nll"] < 2 * GROUPS * np.log(8), "of classes: it can't be below 0, as that of a density can"
    # Its parts are remembered: the next command needs to be told nothing.
    assert cli.main(["evaluate", "--game", "jax:grid_game:Grid", "--preset", "smoke", "--run", str(tmp_path)]) == 0


def test_the_head_follows_the_latents() -> None:
    vae: Any = nnx.merge(*init_vae(CustomVaeConfig(variant="own_models:TinyVq", latent=8, options={"codes": 5}), 0))
    assert isinstance(vae, TinyVq) and vae.latent_kind == LatentKind(8, (GROUPS, 5))
    memory: Any = nnx.merge(*init_memory(MemoryConfig(hidden=6), vae.latent_kind, 2, 0))
    assert memory.head == CategoricalHead(GROUPS, 5) and memory.kernel[...].shape == (6, GROUPS * 5)


def test_m_learns_which_code_comes_next() -> None:
    """Codes that count up: their number is known for certain once M has seen one."""
    model = MDNRNN(MemoryConfig(hidden=16), LatentKind(8, (GROUPS, 4)), 2, nnx.Rngs(0))
    indices = (jnp.arange(21)[:, None, None] + jnp.arange(16)[None, :, None] + jnp.zeros((1, 1, GROUPS), jnp.int32)) % 4
    vectors = jnp.repeat(jax.nn.one_hot(indices, 4)[..., :2], 1, -1).reshape(21, 16, 8)
    blank = jnp.zeros((20, 16))
    batch = Sequences(Codes(indices, vectors), jnp.zeros((20, 16, 2)), blank, blank, blank > 0, blank.at[2:].set(1.0))
    losses = learn(model, batch, 0.03)
    assert losses[0] == pytest.approx(GROUPS * np.log(4), rel=0.2) and losses[-1] < 0.2
    assert LOG_SQRT_TWO_PI > 0.9, "a density of numbers would have had this much per dimension"


def test_attention_over_a_sequence_is_that_of_its_steps() -> None:
    """Also where an episode begins within it, and where it goes on from a state."""
    cell = Attention(3, 5, False, nnx.Rngs(0), reach=4)
    x = jax.random.normal(jax.random.key(1), (11, 2, 3))
    first = jnp.zeros((11, 2), bool).at[0, 0].set(True).at[6, 1].set(True)
    carry = cell.init_carry(2)
    for row in jax.random.normal(jax.random.key(2), (3, 2, 3)):
        carry = cell.step(carry, row)
    last, outputs = cell.unroll(carry, x, first)
    stepped, state = [], carry
    for row, begins in zip(x, first, strict=True):
        state = cell.step(restart(state, begins, cell.init_carry(1)), row)
        stepped.append(cell.visible(state)[0])
    np.testing.assert_allclose(outputs, jnp.stack(stepped), atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), last, state)


def test_latents_are_taken_apart_by_name_and_put_together_again() -> None:
    codes = Codes(jnp.zeros((2, 3), jnp.int32), jnp.ones((2, 6)))
    nested = {"top": codes, "bottom": codes._replace(vectors=jnp.full((2, 6), 2.0))}
    arrays = named(nested)
    assert list(arrays) == ["bottom.indices", "bottom.vectors", "top.indices", "top.vectors"]
    jax.tree.map(np.testing.assert_array_equal, from_named(nested, arrays), nested)


class NoVae:
    """Neither."""

    def __init__(self, *_: Any):
        pass


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        (
            {"vae": {"variant": "vanila"}},
            UsageError,
            "vae.variant vanila: .* vanilla, or MODULE:CLASS",
        ),
        ({"memory": {"cell": "rnn"}}, UsageError, "memory.cell rnn: input should be lstm or gru, or MODULE:CLASS"),
        ({"vae": {"variant": "no_such_module:X"}}, UsageError, "vae.variant no_such_module:X: there is no module"),
        ({"vae": {"variant": "own_models:X"}}, UsageError, "the module own_models has no X"),
        ({"vae": {"variant": "test_own_models:NoVae"}}, UserError, "it makes NoVae, no wm_jax.models.vae.Vae"),
        ({"vae": {"variant": "own_models:TinyVq", "options": {"size": 1}}}, UserError, "unexpected keyword argument"),
        ({"memory": {"cell": "test_own_models:NoVae"}}, UserError, "it makes NoVae, no NNX module that is a"),
    ],
)
def test_what_is_no_such_model_is_refused(settings: Any, error: type[UserError], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as raised:
        config = validate({"game": "enduro", **settings})
        make_vae(config.vae, nnx.Rngs(0))
        MDNRNN(config.memory, LatentKind(4), 2, nnx.Rngs(0))
    assert type(raised.value) is error


class Wrong(TinyVq):
    """One thing about it is wrong."""

    def __init__(self, config: VaeConfig, rngs: nnx.Rngs, wrong: str):
        super().__init__(config, rngs)
        self.wrong = wrong
        if wrong == "condition":
            object.__setattr__(self, "conditioned_on", "reward")

    @property
    def latent_kind(self) -> LatentKind:
        kind = super().latent_kind
        return {"size": kind._replace(size=9), "target": kind._replace(classes=(3, 16))}.get(self.wrong, kind)

    def embed(self, target: Any) -> Any:
        return target if self.wrong == "embed" else super().embed(target)

    def prior(self, key: Any, count: int) -> Any:
        return super().prior(key, count)[:, 1:] if self.wrong == "prior" else super().prior(key, count)

    def encode(self, frames: Any) -> Any:
        codes = super().encode(frames.reshape(-1) if self.wrong == "encode" else frames)
        return codes._replace(vectors=codes.vectors[:, 1:]) if self.wrong == "latent" else codes

    def decode(self, z: Any) -> Any:
        return super().decode(z)[:, ::2] if self.wrong == "decode" else super().decode(z)

    def loss(self, batch: Any, update: Any) -> Any:
        loss, metrics = super().loss(batch, update)
        if self.wrong == "metrics":
            del metrics["kl"]
        return (loss[None] if self.wrong == "loss" else loss), metrics


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("encode", r"^vae.variant test_own_models:Wrong: its encode fails \("),
        ("latent", r"the sample of what encode returns has shape \(7,\) for each frame, but it must be \(8,\)"),
        ("decode", r"what decode returns has shape \(32, 64, 3\) for each frame, but it must be \(64, 64, 3\)"),
        ("condition", "its conditioned_on is 'reward'; give 'action' or None"),
        ("size", "its latent_kind has the size 9, but vae.latent is 8; mend it"),
        ("target", r"the target of what encode returns has shape \(4,\) for each frame, but it must be \(3,\)"),
        ("embed", r"what embed returns has shape \(4,\) for each frame, but it must be \(8,\)"),
        ("prior", r"what prior returns has shape \(7,\) for each frame, but it must be \(8,\)"),
        ("metrics", "of what its loss returns the metrics lack kl; mend it"),
        ("loss", r"of what its loss returns the loss is \(1,\), not one number; mend it"),
    ],
)
def test_an_auto_encoder_that_does_not_do_as_it_should_is_refused_before_training(wrong: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        init_vae(CustomVaeConfig(variant="test_own_models:Wrong", latent=8, options={"wrong": wrong}), 0)


@pytest.mark.parametrize("words", [["--vae.variant", "own_models:Nobody"], ["--memory.cell", "own_models:Nobody"]])
def test_what_is_no_such_class_is_refused_before_anything_is_played(words: list[str], tmp_path: Path, capsys) -> None:
    assert cli.main(["train_memory", *WORDS, *words, "--run", str(tmp_path / "run")]) == 2
    assert "the module own_models has no Nobody" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
