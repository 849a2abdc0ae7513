"""Latents beside the replays: joined frame by frame, resumable, and never those of other replays."""

import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_replay import ABOUT, fill, make_episode, split_of

from wm_jax.data.episodes import Shard, Split
from wm_jax.data.latents import Kind, LatentStore
from wm_jax.data.replay import ReplayStore
from wm_jax.utils import files
from wm_jax.utils.errors import UserError

LATENT = 4
SEEDS = range(11)
SPLITS: tuple[Split | None, ...] = ("train", "test", None)


KINDS = {"mean": Kind("float32", (LATENT,)), "log_var": Kind("float32", (LATENT,))}


def encode(frames: np.ndarray) -> dict[str, np.ndarray]:
    """A stand-in for V that tells frames apart: mean [n, LATENT] from pixels, log_var its negative."""
    mean = frames.reshape(len(frames), -1)[:, [0, 3, 50, 9000]].astype(np.float32)
    return {"mean": mean, "log_var": -mean}


def write(latents: LatentStore, replays: ReplayStore, wanted: list[Shard]) -> None:
    for shard, blocks in replays.iter_shards([shard.name for shard in wanted]):
        latents.write(shard, encode(np.concatenate(list(blocks))))


@pytest.fixture
def replays(tmp_path) -> ReplayStore:
    return fill(tmp_path / "replays", SEEDS, shard=4)


@pytest.fixture
def latents(tmp_path, replays) -> LatentStore:
    store = LatentStore.create(tmp_path / "latents", "v" * 64, replays.id, KINDS)
    write(store, replays, store.missing(replays))
    return store


@pytest.mark.parametrize("split", SPLITS)
def test_latents_meet_their_own_steps(tmp_path, latents, replays, split):
    played = [make_episode(seed) for seed in SEEDS if split in (None, split_of(seed))]
    for store in (latents, LatentStore.open(tmp_path / "latents")):
        flat = store.flat(replays, split)
        assert len(flat.offsets) == len(played) + 1
        assert len(flat.arrays["mean"]) == flat.offsets[-1] == sum(len(episode.frames) for episode in played)
        for episode, start, stop in zip(played, flat.offsets[:-1], flat.offsets[1:], strict=True):
            for name, array in encode(episode.frames).items():
                np.testing.assert_array_equal(flat.arrays[name][start:stop], array)
            np.testing.assert_array_equal(flat.action[start:stop], [*episode.actions, 0])
            np.testing.assert_array_equal(flat.reward[start:stop], [*episode.rewards, 0])
            np.testing.assert_array_equal(flat.done[start:stop], [*episode.terminated, False])
            np.testing.assert_array_equal(flat.acted[start:stop], [True] * len(episode.rewards) + [False])
    assert {array.dtype for array in flat.arrays.values()} == {flat.reward.dtype} == {np.dtype(np.float32)}
    assert flat.action.dtype == np.int32


def test_continuous_actions(tmp_path):
    replays = ReplayStore.create(tmp_path / "replays", ABOUT)
    episode = make_episode(3, 12, continuous=True)
    replays.append([episode], ["train"])
    latents = LatentStore.create(tmp_path / "latents", "v", replays.id, KINDS)
    write(latents, replays, latents.missing(replays))
    flat = latents.flat(replays, "train")
    np.testing.assert_array_equal(flat.action, np.concatenate([episode.actions, np.zeros((1, 3), np.float32)]))
    assert len(latents.flat(replays, "test").arrays["mean"]) == 0


def test_encoding_goes_on_where_it_stopped(tmp_path, replays, monkeypatch):
    store = LatentStore.create(tmp_path / "latents", "v", replays.id, KINDS)
    assert [shard.name for shard in store.missing(replays)] == ["000000", "000001", "000002"]
    write(store, replays, store.missing(replays)[:1])

    def stop(*_):
        raise KeyboardInterrupt

    # Stopped between the file and the manifest: the file is there but not named, so it is made again.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "write_manifest", stop)
        write(store, replays, store.missing(replays)[:1])
    assert (tmp_path / "latents" / "000001.npz").exists()
    store = LatentStore.open_or_create(tmp_path / "latents", "v", replays.id, KINDS)
    assert [shard.name for shard in store.missing(replays)] == ["000001", "000002"]
    with pytest.raises(UserError, match=r"lacks 2 of 3 shards.*run encode"):
        store.flat(replays)
    write(store, replays, store.missing(replays))
    assert store.missing(replays) == []
    np.testing.assert_array_equal(store.flat(replays).arrays["mean"], encode(replays.frames())["mean"])


def test_growth_and_a_view_of_the_first_episodes(tmp_path, latents, replays):
    before = latents.flat(replays, "train")
    grown = fill(tmp_path / "replays", range(11, 20), shard=4)
    assert [shard.name for shard in latents.missing(grown)] == ["000003", "000004", "000005"]
    view = ReplayStore.open(tmp_path / "replays", episodes=11)
    jax.tree.map(np.testing.assert_array_equal, latents.flat(view, "train"), before)
    fewer = latents.flat(ReplayStore.open(tmp_path / "replays", episodes=6))
    np.testing.assert_array_equal(
        fewer.arrays["mean"], np.concatenate([encode(make_episode(s).frames)["mean"] for s in range(6)])
    )


