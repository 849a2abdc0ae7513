"""check_car_racing: how far our CarRacing is from Gymnasium's, and how fast it is, on this machine.

    bin/check_car_racing --part motion --style racing --seeds 5

Every figure that has a bar is held against it; a figure that misses its bar makes the exit status 1.
"""

import argparse
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from wm_jax.config.layers import load
from wm_jax.distributed.progress import Stopwatch, clock, log
from wm_jax.envs.types import LARGEST_SEED
from wm_jax.run.artifacts import Trained, load_vae
from wm_jax.run.folder import Run
from wm_jax.run.pretrained import AGENTS
from wm_jax.tools.fidelity import parts
from wm_jax.tools.fidelity.figures import Table, judged
from wm_jax.tools.fidelity.parts import Sizes
from wm_jax.tools.fidelity.reference import STYLES
from wm_jax.tools.fidelity.speed import Size
from wm_jax.utils.arguments import Parser
from wm_jax.utils.errors import UsageError
from wm_jax.utils.files import to_json
from wm_jax.utils.process import cores

PARTS = ("motion", "pictures", "seeing", "returns", "speed")
SEEDS, FIRST_SEED, EPISODES = 20, 7000, 100
"""What was tuned while the game was built was tuned on seeds 0..59, 1000..1010 and 5000..5023."""


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for and print it; 1 if a bar is missed."""
    parser = Parser(prog="bin/check_car_racing", description="How far our CarRacing is from Gymnasium's, and how fast.")
    parser.add_argument("--part", action="append", choices=PARTS, help=f"one of {', '.join(PARTS)} [all]")
    parser.add_argument("--style", action="append", choices=STYLES, metavar="NAME",
                        help=f"of driving, in motion and pictures; one of {', '.join(STYLES)} [all]")  # fmt: skip
    parser.add_argument("--seeds", type=int, metavar="N", help=f"tracks of each style [{SEEDS}]")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, metavar="N", help=f"of tracks [{FIRST_SEED}]")
    parser.add_argument("--episodes", type=int, metavar="N", help=f"of each policy, in returns [{EPISODES}]")
    parser.add_argument("--run", metavar="DIR", help="whose V is looked at, in seeing [that of the included agent]")
    parser.add_argument("--sheet", metavar="FILE", help="write the frames that differ most, real and ours (PNG)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, no bars for speed: does it all run here?")
    parser.add_argument("--json", action="store_true", help="print the figures as the last line of standard output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    asked = [part for part in PARTS if part in (options.part or PARTS)]
    _require(options, asked)
    return _run(options, asked, _sizes(options))


def _require(options: argparse.Namespace, asked: Sequence[str]) -> None:
    """Refuse what can't be done, in one sentence."""
    for name in ("seeds", "episodes"):
        if (count := getattr(options, name)) is not None and count < 1:
            raise UsageError(f"--{name} {count}: give 1 or more")
    last = options.first_seed + max(options.seeds or SEEDS, options.episodes or EPISODES) - 1
    if options.first_seed < 0 or last > LARGEST_SEED:
        raise UsageError(f"--first-seed {options.first_seed}: seeds must lie in 0..{LARGEST_SEED}")
    if options.run is not None and "seeing" not in asked:
        raise UsageError("--run: only the part seeing looks at a run; add --part seeing")
    if options.sheet is not None and "pictures" not in asked:
        raise UsageError("--sheet: only the part pictures draws one; add --part pictures")
    if options.sheet is not None and (not options.sheet.strip() or Path(options.sheet).is_dir()):
        raise UsageError(f"--sheet {options.sheet}: give the name of a file")


def _sizes(options: argparse.Namespace) -> Sizes:
    seeds, episodes = options.seeds or SEEDS, options.episodes or EPISODES
    first = options.first_seed
    if not options.small:
        return Sizes(range(first, first + seeds), options.style or STYLES, episodes=episodes)
    return Sizes(
        seeds=range(first, first + (options.seeds or 1)),
        styles=options.style or ("following", "leaving"),
        steps=400,
        laps=1,
        photographs=(0, 10, 30, 60, 100),
        episodes=options.episodes or 3,
        episode_steps=300,
        policies=("following", "on the grass", "blind, held"),
        timed=Size(counts=(4,), pool=4, steps=10, rounds=2),
        judges_speed=False,
    )


def _vae(folder: str | None) -> Trained:
    """V of a run, or the one that comes with the package.

    Raises:
      UserError: there is none.
    """
    path = AGENTS / "carracing" if folder is None else Path(folder).expanduser()
    return load_vae(Run.open(path), load("carracing", "carracing"))


def _run(options: argparse.Namespace, asked: Sequence[str], sizes: Sizes) -> int:
    import jax

    device = jax.devices()[0]
    log(f"{device.device_kind} ({device.platform}), {cores()} cores, jax {jax.__version__}, {platform.machine()}")
    path = Path(options.sheet) if options.sheet else None
    vae = _vae(options.run) if "seeing" in asked else None
    work: dict[str, tuple[str, Callable[[], list[Table]]]] = {
        "motion": ("driving, recording Gymnasium's states", lambda: parts.measure_motion(sizes)),
        "pictures": ("photographing in Gymnasium", lambda: parts.measure_pictures(sizes, path)),
        "seeing": ("looking through V", lambda: [] if vae is None else parts.measure_seeing(sizes, vae)),
        "returns": ("playing episodes on both sides", lambda: parts.measure_returns(sizes)),
        "speed": ("taking turns with Gymnasium and EnvPool", lambda: parts.measure_speed(sizes)),
    }
    tables: list[Table] = []
    for part in asked:
        doing, measure = work[part]
        log(f"== {part}: {doing}")
        watch = Stopwatch()
        found = measure()
        log(f"{part}: {clock(watch.seconds())}\n")
        for table in found:
            print(f"{table}\n", flush=True)
        tables += found
    if path is not None:
        print(f"The frames that differ most: {path}")
    bars, missed = judged(tables)
    print(f"{bars - len(missed)} of {bars} bars are met." if missed else f"All {bars} bars are met.")
    for sentence in missed:
        print(f"  missed: {sentence}")
    if options.json:
        figures = [record for table in tables for record in table.records()]
        machine = {"device": device.device_kind, "cores": cores()}
        print(to_json({**machine, "bars": bars, "missed": missed, "figures": figures}))
    return int(bool(missed))
