"""The networks that auto-encoders can be made of: one interface, no frame knows of another, and a grid is a grid."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pydantic import ValidationError

from wm_jax.config.layers import load
from wm_jax.config.vaes import VARIANTS, BuiltInVaeConfig, VanillaConfig
from wm_jax.models.vae import Batch, Update, loss_and_grad, make_vae
from wm_jax.models.vae.networks import ENCODERS, make_decoder, make_encoder
from wm_jax.models.vae.residual import group_norm
from wm_jax.utils.errors import UserError

NOISE = jnp.asarray(np.random.default_rng(0).random((4, 64, 64, 3), np.float32))
LARGE_Z = {"latent": 176}
CODES = jnp.asarray(np.random.default_rng(1).normal(size=(4, 16)), jnp.float32)


def settings(**given: Any) -> VanillaConfig:
    return VanillaConfig.model_validate({"width": 0.125, "latent": 16, "free_nats": 0.0} | given)


@cache
def model(encoder: str, decoder: str) -> Any:
    latent = 36 if "local" in (encoder, decoder) else 16
    return make_vae(settings(encoder=encoder, decoder=decoder, latent=latent), nnx.Rngs(0))


@cache
def compiled(encoder: str, decoder: str) -> Any:
    """From frames to the means of z, and from z to frames."""
    built = model(encoder, decoder)
    return jax.jit(lambda x: built.encode(x).mean), jax.jit(built.decode)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_has_heads_and_every_decoder_takes_any_number_of_inputs(name: str) -> None:
    def shapes() -> Any:
        config = settings(encoder=name, decoder=name, width=0.3)
        encoder, decoder = make_encoder(config, nnx.Rngs(0)), make_decoder(144, config, nnx.Rngs(1))
        features, head = encoder(NOISE), encoder.head(288, nnx.Rngs(2))
        assert features.shape == (4, encoder.features)
        return head(features), decoder(jnp.zeros((4, 144)))

    numbers, frames = jax.eval_shape(shapes)
    assert numbers.shape == (4, 288) and frames.shape == (4, 64, 64, 3)
    assert numbers.dtype == frames.dtype == jnp.float32


def test_they_combine_and_everything_in_them_is_learned() -> None:
    graphdef, variables = nnx.split(model("residual", "grid"))
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8))
    gradient = jax.jit(lambda v: loss_and_grad(graphdef, v, Batch(frames), Update(jax.random.key(0))))
    metrics, gradients, others = gradient(variables)
    assert others is None and np.isfinite(metrics["loss"])
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.any(leaf != 0), path


def test_fresh_weights_keep_the_scale() -> None:
    encode, decode = compiled("grid", "grid")
    assert 0.2 < jnp.std(encode(NOISE)) < 2
    assert 0.2 < jnp.std(jax.scipy.special.logit(decode(CODES))) < 2


def test_no_frame_knows_of_another() -> None:
    """What batch normalisation would break."""
    for function, inputs in zip(compiled("grid", "grid"), (NOISE, CODES), strict=True):
        others = inputs.at[1:].multiply(3.0)
        np.testing.assert_allclose(function(others)[:1], function(inputs)[:1], rtol=1e-4, atol=1e-5)


def test_group_norm_has_groups_of_sixteen_where_it_can() -> None:
    groups = {channels: group_norm(channels, nnx.Rngs(0)).num_groups for channels in (4, 16, 26, 51, 77, 256)}
    assert groups == {4: 1, 16: 1, 26: 1, 51: 3, 77: 1, 256: 16}


@pytest.mark.parametrize("place", [0, 6, 11])
def test_a_place_of_the_grid_s_z_draws_what_lies_there(place: int) -> None:
    _, decode = compiled("grid", "grid")
    drawn = decode(CODES.at[:, place].add(1.0)) - decode(CODES)
    of_each = np.square(drawn).reshape(4, 4, 16, 4, 16, 3).sum((0, 2, 4, 5)).ravel()
    assert of_each.argmax() == place and of_each[place] > 0.5 * of_each.sum()


@pytest.mark.parametrize("place", [0, 6, 11])
def test_a_place_of_a_frame_is_said_by_its_part_of_z(place: int) -> None:
    encode, _ = compiled("grid", "grid")
    row, column = 16 * (place // 4), 16 * (place % 4)
    changed = NOISE.at[:, row : row + 16, column : column + 16].set(0.9)
    of_each = np.square(encode(changed) - encode(NOISE)).sum(0)
    assert of_each.argmax() == place and of_each[place] > 0.5 * of_each.sum()


@pytest.mark.parametrize("place", [0, 14, 22])
def test_a_place_of_the_local_networks_sees_and_draws_what_lies_there(place: int) -> None:
    """Places are 8 pixels apart; each sees a window of 22 pixels, and draws one of 24."""
    encode, decode = compiled("local", "local")
    row, column = (8 * each for each in divmod(place, 6))
    window = np.s_[:, row : row + 22, column : column + 22]
    said = encode(NOISE)[:, place]
    np.testing.assert_array_equal(encode(jnp.full_like(NOISE, 0.5).at[window].set(NOISE[window]))[:, place], said)
    assert np.abs(encode(NOISE.at[window].set(0.5))[:, place] - said).min() > 1e-3
    codes = jnp.asarray(np.random.default_rng(1).normal(size=(4, 36)), jnp.float32)
    changed = (decode(codes.at[:, place].add(1.0)) != decode(codes)).any((0, 3))
    assert np.flatnonzero(changed.any(1)).tolist() == list(range(row, row + 24))
    assert np.flatnonzero(changed.any(0)).tolist() == list(range(column, column + 24))


@pytest.mark.parametrize("network", ["grid", "local"])
def test_the_last_numbers_of_z_belong_to_the_whole_frame(network: str) -> None:
    given = {"encoder": network, "decoder": network, "latent": 148, "global_latent": 4}
    vae = make_vae(settings(**given), nnx.Rngs(0))
    said = vae.encode(NOISE).mode() - vae.encode(NOISE.at[:, :22, :22].set(0.5)).mode()
    changed = np.abs(said).max(0) > 1e-2
    assert changed[-4:].all() and (network == "grid" or changed[:-4].mean() < 0.3)
    assert vae.mean.whole.kernel.shape[1] == 4 and vae.decoder.start.placed == 144  # pyright: ignore
    z = jnp.zeros((2, 148))
    drawn = vae.decode(z.at[:, -1].add(1.0)) - vae.decode(z)
    assert (np.abs(drawn).max((0, 3)) > 0.1 * np.abs(drawn).max()).mean() > 0.75
    with pytest.raises(UserError, match=r"147 numbers .* beside 4 of the whole frame .* makes the rest a multiple of"):
        make_vae(settings(**given | {"latent": 147}), nnx.Rngs(0))


def test_all_places_share_one_layer() -> None:
    assert model("grid", "grid").mean.each.dense.kernel.shape == (32, 1)
    assert model("grid", "grid").decoder.start.each.dense.kernel.shape == (1, 32)


@pytest.mark.parametrize(
    "encoder, decoder, named",
    [
        ("grid", "paper", "encoder grid: 20 numbers .* multiple of 16"),
        ("paper", "grid", "decoder grid: 20 numbers .* multiple of 16"),
        ("local", "paper", "encoder local: 20 numbers .* multiple of 36"),
        ("paper", "local", "decoder local: 20 numbers .* multiple of 36"),
    ],
)
def test_a_z_that_cannot_be_shared_out_is_refused(encoder: str, decoder: str, named: str) -> None:
    with pytest.raises(UserError, match=f"vae.{named}"):
        jax.eval_shape(lambda: nnx.state(make_vae(settings(encoder=encoder, decoder=decoder, latent=20), nnx.Rngs(0))))


def of_variant(variant: str, **given: Any) -> Any:
    kind = VARIANTS[variant]
    return make_vae(kind.model_validate({"variant": variant, "width": 0.125, **given}), nnx.Rngs(0))


@pytest.mark.parametrize("variant, latent", [("ladder", 54), ("hierarchical", 48)])
def test_the_level_that_is_decoded_has_a_part_for_each_place(variant: str, latent: int) -> None:
    """What a place sees changes its own part of the bottom level alone, and that part is drawn there."""
    more = {"depth": 2} if variant == "ladder" else {}
    vae = of_variant(variant, latent=latent, encoder="local", decoder="local", hidden=8, **more)
    bottom = (lambda x: vae._ascend(x)[-1].mean) if variant == "ladder" else (lambda x: vae._bottom(x).mean)
    place, window = 14, np.s_[:, 16 : 16 + 22, 16 : 16 + 22]
    said = bottom(NOISE)
    assert said.shape == (4, 36)
    np.testing.assert_array_equal(
        bottom(jnp.full_like(NOISE, 0.5).at[window].set(NOISE[window]))[:, place], said[:, place]
    )
    assert np.abs(bottom(NOISE.at[window].set(0.5)) - said)[:, place].min() > 1e-3
    z = jnp.asarray(np.random.default_rng(1).normal(size=(2, latent)), jnp.float32)
    changed = (vae.decode(z.at[:, latent - 36 + place].add(1.0)) != vae.decode(z)).any((0, 3))
    assert np.flatnonzero(changed.any(1)).tolist() == list(range(16, 16 + 24))


@pytest.mark.parametrize("network", ["grid", "local"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_auto_encoder_fits_networks_by_place(variant: str, network: str) -> None:
    """With a z that a game's settings name, or one that follows from its own classes or codes."""
    kind = VARIANTS[variant]
    own = "latent" in vars(kind).get("__annotations__", {})
    given = {
        "variant": variant,
        "width": 0.125,
        "encoder": network,
        "decoder": network,
        "global_latent": 32,
        **({} if own else LARGE_Z),
    }
    config = kind.model_validate(given)

    def shapes() -> Any:
        vae = make_vae(config, nnx.Rngs(0))
        z = vae.encode(NOISE).mode()
        return z, vae.decode(z), vae.decode(vae.prior(jax.random.key(0), 4))

    z, decoded, drawn = jax.eval_shape(shapes)
    assert z.shape == (4, config.latent) and decoded.shape == drawn.shape == NOISE.shape


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_auto_encoder_can_be_chosen_where_a_game_s_own_networks_are_by_place(variant: str) -> None:
    config = load("chaser", "procgen", "quick", {"vae": {"variant": variant}}).vae
    assert isinstance(config, BuiltInVaeConfig) and config.places > 1
    jax.eval_shape(lambda: nnx.state(make_vae(config, nnx.Rngs(0))))


