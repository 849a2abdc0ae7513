"""Where the time goes: the parts of a step of play one by one, and the slowest operations of each program.

Of the parts, XLA says how many operations and bytes they take (a loop's once, however often it goes round); operations
are timed by JAX's profiler.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wm_jax.envs.car_racing import dynamics
from wm_jax.envs.car_racing.game import Tracks
from wm_jax.envs.car_racing.state import CarState
from wm_jax.models.agent import Agent, AgentParams
from wm_jax.tools.benchmark import memory, vae
from wm_jax.tools.benchmark.accelerator.game import driving
from wm_jax.tools.benchmark.accelerator.loop import generation
from wm_jax.tools.benchmark.accelerator.measurement import Figures, Measurement, Setting, on_cpu
from wm_jax.tools.benchmark.case import OURS, Options
from wm_jax.tools.benchmark.driving import MIXES, Mix, actions, cars_of, pictures, tracks
from wm_jax.tools.benchmark.timing import Work, alternate
from wm_jax.utils.sizes import FRAME

SLOTS, POPULATION = 4096, 1024
CALLS = 10
"""Given one after another, so that the time between calls doesn't count."""
SLOWEST = 12
"""Operations that are named of each program."""
STEPS = 10
"""Of the game in a program that is looked at."""


class Operation(NamedTuple):
    """Something that a line of the profile shows.

    begin, end: in nanoseconds.
    """

    name: str
    begin: float
    end: float


def measurements(setting: Setting) -> Iterator[Measurement]:
    """See above."""
    slots = setting.size(64 if on_cpu() else SLOTS, 4)
    for name, make in _parts(setting, slots).items():
        yield Measurement(f"{name}, {slots:,} rows", partial(_part, setting, make, slots))
    for name, make in _programs(setting, slots).items():
        yield Measurement(f"operations of {name}", partial(_operations, make))


Made = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of arrays, and its arguments."""


def _parts(setting: Setting, slots: int) -> dict[str, Callable[[], Made]]:
    """What a step of play consists of, for so many rows."""

    def physics() -> Made:
        params, moves = tracks(setting.small), jnp.asarray(actions(slots, 1)[0])

        def move(params: Tracks, cars: CarState, moves: jax.Array) -> Any:
            return jax.vmap(dynamics.step, (None, 0, 0))(params.bank, cars, moves)

        return move, (params, cars_of(params, slots, "late"), moves)

    def picture(mix: Mix) -> Made:
        params = tracks(setting.small)
        return pictures, (params, cars_of(params, slots, mix))

    agent = cache(partial(_agent, setting))
    return {
        "physics": physics,
        **{f"picture, {mix}": partial(picture, mix) for mix in MIXES},
        **{name: partial(_network, agent, slots, name) for name in ("V", "M", "C")},
    }


def _agent(setting: Setting) -> tuple[Agent, AgentParams]:
    """The paper's, with a population of controllers."""
    return generation(setting, setting.size(64, 4), 8).agent()


def _network(make: Callable[[], tuple[Agent, AgentParams]], slots: int, which: str) -> Made:
    """One of the agent's networks; of C, a population's."""
    agent, params = make()
    assert agent.memory is not None
    graphdef, controller = agent.memory, agent.controller
    if which == "V":
        frames = jnp.asarray(np.resize(vae.game_frames(64), (slots, *FRAME)))
        return agent.see, (params, frames, jax.random.split(jax.random.key(0), slots))
    if which == "M":
        z, moves = jnp.zeros((slots, controller.latent), jnp.float32), jnp.asarray(actions(slots, 1)[0])

        def remember(params: AgentParams, carry: Any, z: jax.Array, moves: jax.Array) -> Any:
            return nnx.merge(graphdef, params.memory).step(carry, z, moves)

        return remember, (params, agent.init(slots).memory, z, moves)
    features = jnp.zeros((slots, controller.n_features), jnp.float32)

    def act(params: AgentParams, candidates: jax.Array, features: jax.Array) -> jax.Array:
        return jax.vmap(controller.apply)(params.controller[candidates], features)

    return act, (params, jnp.arange(slots, dtype=jnp.int32) % params.controller.shape[0], features)


