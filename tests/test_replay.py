"""The replay store: bit-exact, whole after any crash, and never silent about damage."""

import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import weakref
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from wm_jax.data import episodes, shards
from wm_jax.data.replay import Episode, ReplayStore
from wm_jax.utils import files
from wm_jax.utils.errors import UserError

ABOUT = {"game": "test", "crop": [0, 12, 0, 0], "hold": 8.0}
FILE_FRAMES = 16  # small, so that a few episodes fill several files


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(shards, "FILE_FRAMES", FILE_FRAMES)


def make_episode(seed: int, steps: int = 0, continuous: bool = False) -> Episode:
    """A smooth picture that drifts, with noise in one corner."""
    random = np.random.default_rng(seed)
    steps = steps or int(random.integers(1, 30))
    ramp = np.arange(64)[:, None] + np.arange(64)[None, :] + 3 * np.arange(steps + 1)[:, None, None]
    frames = np.stack([ramp, 2 * ramp, 255 - ramp], axis=-1).astype(np.uint8)
    frames[:, :8, :8] = random.integers(0, 256, (steps + 1, 8, 8, 3), np.uint8)
    actions = random.random((steps, 3), np.float32) if continuous else random.integers(0, 9, steps).astype(np.int32)
    last = np.arange(steps) == steps - 1
    ended = bool(seed % 2)
    return Episode(frames, actions, random.random(steps, np.float32), last & ended, last & (not ended), seed)


