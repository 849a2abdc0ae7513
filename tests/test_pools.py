"""One contract suite over every family and backend, then what only one of them can get wrong."""

import warnings

import numpy as np
import pytest

from wm_jax.config.schema import EnvConfig
from wm_jax.envs import games, names
from wm_jax.envs.host import qt
from wm_jax.envs.host.pool import EpisodePool
from wm_jax.envs.host.resize import shrink
from wm_jax.envs.make import open_pool
from wm_jax.envs.spaces import Continuous
from wm_jax.envs.types import Game, Step
from wm_jax.utils.errors import UserError

LIMIT = 5
SEEDS = (7, 8, 7)
PROBE = "gymnasium:probe_games:Probe-v0"


def find(name: str, **settings) -> Game:
    return games.find(name, EnvConfig.model_validate(settings))


def opened(game: Game, slots: int, **options) -> EpisodePool:
    pool = open_pool(game, slots, **options)
    assert isinstance(pool, EpisodePool)
    return pool


def table(game: Game, steps: int, slots: int, seed: int = 0) -> np.ndarray:
    """Random actions [steps, slots] or [steps, slots, A]; slots 0 and 2 get the same ones."""
    rng = np.random.default_rng(seed)
    if isinstance(game.actions, Continuous):
        low, high = np.array(game.actions.low), np.array(game.actions.high)
        actions = rng.uniform(low, high, (steps, slots, game.actions.size)).astype(np.float32)
    else:
        # The probe's last action makes it fail on purpose.
        actions = rng.integers(0, 2 if game.name == PROBE else game.actions.size, (steps, slots))
    if slots > 2:
        actions[:, 2] = actions[:, 0]
    return actions


def play(pool: EpisodePool, seeds, actions) -> tuple[np.ndarray, list[Step]]:
    return pool.reset(seeds), [pool.step(row) for row in actions]


def play_async(pool: EpisodePool, seeds, actions) -> dict[int, list[tuple]]:
    """Every slot's answers, with the slots sent one by one as they come back."""
    pool.reset(seeds)
    answers: dict[int, list[tuple]] = {slot: [] for slot in range(len(seeds))}
    for slot in reversed(range(len(seeds))):
        pool.send([slot], actions[0, [slot]])
    flying = set(answers)
    while flying:
        step = pool.recv()
        assert 1 <= len(step.ids) <= max(8, (len(flying) + 1) // 2)
        for slot, *answer in zip(*step[:5], strict=True):
            answers[slot].append(tuple(answer))
            if answer[2] or answer[3]:
                flying.remove(slot)
            else:
                pool.send([slot], actions[len(answers[slot]), [slot]])
    return answers


def assert_same(one: Step, other: Step) -> None:
    for mine, yours in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, yours)


CASES = [
    ("carracing", "device"),
    ("carracing", "envpool"),
    ("carracing", "gymnasium"),
    ("enduro", "envpool"),
    ("enduro", "gymnasium"),
    ("chaser", "envpool"),
    ("dodgeball", "envpool"),
    (PROBE, "envpool"),
]


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def pool(request):
    name, backend = request.param
    pool = opened(find(name, backend=backend, episode_steps=LIMIT), len(SEEDS), workers=2)
    yield pool
    pool.close()