@pytest.mark.parametrize(
    "variant, given, expected",
    [
        ("vq", {}, (256, 32)),
        ("vq", {"encoder": "local"}, (288, 36)),
        ("vq", {"encoder": "local", "decoder": "grid"}, (1152, 144)),
        ("vq", {"encoder": "local", "codes_per_frame": 72}, (576, 72)),
        ("vq", {"encoder": "local", "latent": 144}, (144, 36)),
        ("vq", {"latent": 64}, (64, 32)),
        ("vq", {"latent": 64, "codes_per_frame": 16}, (64, 16)),
        ("categorical", {}, (512, 16)),
        ("categorical", {"decoder": "local", "classes": "8"}, (288, 8)),
        ("dreamer", {}, (1024, 32)),
        ("dreamer", {"encoder": "local"}, (1152, 36)),
        ("dreamer", {"encoder": "local", "global_latent": 32}, (1184, 37)),
        ("vq", {"encoder": "local", "global_latent": 16}, (304, 38)),
        ("dreamer", {"encoder": "local", "groups": 72, "classes": 8}, (576, 72)),
        ("joint", {}, (42, 10)),
        ("joint", {"encoder": "local", "groups": 2}, (56, 10)),
    ],
)
def test_the_size_of_z_follows_from_classes_and_places(
    variant: str, given: dict[str, Any], expected: tuple[int, int]
) -> None:
    config = VARIANTS[variant].model_validate({"variant": variant, **given})
    second = {"vq": "codes_per_frame", "dreamer": "groups"}.get(variant, "classes")
    assert (config.latent, getattr(config, second)) == expected
    jax.eval_shape(lambda: nnx.state(make_vae(config, nnx.Rngs(0))))


