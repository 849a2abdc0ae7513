"""Breadth campaign: the smoke preset over many games, each through the real command line.

    python tests/campaigns/games.py [--folder DIR]

The whole pipeline on CarRacing, Enduro, Chaser and Dodgeball; collect and train_vae on the other Procgen games and on
three more Atari games. Ends with a table and exit status 0, or 1 when anything failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wm_jax.envs.names import PROCGEN

PIPELINES = ("carracing", "enduro", "chaser", "dodgeball")
VAES = (*(game for game in PROCGEN if game not in PIPELINES), "breakout", "ms_pacman", "space_invaders")


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=None)
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="wm_jax-games-"))
    failed = 0
    for stage, games in (("pipeline", PIPELINES), ("train_vae", VAES)):
        for game in games:
            words = [sys.executable, "-m", "wm_jax", stage, "--game", game, "--preset", "smoke", "--json"]
            began = time.monotonic()
            done = subprocess.run([*words, "--run", str(folder / game)], capture_output=True, text=True)
            failed += done.returncode != 0
            figures = json.loads(done.stdout.strip().split("\n")[-1]) if done.returncode == 0 else {}
            shown = {key: figures[key] for key in ("official_mean", "test_reconstruction") if key in figures}
            outcome = f"ok {shown}" if done.returncode == 0 else f"FAILED: {done.stderr.strip().splitlines()[-1:]}"
            print(f"{stage:<10} {game:<16} {time.monotonic() - began:6.1f} s  {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