def assert_same(found: Episode, wanted: Episode) -> None:
    for field in fields(Episode):
        a, b = getattr(found, field.name), getattr(wanted, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype


def split_of(seed: int) -> episodes.Split:
    return "test" if seed % 3 == 2 else "train"


def fill(path: Path, seeds: range, shard: int = 5) -> ReplayStore:
    store = ReplayStore.open_or_create(path, ABOUT)
    for start in range(seeds.start, seeds.stop, shard):
        chosen = range(start, min(start + shard, seeds.stop))
        store.append((make_episode(seed) for seed in chosen), [split_of(seed) for seed in chosen])
    store.close()
    return store


def contents(path: Path, seeds: range) -> None:
    """The store holds exactly the episodes of these seeds."""
    store = ReplayStore.open(path)
    assert [record.seed for record in store.records] == list(seeds)
    for i, seed in enumerate(seeds):
        assert_same(store.episode(i), make_episode(seed))


@pytest.mark.parametrize("continuous", [False, True])
def test_episodes_come_back_bit_for_bit(tmp_path, continuous):
    played = [make_episode(seed, continuous=continuous) for seed in range(6)]
    store = ReplayStore.create(tmp_path, ABOUT)
    store.append(played[:4], ["train", "train", "test", "train"])
    store.append(played[4:], ["test", "train"])
    for reader in (store, ReplayStore.open(tmp_path)):
        for i, episode in enumerate(played):
            assert_same(reader.episode(i), episode)
            np.testing.assert_array_equal(reader.steps(i).rewards, episode.rewards)
            assert reader.records[i].score == pytest.approx(float(episode.rewards.sum()), rel=1e-6)
    assert ReplayStore.open(tmp_path).about == ABOUT


def test_splits_bulk_random_and_shard_order_agree(tmp_path):
    store = fill(tmp_path, range(17))
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        wanted = np.concatenate([make_episode(seed).frames for seed in range(17) if split_of(seed) == split])
        bulk = store.frames(split)
        np.testing.assert_array_equal(bulk, wanted)
        places = random.integers(0, len(wanted), 200)
        np.testing.assert_array_equal(store.read(split, places), wanted[places])
        chosen = [seed for seed in range(17) if split_of(seed) == split]
        assert store.count(split) == (len(chosen), len(wanted), len(wanted) - len(chosen))
        with pytest.raises(IndexError):
            store.read(split, np.array([len(wanted)]))
        with pytest.raises(IndexError):
            store.read(split, np.array([-1]))
    everything = np.concatenate([make_episode(seed).frames for seed in range(17)])
    np.testing.assert_array_equal(store.frames(), everything)
    in_blocks = [block for _, found in store.iter_shards(block=7) for block in found]
    assert max(map(len, in_blocks)) == 7
    np.testing.assert_array_equal(np.concatenate(in_blocks), everything)
    only = [(shard.name, sum(map(len, found))) for shard, found in store.iter_shards([store.shards[2].name])]
    assert only == [(store.shards[2].name, store.shards[2].frames)]


def test_frames_of_one_colour_are_stored_and_read(tmp_path):
    # Zarr leaves out chunks equal to the fill value unless told otherwise; here an absent chunk is damage.
    black = replace(make_episode(1, 20), frames=np.zeros((21, 64, 64, 3), np.uint8))
    store = ReplayStore.create(tmp_path, ABOUT)
    store.append([black], ["train"])
    assert_same(ReplayStore.open(tmp_path).episode(0), black)


def test_a_reader_sees_the_store_as_it_was(tmp_path):
    fill(tmp_path, range(7))
    early = ReplayStore.open(tmp_path)
    before = early.frames("train")
    digest = ReplayStore.open(tmp_path, episodes=7).digest
    grown = fill(tmp_path, range(7, 14))
    view = ReplayStore.open(tmp_path, episodes=7)
    assert len(early.records) == len(view.records) == 7 and len(grown.records) == 14
    np.testing.assert_array_equal(view.frames("train"), before)
    np.testing.assert_array_equal(early.frames("train"), before)
    assert view.digest == digest != grown.digest
    assert view.id == grown.id
    inside = ReplayStore.open(tmp_path, episodes=6)  # ends in the middle of a shard
    np.testing.assert_array_equal(inside.frames(), np.concatenate([make_episode(seed).frames for seed in range(6)]))
    with pytest.raises(UserError, match=r"holds 14 of the 15 episodes that are needed.*run collect"):
        ReplayStore.open(tmp_path, episodes=15)
    with pytest.raises(ValueError, match="for reading"):
        view.append([make_episode(0)], ["train"])

    grown.append([make_episode(14)], ["train"], player={"policy": "imported"})
    with pytest.raises(UserError, match=r"holds 15 of the 16 episodes that are needed: recordings were imported"):
        ReplayStore.open(tmp_path, episodes=16)


def test_a_store_that_nobody_closed_lets_go_of_its_lock(tmp_path):
    """At once, not when the garbage is collected."""
    gc.disable()
    try:
        store = ReplayStore.create(tmp_path, ABOUT)
        store.append([make_episode(0)], ["train"])
        assert store.steps(0).rewards.size
        del store
        ReplayStore.open(tmp_path).append([make_episode(1)], ["test"])
    finally:
        gc.enable()


CRASH = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_replay as t
from wm_jax.utils import files
from wm_jax.data import episodes, shards
from wm_jax.data.replay import ReplayStore

shards.FILE_FRAMES = t.FILE_FRAMES
def die(*_, **__): os._exit(9)
def after(function):
    def call(*args, **kwargs):
        function(*args, **kwargs)
        die()
    return call

point = sys.argv[3]
if point == "in an episode": shards.FrameWriter._flush = after(shards.FrameWriter._flush)
if point == "before the rename": episodes.ShardWriter.finish = die
if point == "after the rename": ReplayStore._name = die
if point == "manifest half written":
    def half(path, content):
        path.with_name(path.name + ".tmp").write_bytes(content[: len(content) // 2])
        die()
    files.write_atomically = half
if point == "after the manifest": ReplayStore._name = after(ReplayStore._name)
t.fill(Path(sys.argv[2]), range(5, 10))
"""


@pytest.mark.parametrize(
    "point",
    ["in an episode", "before the rename", "after the rename", "manifest half written", "after the manifest"],
)
def test_a_crash_leaves_the_store_whole(tmp_path, point):
    fill(tmp_path, range(5))
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    died = subprocess.run([sys.executable, "-c", CRASH, str(here), str(tmp_path), point], env=environment, check=False)
    assert died.returncode == 9
    kept = range(10) if point == "after the manifest" else range(5)
    contents(tmp_path, kept)
    fill(tmp_path, range(kept.stop, 15))
    contents(tmp_path, range(15))
    assert {folder.name for folder in (tmp_path / "shards").iterdir()} == {
        shard.name for shard in ReplayStore.open(tmp_path).shards
    }
    assert ReplayStore.open(tmp_path).verify() == []


def test_an_error_while_adding_leaves_nothing(tmp_path):
    store = fill(tmp_path, range(5))
    with pytest.raises(KeyboardInterrupt), store.new_shard() as shard:
        shard.add(make_episode(5, 40), "train")
        raise KeyboardInterrupt
    with store.new_shard():
        pass  # no episodes: no shard
    assert len(list((tmp_path / "shards").iterdir())) == 1
    contents(tmp_path, range(5))


def all_files(path: Path) -> list[Path]:
    return sorted(file for file in (path / "shards").rglob("*") if file.is_file())


def read_everything(path: Path) -> None:
    store = ReplayStore.open(path)
    store.frames()
    for i in range(len(store.records)):
        store.steps(i)


def test_flipped_bytes_are_found_and_refused(tmp_path):
    fill(tmp_path, range(8), shard=4)
    random = np.random.default_rng(0)
    kinds = [file for file in all_files(tmp_path) if "000001" in str(file)]
    assert {file.name for file in kinds} >= {"zarr.json", "steps.npz", "0.0.0.0"}
    for trial in range(24):
        file = kinds[trial % len(kinds)]
        intact = file.read_bytes()
        broken = bytearray(intact)
        broken[random.integers(len(broken))] ^= 1 << int(random.integers(8))
        file.write_bytes(broken)
        with pytest.raises(UserError, match=r"shard 000001 .*damaged.*run collect verify"):
            read_everything(tmp_path)
        found = ReplayStore.open(tmp_path, check=False).verify()
        assert [(damage.shard, tmp_path / "shards" / damage.shard / damage.file) for damage in found] == [
            ("000001", file)
        ]
        file.write_bytes(intact)
    read_everything(tmp_path)


def test_random_reads_refuse_a_flipped_byte(tmp_path):
    fill(tmp_path, range(8), shard=4)
    frames = next(file for file in all_files(tmp_path) if file.name == "0.0.0.0" and "000000" in str(file))
    broken = bytearray(frames.read_bytes())
    broken[10] ^= 1
    frames.write_bytes(broken)
    store = ReplayStore.open(tmp_path)
    damaged_by = []
    for place in range(store.count().frames):
        try:
            store.read(None, np.array([place]))
        except UserError as error:
            assert "shard 000000" in str(error)
            damaged_by.append(place)
    assert len(damaged_by) == 1


@pytest.mark.parametrize("kind", ["0.0.0.0", "zarr.json", "steps.npz"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_missing_and_truncated_files(tmp_path, kind, how):
    fill(tmp_path, range(8), shard=4)
    reader = ReplayStore.open(tmp_path)
    warm = ReplayStore.open(tmp_path)
    wanted = warm.frames()
    file = next(file for file in all_files(tmp_path) if file.name == kind and "000001" in str(file))
    if how == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)
    expected = r"shard 000001 .*damaged.*run collect verify"
    with pytest.raises(UserError, match=expected):
        ReplayStore.open(tmp_path)
    # A reader that opened the store before is refused too: zarr's zeros for missing files never come through.
    with pytest.raises(UserError, match=expected):
        reader.frames()
        [reader.steps(i) for i in range(8)]
    # One that has read everything may go on with what it has in memory, if that is right.
    with contextlib.suppress(UserError):
        np.testing.assert_array_equal(warm.frames(), wanted)
    assert [damage.file for damage in ReplayStore.open(tmp_path, check=False).verify()] == [
        str(file.relative_to(tmp_path / "shards" / "000001"))
    ]


def test_quarantine_sets_a_shard_aside_and_collection_refills(tmp_path):
    fill(tmp_path, range(12), shard=4)
    shutil.rmtree(tmp_path / "shards" / "000001" / "frames")
    store = ReplayStore.open(tmp_path, check=False)
    assert store.quarantine("000001") == tmp_path / "damaged" / "000001"
    store.close()
    assert (tmp_path / "damaged" / "000001" / "steps.npz").exists()
    store = ReplayStore.open(tmp_path)
    assert [record.seed for record in store.records] == [0, 1, 2, 3, 8, 9, 10, 11]
    fill(tmp_path, range(20, 24), shard=4)
    store = ReplayStore.open(tmp_path)
    assert [shard.name for shard in store.shards] == ["000000", "000002", "000003"]
    for i, seed in enumerate([0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23]):
        assert_same(store.episode(i), make_episode(seed))
    with pytest.raises(UserError, match="no shard 000001"):
        store.quarantine("000001")
    store.close()


def test_what_is_played_again_comes_back_to_where_it_was(tmp_path):
    fill(tmp_path, range(12), shard=4)
    before = ReplayStore.open(tmp_path)
    wanted: dict[episodes.Split | None, np.ndarray] = {split: before.frames(split) for split in ("train", "test", None)}
    store = ReplayStore.open(tmp_path)
    for name in ("000000", "000001"):
        store.quarantine(name)
    assert [lost.number for lost in store.lost] == list(range(8))
    with pytest.raises(UserError, match="holds 0 of the 6 episodes"):
        ReplayStore.open(tmp_path, episodes=6)
    # In other shards than before, out of order, after new ones.
    store.append([make_episode(12)], [split_of(12)])
    for numbers in ((5, 6, 7, 0), (1, 2), (4, 3)):
        store.append((make_episode(i) for i in numbers), map(split_of, numbers), numbers, {"policy": "held"})
    store.close()
    contents(tmp_path, range(13))
    after = ReplayStore.open(tmp_path, episodes=12)
    assert after.digest == before.digest and after.lost == ()
    for split, frames in wanted.items():
        np.testing.assert_array_equal(after.frames(split), frames)
        places = np.random.default_rng(0).integers(0, len(frames), 100)
        np.testing.assert_array_equal(after.read(split, places), frames[places])
    for count in range(1, 13):
        view = ReplayStore.open(tmp_path, episodes=count)
        np.testing.assert_array_equal(view.frames(), np.concatenate([make_episode(i).frames for i in range(count)]))
        np.testing.assert_array_equal(view.steps(count - 1).rewards, make_episode(count - 1).rewards)


def test_who_played_lost_episodes_is_remembered(tmp_path):
    store = fill(tmp_path, range(4))
    store.append([make_episode(4)], ["train"], player={"policy": "agent"})
    store.quarantine("000001")
    store.close()
    assert [(lost.number, lost.player) for lost in ReplayStore.open(tmp_path).lost] == [(4, {"policy": "agent"})]
    store = fill(tmp_path, range(5, 6))  # a new one takes no lost one's place
    assert [record.number for record in store.records] == [0, 1, 2, 3, 5]
    store.append([make_episode(4)], ["train"], [4])
    store.close()
    assert ReplayStore.open(tmp_path).lost == ()


def test_a_damaged_manifest_is_one_clear_error(tmp_path):
    fill(tmp_path, range(3))
    manifest = tmp_path / "manifest.json"
    intact = manifest.read_bytes()
    random = np.random.default_rng(1)
    broken = [intact[:cut] for cut in (0, 1, len(intact) // 2, len(intact) - 1)] + [b"[]", b"{}", b"\xff\xfe"]
    for _ in range(30):
        flipped = bytearray(intact)
        flipped[random.integers(len(intact))] ^= 1 << int(random.integers(8))
        broken.append(bytes(flipped))
    for content in broken:
        manifest.write_bytes(content)
        with pytest.raises(UserError, match=r"manifest.json is damaged.*run collect anew"):
            ReplayStore.open(tmp_path)
    manifest.unlink()
    with pytest.raises(UserError, match=r"holds no replays: run collect"):
        ReplayStore.open(tmp_path)


def test_only_one_writer(tmp_path):
    first = ReplayStore.create(tmp_path, ABOUT)
    second = ReplayStore.open(tmp_path)
    first.append([make_episode(0)], ["train"])
    for write in (lambda: second.append([make_episode(1)], ["train"]), lambda: second.quarantine("000000")):
        with pytest.raises(UserError, match=rf"is being written by process {os.getpid()}: wait"):
            write()
    first.close()
    second.append([make_episode(1)], ["train"])  # opened before the first wrote: sees it now
    second.close()
    contents(tmp_path, range(2))


def test_reading_while_another_writes(tmp_path):
    fill(tmp_path, range(6))
    store = ReplayStore.open(tmp_path)
    wanted = store.frames()
    writer = threading.Thread(target=fill, args=(tmp_path, range(6, 30)))
    writer.start()
    while writer.is_alive():
        np.testing.assert_array_equal(store.frames(), wanted)
        assert len(ReplayStore.open(tmp_path).records) >= 6
    writer.join()
    contents(tmp_path, range(30))


def test_wrong_episodes_are_refused(tmp_path):
    store = ReplayStore.create(tmp_path, ABOUT)
    good = make_episode(1, 10)
    wrong = {
        "frames": replace(good, frames=good.frames[:-1]),
        "frames: float32": replace(good, frames=good.frames.astype(np.float32)),
        "rewards: float64": replace(good, rewards=good.rewards.astype(np.float64)),
        "terminated": replace(good, terminated=good.terminated[1:]),
        "actions: int64": replace(good, actions=good.actions.astype(np.int64)),
        "actions": replace(good, actions=good.actions[:-1]),
        "not finite": replace(good, rewards=np.full(10, np.nan, np.float32)),
    }
    for message, episode in wrong.items():
        with pytest.raises(ValueError, match=message):
            store.append([episode], ["train"])
    with pytest.raises(ValueError, match="split 'valid'"):
        store.append([good], ["valid"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="shorter"):
        store.append([good, good], ["train"])
    store.append([good], ["train"])
    with pytest.raises(ValueError, match=re.escape("the store holds ['int32', []]")):
        store.append([make_episode(2, continuous=True)], ["train"])
    assert len(ReplayStore.open(tmp_path).records) == 1
    with pytest.raises(UserError, match="holds replays already"):
        ReplayStore.create(tmp_path, ABOUT)


def test_smooth_frames_are_compressed(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FILE_FRAMES", 2048)
    store = ReplayStore.create(tmp_path, ABOUT)
    store.append([make_episode(seed, 200) for seed in range(3)], ["train", "train", "train"])
    stored = sum(file.stat().st_size for file in all_files(tmp_path))
    assert stored < 0.2 * store.frames().nbytes


def test_appending_does_not_hold_on_to_episodes(tmp_path):
    alive: set[int] = set()
    most = 0

    def drawn():
        nonlocal most
        for seed in range(40):
            episode = make_episode(seed, 20)
            alive.add(seed)
            weakref.finalize(episode.frames, alive.discard, seed)
            most = max(most, len(alive))
            yield episode

    ReplayStore.create(tmp_path, ABOUT).append(drawn(), map(split_of, range(40)))
    assert most <= 2  # the one being written and the one being made


def test_identity_does_not_depend_on_key_order(tmp_path):
    a = ReplayStore.create(tmp_path / "a", ABOUT)
    b = ReplayStore.create(tmp_path / "b", dict(reversed(ABOUT.items())))
    c = ReplayStore.create(tmp_path / "c", {**ABOUT, "hold": 9.0})
    assert a.id == b.id != c.id
    assert files.identity(ABOUT) == a.id