def _part(setting: Setting, make: Callable[[], Made], rows: int) -> Figures:
    """Time, operations and bytes of each row."""
    (function, arguments), calls = make(), setting.size(CALLS, 2)
    program = jax.jit(function).lower(*arguments).compile()
    costs = program.cost_analysis() or {}

    def work() -> None:
        results = [program(*arguments) for _ in range(calls)]
        jax.block_until_ready(results[-1])

    seconds = alternate({"": work}, setting.rounds)[""].median / calls
    flops, moved = costs.get("flops", 0.0), costs.get("bytes accessed", 0.0)
    return {
        "microseconds": 1e6 * seconds,
        "rows a second": rows / seconds,
        "operations of a row": flops / rows,
        "bytes of a row": moved / rows,
        "TFLOP/s": flops / seconds / 1e12,
        "GB/s": moved / seconds / 1e9,
    }


def _programs(setting: Setting, slots: int) -> dict[str, Callable[[], Work]]:
    """What is looked at operation by operation: each made anew, compiled by its first call."""
    options = Options((OURS,), setting.folder, setting.small)

    game = partial(driving, setting, slots, "mixed", setting.size(STEPS, 2))
    return {
        "V's update": lambda: vae.training(options).makers[OURS](),
        "M's update": lambda: memory.training(options).makers[OURS](),
        "the game with pictures": partial(game, frames=True),
        "the game without": partial(game, frames=False),
        "a generation": lambda: generation(setting, setting.size(POPULATION, 4), setting.size(25, 8)).on_device(),
    }


def _operations(make: Callable[[], Work]) -> Figures:
    """The slowest operations of a call."""
    work = make()
    work()
    work()
    times = profiled(work)
    whole = sum(times.values())
    rows = [
        {"operation": name, "microseconds": 1e-3 * time, "share": time / whole}
        for name, time in sorted(times.items(), key=lambda item: -item[1])[:SLOWEST]
    ]
    return {"microseconds": 1e-3 * whole, "different": len(times), "slowest": rows}


def profiled(work: Work) -> dict[str, float]:
    """Nanoseconds that the device spent in each operation during a call, without those of operations inside of it."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work()
        (file,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(file))
    times: dict[str, float] = defaultdict(float)
    for line in _lines(data):
        for name, time in own_times(line).items():
            times[name] += time
    return times


def _lines(data: Any) -> Iterator[list[Operation]]:
    """The rows of the profile that show operations: an accelerator's streams, or the threads of XLA on the CPU."""
    planes = {plane.name: list(plane.lines) for plane in data.planes}
    devices = [line for name, lines in planes.items() if name.startswith("/device:") for line in lines]
    streams = [line for line in devices if line.name.startswith(("Stream", "XLA Ops"))] or devices
    for line in streams:
        yield [_operation(event) for event in line.events]
    for line in () if streams else (line for lines in planes.values() for line in lines):
        # On the CPU other things than XLA's operations are shown, too.
        yield [_operation(event) for event in line.events if _stats(event).get("hlo_op")]


def _operation(event: Any) -> Operation:
    stats = _stats(event)
    within = stats.get("hlo_op")
    name = event.name if within in (None, event.name) else f"{within}: {event.name}"
    return Operation(name, event.start_ns, event.start_ns + event.duration_ns)


def _stats(event: Any) -> dict[str, Any]:
    return {name: value for name, value in event.stats if name is not None}


def own_times(operations: list[Operation]) -> dict[str, float]:
    """Of operations of one line, some of which lie inside of others: nanoseconds of each that no inner one takes."""
    times: dict[str, float] = defaultdict(float)
    around: list[Operation] = []
    for each in sorted(operations, key=lambda operation: (operation.begin, -operation.end)):
        while around and around[-1].end <= each.begin:
            around.pop()
        times[each.name] += each.end - each.begin
        if around:
            times[around[-1].name] -= min(each.end, around[-1].end) - each.begin
        around.append(each)
    return times