def test_a_quarantined_shard_takes_its_latents_along(tmp_path, latents, replays):
    replays.quarantine("000001")
    assert latents.missing(replays) == []
    kept = [*range(4), *range(8, 11)]
    np.testing.assert_array_equal(
        latents.flat(replays).arrays["mean"], np.concatenate([encode(make_episode(s).frames)["mean"] for s in kept])
    )
    replays.close()


def test_other_replays_or_another_vae_are_refused(tmp_path, latents, replays):
    other = ReplayStore.create(tmp_path / "other", {**ABOUT, "game": "else"})
    other.append([make_episode(0)], ["train"])
    with pytest.raises(UserError, match=r"was made from replays .*run encode anew"):
        latents.flat(other)
    # The same settings, played again: the identity is the same, the content is not.
    shutil.rmtree(tmp_path / "replays")
    again = fill(tmp_path / "replays", range(30, 41), shard=4)
    assert again.id == replays.id
    with pytest.raises(UserError, match=r"shard 000000 .* is not the one that was encoded"):
        latents.missing(again)
    changes: list[dict[str, Any]] = [{"vae": "w"}, {"replays": "r"}]
    for changed in changes:
        wanted: dict[str, Any] = {"vae": "v" * 64, "replays": replays.id, "kinds": KINDS} | changed
        with pytest.raises(UserError, match=rf"was made with {next(iter(changed))} .*run encode anew"):
            LatentStore.open_or_create(tmp_path / "latents", **wanted)
    others = {"indices": Kind("int32", (2,)), "vectors": Kind("float32", (8,))}
    with pytest.raises(UserError, match=r"log_var float32 \[4\], but V makes indices int32 \[2\]"):
        LatentStore.open_or_create(tmp_path / "latents", "v" * 64, replays.id, others)
    with pytest.raises(UserError, match="holds latents already"):
        LatentStore.create(tmp_path / "latents", "v", replays.id, KINDS)
    with pytest.raises(UserError, match="holds no latents: run encode"):
        LatentStore.open(tmp_path / "nowhere")


def test_wrong_latents_are_refused(latents, replays):
    shard = replays.shards[0]
    good = np.zeros((shard.frames, LATENT), np.float32)
    bad = good.copy()
    bad[1, 2] = np.inf
    for mean, log_var in ((good[1:], good), (good, good.astype(np.float64)), (good, bad), (good, good[:, :2])):
        with pytest.raises(ValueError, match=r"mean|log_var"):
            latents.write(shard, {"mean": mean, "log_var": log_var})
    with pytest.raises(ValueError, match=r"mean float32 \[4\] for \d+ frames, expected mean float32 \[4\], log_var"):
        latents.write(shard, {"mean": good})


def test_latents_of_the_first_format_are_read_and_added_to(tmp_path, replays):
    """They were Gaussians, in files of another kind."""
    store = LatentStore.create(tmp_path / "old", "v", replays.id, KINDS)
    manifest = tmp_path / "old" / "manifest.json"
    content = {key: value for key, value in files.read_manifest(manifest, "").items() if key != "checksum"}
    del content["arrays"]
    files.write_manifest(manifest, {**content, "format": "wm_jax latents 1", "latent": LATENT})
    old = LatentStore.open_or_create(tmp_path / "old", "v", replays.id, KINDS)
    write(old, replays, old.missing(replays))
    shard = replays.shards[1]
    raw = np.load(tmp_path / "old" / f"{shard.name}.npy")
    assert raw.shape == (2, shard.frames, LATENT)
    write(store, replays, store.missing(replays))
    for name, array in store.flat(replays).arrays.items():
        np.testing.assert_array_equal(LatentStore.open(tmp_path / "old").flat(replays).arrays[name], array)


def test_damage_is_refused(tmp_path, latents, replays):
    random = np.random.default_rng(0)
    paths: list[Path] = [tmp_path / "latents" / "000001.npz", tmp_path / "latents" / "manifest.json"]
    for trial in range(20):
        path = paths[trial % 2]
        intact = path.read_bytes()
        broken = bytearray(intact)
        broken[random.integers(len(broken))] ^= 1 << int(random.integers(8))
        path.write_bytes(broken)
        remedy = "run encode, which writes it again" if path == paths[0] else "run encode anew"
        with pytest.raises(UserError, match=rf"{path.name}.*checksum.*{remedy}"):
            LatentStore.open(tmp_path / "latents").flat(replays)
        path.write_bytes(intact)
    os.truncate(paths[0], 100)
    with pytest.raises(UserError, match=r"000001.npz is missing or does not fit"):
        latents.flat(replays)
    paths[0].unlink()
    with pytest.raises(UserError, match=r"000001.npz is missing or does not fit"):
        latents.flat(replays)