def test_contract(pool):
    """Shapes, seeds, limit, silence after the end, and asynchronous play, in few resets because some cost much."""
    game, actions = pool.game, table(pool.game, LIMIT, len(SEEDS))
    first, steps = play(pool, SEEDS, actions)

    assert first.shape == (3, 64, 64, 3) and first.dtype == np.uint8
    for step in steps:
        np.testing.assert_array_equal(step.ids, [0, 1, 2])
        assert step.frames.shape == (3, 64, 64, 3)
        kinds = [field.dtype for field in step]
        assert kinds == [np.int32, np.uint8, np.float32, *3 * [np.bool_]]

    # The same seed and actions are the same episode, whatever the slot.
    np.testing.assert_array_equal(first[0], first[2])
    for step in steps:
        for field in step[1:]:
            np.testing.assert_array_equal(field[0], field[2])
    if game.name != "enduro":  # whose seeds are only in its sticky actions, which show later
        assert (steps[-1].frames[0] != steps[-1].frames[1]).any()
    assert (steps[-1].frames[0] != first[0]).any()

    # One episode each, no longer than the limit; only the probe tells when it should end by itself.
    died = np.stack([step.terminated for step in steps])
    by_itself = [4, 5, 4] if game.name == PROBE else np.where(died.any(0), died.argmax(0) + 1, LIMIT + 1)
    for number, step in enumerate(steps, 1):
        np.testing.assert_array_equal(step.terminated, [end <= number for end in by_itself])
        np.testing.assert_array_equal(step.truncated, [number == LIMIT < end for end in by_itself])

    # Ended slots are silent: they repeat themselves in `step`, and can't be sent to.
    again = pool.step(actions[0])
    assert_same(again, steps[-1]._replace(reward=np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match="slot 1 has ended"):
        pool.send([1], actions[0, [1]])
    with pytest.raises(ValueError, match="send first"):
        pool.recv()

    answers = play_async(pool, SEEDS, actions)
    for slot, got in answers.items():
        assert len(got) == min(LIMIT, by_itself[slot])
        for step, (frame, reward, terminated, truncated) in zip(steps, got, strict=False):
            np.testing.assert_array_equal(frame, step.frames[slot])
            assert (reward, terminated, truncated) == (step.reward[slot], step.terminated[slot], step.truncated[slot])


def test_another_pool_plays_the_same_episode(pool):
    game, actions = pool.game, table(pool.game, 3, len(SEEDS))
    first, steps = play(pool, SEEDS, actions)
    other = opened(game, 1)
    try:
        first_alone, alone = play(other, SEEDS[1:2], actions[:, 1:2])
    finally:
        other.close()
    np.testing.assert_array_equal(first[1], first_alone[0])
    for step, single in zip(steps, alone, strict=True):
        for field, one in zip(step[1:], single[1:], strict=True):
            np.testing.assert_array_equal(field[1], one[0])


def test_broken_actions_are_refused(pool):
    actions = table(pool.game, 1, len(SEEDS))[0]
    pool.reset(SEEDS)
    for poison in (np.nan, np.inf):
        broken = actions.astype(np.float32)
        broken[1] = poison
        with pytest.raises(UserError, match="not finite"):
            pool.send([0, 1, 2], broken)
    wrong = actions[:, :1] if isinstance(pool.game.actions, Continuous) else np.full(3, pool.game.actions.size)
    with pytest.raises(ValueError, match="actions"):
        pool.send([0, 1, 2], wrong)
    # Nothing was sent by any of these.
    assert len(pool.step(actions).ids) == 3


def test_misuse_raises_instead_of_hanging(pool):
    pool.reset(SEEDS[:2])
    actions = table(pool.game, 1, 2)[0]
    pool.send([1], actions[1:])
    with pytest.raises(ValueError, match="slot 1 still owes a step"):
        pool.send([1], actions[1:])
    np.testing.assert_array_equal(pool.recv().ids, [1])
    for slots in ([2], [-1], [0, 0]):
        with pytest.raises(ValueError, match="slots must be distinct"):
            pool.send(slots, actions[: len(slots)])
    for seeds in ([], [1, 2, 3, 4], [-1], [2**31]):
        with pytest.raises(ValueError, match="seeds"):
            pool.reset(seeds)


def test_reset_forgets_what_was_in_flight(pool):
    actions = table(pool.game, 2, len(SEEDS))
    _, expected = play(pool, SEEDS, actions)
    pool.reset(SEEDS[::-1])
    pool.send([0, 1, 2], actions[0])
    _, steps = play(pool, SEEDS, actions)
    for step, good in zip(steps, expected, strict=True):
        assert_same(step, good)


# EnvPool: fillers, the hidden reset, levels


def test_procgen_to_the_end_equals_envpool_alone():
    """The reference is EnvPool stepped all at once; its answers up to every slot's first end are what we must see."""
    slots, limit = 24, 60
    game = find("chaser", episode_steps=limit)
    actions = table(game, limit, slots)
    qt.preload()
    import envpool

    raw = envpool.make(
        "ChaserEasy-v0",
        env_type="gymnasium",
        num_envs=slots,
        seed=list(range(slots)),
        num_levels=200,
        channel_first=False,
        max_episode_steps=10**6,
    )
    raw.reset()
    reference: dict[int, list] = {slot: [] for slot in range(slots)}
    running = set(range(slots))
    for row in actions:
        frames, reward, terminated, *_ = raw.step(row.astype(np.int32))
        for slot in sorted(running):
            reference[slot].append((frames[slot].copy(), reward[slot], terminated[slot]))
            if terminated[slot]:
                running.remove(slot)
    raw.close()
    assert 3 < len(running) < slots - 3, "the test needs both kinds of end"

    pool = opened(game, slots)
    answers = play_async(pool, range(slots), actions)
    pool.close()
    for slot, expected in reference.items():
        assert len(answers[slot]) == len(expected)
        for (frame, reward, terminated, _), good in zip(answers[slot], expected, strict=True):
            np.testing.assert_array_equal(frame, good[0])
            assert (reward, terminated) == good[1:]
        assert answers[slot][-1][3] == (slot in running)


def first_frames(game: Game, count: int, **options) -> set[bytes]:
    pool = opened(game, count, **options)
    frames = pool.reset(range(count))
    pool.close()
    return {frame.tobytes() for frame in frames}


def test_procgen_levels():
    three = first_frames(find("chaser", levels=3, first_level=10), 64)
    assert len(three) == 3
    single = [first_frames(find("chaser", levels=1, first_level=level), 4) for level in (10, 11, 12)]
    assert set.union(*single) == three

    training = first_frames(find("chaser", levels=50), 64)
    unseen = first_frames(find("chaser", levels=50), 64, official=True)
    assert len(unseen) == 64 and not unseen & training
    # The first test level is the one that was asked for.
    (level,) = first_frames(find("chaser", levels=1, first_level=10), 1)
    assert level not in first_frames(find("chaser", test_first_level=200), 64, official=True)
    assert first_frames(find("chaser", difficulty="hard"), 8).isdisjoint(first_frames(find("chaser"), 8))


@pytest.mark.parametrize("name", names.PROCGEN)
def test_procgen_keys_that_matter(name):
    """The same levels played with each key and without: the kept keys differ from noop and from one another."""
    slots, moves, presses = 6, table(find(name), 24, 1)[:, 0] % 9, 3
    game = find(name, actions=("all",))
    pool = opened(game, slots)

    def played(key: int) -> bytes:
        pool.reset(range(slots))
        for move in moves:
            pool.step(np.full(slots, move))
        frames = [pool.step(np.full(slots, key if i < presses else 4)).frames for i in range(2 * presses)]
        return np.stack(frames).tobytes()

    noop, *keys = [played(key) for key in (4, *range(9, 15))]
    pool.close()
    kept = find(name).actions.size - 9
    assert len({noop, *keys[:kept]}) == 1 + kept
    assert set(keys[kept:]) <= {noop, *keys[:1]}


def test_envpool_counts_atari_actions_as_ale_does():
    """Every action held for a while; EnvPool shows, pixel by pixel, the brighter of ALE's last two frames."""
    from ale_py import Action, ALEInterface, LoggerMode, roms

    game = find("enduro", sticky=0.0)
    count, steps = game.actions.size, 12
    pool = opened(game, count)
    first, answers = play(pool, [0] * count, [np.arange(count)] * steps)
    pool.close()
    assert len({frame.tobytes() for frame in answers[-1].frames}) > 5
    ALEInterface.setLoggerMode(LoggerMode.Error)
    emulator = ALEInterface()
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(str(roms.get_rom_path("enduro")))
    for number, action in enumerate(emulator.getMinimalActionSet()):
        emulator.reset_game()
        emulator.act(Action.NOOP)  # EnvPool begins every episode with one, even when told not to
        np.testing.assert_array_equal(first[number], shrink(emulator.getScreenRGB()[None], game.crop)[0])
        for _ in range(steps):
            screens = []
            for _ in range(4):
                emulator.act(action)
                screens.append(emulator.getScreenRGB())
        seen = shrink(np.maximum(screens[-1], screens[-2])[None], game.crop)[0]
        np.testing.assert_array_equal(answers[-1].frames[number], seen)


# Gymnasium: the official games, known answers, and workers that fail


@pytest.mark.parametrize(
    ("name", "official", "steps"), [("carracing", "CarRacing-v3", 12), ("enduro", "ALE/Enduro-v5", 60)]
)
def test_official_games_are_gymnasiums_own(name, official, steps):
    # Settings that change the game are for training only.
    game = find(name, **({"sticky": 0.0, "frame_skip": 2} if name == "enduro" else {}))
    actions = table(game, steps, 2)
    actions[:, 1] = actions[:, 0]
    pool = opened(game, 2, official=True)
    first, answers = play(pool, [3, 4], actions)
    pool.close()
    assert (answers[-1].frames[0] != answers[-1].frames[1]).any(), "the seed must matter"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ale_py
        import gymnasium

        gymnasium.register_envs(ale_py)
        env = gymnasium.make(official)
        screen, _ = env.reset(seed=3)
        np.testing.assert_array_equal(first[0], shrink(screen[None], game.crop)[0])
        for action, step in zip(actions, answers, strict=True):
            screen, reward, terminated, truncated, _ = env.step(action[0])
            np.testing.assert_array_equal(step.frames[0], shrink(screen[None], game.crop)[0])
            assert step.reward[0] == np.float32(reward)
            assert (step.terminated[0], step.truncated[0]) == (terminated, truncated)
        env.close()


def test_probe_gives_its_known_answers():
    pool = opened(find(PROBE, episode_steps=100), 5, workers=2)
    seeds = [10, 11, 12, 13, 14]
    first, steps = play(pool, seeds, np.ones((6, 5), int))
    pool.close()
    np.testing.assert_array_equal(first[:, 0, 0], [(0, seed, 0) for seed in seeds])  # steps, seed, no JAX there
    for number, step in enumerate(steps, 1):
        lived = np.minimum(number, [2, 3, 4, 5, 6])
        np.testing.assert_array_equal(step.frames[:, 0, 0], [(n, s, 0) for n, s in zip(lived, seeds, strict=True)])
        np.testing.assert_array_equal(step.frames[:, 1, 0, 0], 2)  # position 1 is the game's action 2
        np.testing.assert_array_equal(step.reward, np.where(lived == number, np.array(seeds) + number, 0))
        np.testing.assert_array_equal(step.terminated, np.array([2, 3, 4, 5, 6]) <= number)
        assert not step.truncated.any()


def test_a_restarted_slot_plays_another_episode_beside_the_others():
    pool = opened(find(PROBE, episode_steps=4), 2, workers=2)
    assert pool.restarts
    pool.reset([10, 14])  # of 2 and 6 steps
    for _ in range(2):
        last = pool.step([0, 0])
    np.testing.assert_array_equal(last.terminated, [True, False])
    pool.restart([0], [14])
    with pytest.raises(ValueError, match="slot 0 still owes a step"):
        pool.send([0], [0])
    begun = pool.recv()
    assert begun.ids == [0] and begun.reward == 0 and not begun.terminated and not begun.truncated
    np.testing.assert_array_equal(begun.frames[0, 0, 0], (0, 14, 0))  # no steps, the new seed
    # Its limit counts from its own beginning.
    ends = []
    while pool._running.any():
        ends.append(pool.step([0, 0]).truncated.tolist())
    assert ends == [[False, False], [False, True], [False, True], [True, True]]
    # One that is given up may restart as well.
    pool.reset([10, 11])
    pool.restart([1], [12])
    assert pool.recv().frames[0, 0, 0, 1] == 12
    with pytest.raises(ValueError, match="slots must be distinct"):
        pool.restart([0, 0], [1, 2])
    with pytest.raises(ValueError, match="seeds must lie in"):
        pool.restart([0], [-1])
    with pytest.raises(ValueError, match="2 seeds for 1 slots"):
        pool.restart([0], [1, 2])
    pool.close()


def test_envpools_slots_do_not_restart():
    pool = opened(find("chaser"), 2)
    pool.reset([1, 2])
    assert not pool.restarts
    with pytest.raises(ValueError, match="can't restart"):
        pool.restart([0], [3])
    pool.close()


def test_a_failing_game_is_one_clear_error():
    pool = opened(find(PROBE), 2, workers=2)
    pool.reset([0, 1])
    with pytest.raises(UserError, match=r"Probe-v0: the environment of seed 1 raised RuntimeError: boom in step"):
        pool.step([0, 2])
    pool.close()


def test_a_game_that_failed_before_the_next_order_is_named_too():
    pool = opened(find(PROBE), 2, workers=2)
    pool.reset([0, 1])
    pool.send([1], [2])
    process = pool._engine._workers[1].process  # pyright: ignore[reportAttributeAccessIssue]
    process.wait()
    pool._engine.send(np.array([1], np.int32), np.array([1]))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"Probe-v0: the environment of seed 1 raised RuntimeError: boom in step"):
        pool.recv()
    pool.close()


def test_workers_import_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "random.py").write_text("raise RuntimeError('the wrong module')")
    monkeypatch.chdir(tmp_path)
    pool = opened(find(PROBE), 1, workers=1)
    assert pool.reset([7])[0, 0, 0, 1] == 7
    pool.close()


def test_cars_begin_anywhere_if_asked_to():
    game = find("carracing", backend="device", episode_steps=LIMIT)
    line, anywhere, again = (open_pool(game, 3, random_start=flag) for flag in (False, True, True))
    at_line, first, second = (pool.reset((7, 8, 7)) for pool in (line, anywhere, again))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0], first[2])
    assert all((first[i] != at_line[i]).any() for i in range(3))
    for pool in (line, anywhere, again):
        pool.close()
