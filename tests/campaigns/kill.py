"""Fault campaign: kill -9 each stage at random moments, and see that it ends with what an undisturbed run makes.

    python tests/campaigns/kill.py [--kills 20] [--folder DIR] [--game chaser] [--stages train_vae ...]

For every stage: one undisturbed run, then one that is killed `--kills` times and started again each time. The
artifacts must be equal, bit for bit. Ends with a table and exit status 0, or 1 when anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMON = ["--preset", "smoke", "--env.episode_steps", "200", "--collect.episode_steps", "150", "--json"]
STAGES = {
    "collect": ["--collect.episodes", "80", "--collect.slots", "4"],
    "train_vae": ["--vae.steps", "200", "--vae.save_every", "10", "--vae.report_every", "50"],
    "train_memory": ["--memory.steps", "800", "--memory.save_every", "20", "--memory.report_every", "200"],
    "train_controller": ["--controller.generations", "40", "--controller.evaluate_every", "20"],
}
ARTIFACTS = {"collect": "replays", "train_vae": "vae", "train_memory": "memory", "train_controller": "controller"}


def command(stage: str, game: str, run: Path) -> list[str]:
    """The stage's command line."""
    return [sys.executable, "-m", "wm_jax", stage, "--game", game, "--run", str(run), *COMMON, *STAGES[stage]]


def finish(words: list[str]) -> float:
    """Run to the end; returns the seconds it took."""
    began = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nfailed with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.monotonic() - began


def killed_after(words: list[str], seconds: float) -> bool:
    """Start, and kill -9 after so many seconds; False when it had ended by itself."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        sys.exit(f"{' '.join(words)}\nfailed with {process.returncode}:\n{said.decode()[-2000:]}")
    return False


def identity(stage: str, run: Path) -> Any:
    """What the stage made, in a form that is equal only for equal bits."""
    if stage == "collect":
        from wm_jax.data.replay import ReplayStore

        store = ReplayStore.open(run / "replays")
        damages = store.verify()
        about = [[each.seed, each.split, each.score, each.begin, each.steps] for each in store.records]
        return [damages, about, *(store.episode(i).frames.tobytes() for i in range(len(store.records)))]
    return json.loads((run / ARTIFACTS[stage] / "summary.json").read_text())["weights"]


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--game", default="chaser")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="wm_jax-kill-"))
    dice = random.Random(options.seed)
    whole, broken = folder / "whole", folder / "broken"
    failures = 0
    for stage in options.stages:
        seconds = finish(command(stage, options.game, whole))
        # Both start from the same artifacts upstream: the undisturbed ones.
        shutil.copytree(whole, broken, ignore=shutil.ignore_patterns(ARTIFACTS[stage], ".*"), dirs_exist_ok=True)
        kills = resumed = 0
        while kills < options.kills:
            if not killed_after(command(stage, options.game, broken), dice.uniform(0.1, 1.0) * max(seconds, 4.0)):
                # Done before all kills: start over, so that every kill hits a working stage.
                shutil.rmtree(broken / ARTIFACTS[stage])
                resumed += 1
                continue
            kills += 1
        finish(command(stage, options.game, broken))
        equal = identity(stage, whole) == identity(stage, broken)
        failures += not equal
        print(
            f"{stage:<18} {kills} kills, {resumed} complete runs between them, undisturbed {seconds:.0f} s: "
            + ("equal bit for bit" if equal else "DIFFERENT"),
            flush=True,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