@pytest.mark.parametrize("classes", ["many", 0, -3, 70_000, None, 1.5])
@pytest.mark.parametrize("variant", ["dreamer", "categorical", "joint"])
def test_a_wrong_number_of_classes_is_what_is_complained_about(variant: str, classes: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        VARIANTS[variant].model_validate({"variant": variant, "classes": classes})
    assert [error["loc"] for error in caught.value.errors()] == [("classes",)]


@pytest.mark.parametrize("variant", ["vq", "fsq", "categorical", "dreamer"])
def test_a_part_of_z_belongs_to_a_place_or_to_the_frame(variant: str) -> None:
    latent = {"latent": 148} if variant == "fsq" else {}
    with pytest.raises(UserError, match=r"vae.global_latent 2: a (code|group) .*is [0-9]+ numbers; give a multiple"):
        of_variant(variant, encoder="local", decoder="local", global_latent=2, **latent)


@pytest.mark.parametrize("encoder, decoder", [("local", "paper"), ("paper", "grid"), ("local", "grid")])
@pytest.mark.parametrize("variant", ["vanilla", "ladder", "dreamer"])
def test_networks_by_place_go_with_any_other(variant: str, encoder: str, decoder: str) -> None:
    given = {} if variant == "dreamer" else {"latent": 432 + 32}
    config = VARIANTS[variant].model_validate(
        {"variant": variant, "width": 0.125, "encoder": encoder, "decoder": decoder, "global_latent": 32, **given}
    )
    frames = jnp.zeros((2, 64, 64, 3), jnp.uint8)
    loss = lambda: make_vae(config, nnx.Rngs(0)).loss(Batch(frames), Update(jax.random.key(0)))  # noqa: E731
    assert jax.eval_shape(loss)[0].shape == ()


@pytest.mark.parametrize("variant, least", [("ladder", 38), ("hierarchical", 37)])
def test_a_z_too_small_for_levels_is_refused_with_the_reason(variant: str, least: int) -> None:
    kind = VARIANTS[variant]
    given = {"variant": variant, "width": 0.125, "encoder": "local", "decoder": "local", "hidden": 8}
    with pytest.raises(UserError, match=f"vae.latent {least - 1}: .* its bottom level takes a multiple of 36"):
        make_vae(kind.model_validate({**given, "latent": least - 1}), nnx.Rngs(0))
    jax.eval_shape(lambda: nnx.state(make_vae(kind.model_validate({**given, "latent": least}), nnx.Rngs(0))))


@pytest.mark.parametrize("variant, network", [("joint", "grid"), ("conditional", "local")])
def test_what_belongs_to_no_place_is_seen_everywhere(variant: str, network: str) -> None:
    """A number of z is drawn around its place; a class, or an action, changes the whole picture."""
    vae = of_variant(variant, encoder=network, decoder=network, **({} if variant == "joint" else {"latent": 36}))
    z = jax.random.normal(jax.random.key(1), (2, vae.config.latent))

    def share(one: jax.Array, other: jax.Array) -> float:
        """Of the picture that changes much; group normalisation lets all of it change a little."""
        change = np.abs(one - other).max((0, 3))
        return float((change > 0.1 * change.max()).mean())

    if variant == "joint":
        everywhere = share(vae.decode(z.at[:, -1].add(1.0)), vae.decode(z))
    else:
        conditions = jnp.zeros((2, vae.config.condition))
        everywhere = share(vae.decode(z, conditions + 1.0), vae.decode(z, conditions))
    assert everywhere > 0.75
    assert share(vae.decode(z.at[:, 0].add(1.0)), vae.decode(z)) < 0.5


@pytest.mark.parametrize(
    "variant, given", [("joint", {"latent": 46}), ("conditional", {"latent": 36}), ("iaf", {"latent": 36})]
)
def test_what_belongs_to_the_whole_frame_is_no_matter_of_places(variant: str, given: dict[str, int]) -> None:
    """Classes, conditions and a flow's context have any size; z alone is shared out."""
    vae = of_variant(variant, encoder="local", **given)
    assert vae.encode(NOISE).mode().shape == (4, given["latent"])
