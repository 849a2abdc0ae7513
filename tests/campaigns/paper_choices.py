"""What two choices of the paper's code are worth on CarRacing: z sampled in play, and gas (tanh x + 1) / 2.

    python tests/campaigns/paper_choices.py [--folder DIR] [--preset quick] [--seeds 0 1] [-- SETTINGS]

For each seed, V and M are trained once; on these, agents are evolved equally long that differ in one choice alone, and
each is scored on the same published episodes of the official game. Ends with the two rows of docs/paper.md. The 95 %
interval of a difference is over the episodes, paired, within one seed; how much seeds differ, the seeds show.

Every command goes on from what is there: a campaign that was stopped is started again by the same words. What comes
after `--`, such as `--controller.generations 100`, goes to every command, the same for all agents.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from wm_jax.evaluation.statistics import half_width, statistics

DEFAULT = "default"
CHOICES = {
    DEFAULT: [],
    "z sampled against its mean": ["--controller.sample_latent", "true"],
    "gas functions": ["--controller.gas", "tanh"],
}
"""The agents, and what of their settings differs."""


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("runs") / "paper-choices")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--episodes", type=int, default=100, help="official episodes that score an agent [100]")
    parser.add_argument("settings", nargs="*", help="after --: settings for every command")
    options = parser.parse_args()
    scores: dict[int, dict[str, np.ndarray]] = {}
    for seed in options.seeds:
        words = ["--game", "carracing", "--preset", options.preset, "--seed", str(seed), *options.settings]
        world = options.folder / f"seed-{seed}" / "world"
        wm("train_memory", *words, "--run", str(world))
        scores[seed] = {}
        for place, (choice, setting) in enumerate(CHOICES.items()):
            agent = world.with_name(f"agent-{place}")
            for part in ("vae", "memory"):
                if not (agent / part / "summary.json").exists():
                    shutil.copytree(world / part, agent / part, dirs_exist_ok=True)
            trained = wm("train_controller", *words, *setting, "--run", str(agent))
            count = ["--evaluate.episodes", str(options.episodes), "--evaluate.baseline", "false"]
            wm("evaluate", *words, *setting, *count, "--run", str(agent))
            found = json.loads((agent / "evaluation" / "official.json").read_text())["scores"]
            scores[seed][choice] = np.array(found)
            print(f"seed {seed}, {choice}: {shown(found)}; confirmed {trained['confirmed_score']}", flush=True)
    print("\n".join(rows(scores)))
    return 0


def wm(command: str, *words: str) -> dict[str, Any]:
    """The summary of a command; a failed one ends the campaign, after it has said why."""
    line = [sys.executable, "-m", "wm_jax", command, *words, "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.strip().split("\n")[-1])


def shown(scores: list[float]) -> str:
    """Mean, standard deviation and interval."""
    figures = statistics(np.array(scores))
    return f"{figures['mean']:.1f}, sd {figures['std']:.1f}, 95 % {figures['ci_low']:.1f} to {figures['ci_high']:.1f}"


def rows(scores: dict[int, dict[str, np.ndarray]]) -> list[str]:
    """Rows for docs/paper.md: of each choice, every seed's means and their difference, and the mean difference."""
    lines = []
    for choice in CHOICES:
        if choice == DEFAULT:
            continue
        cells, differences = [], []
        for seed, agents in scores.items():
            paired = agents[choice] - agents[DEFAULT]
            differences.append(paired.mean())
            error = half_width(paired)
            spread = "" if error is None else f" +- {error:.1f}"
            default, other = agents[DEFAULT].mean(), agents[choice].mean()
            cells.append(f"seed {seed}: {default:.1f} to {other:.1f} ({paired.mean():+.1f}{spread})")
        lines.append(f"| {choice} | {'; '.join(cells)} | {np.mean(differences):+.1f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
