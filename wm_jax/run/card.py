"""The model card of a run, `RUN/MODEL_CARD.md`: what was trained, how, how well it does, and how to use it."""

import json
from collections.abc import Mapping
from typing import Any

from wm_jax.utils import markdown

NAME = "MODEL_CARD.md"
PARTS = {
    "vae": ("V, the auto-encoder", "variant", "steps", "test_reconstruction", "squared error of a held-out frame"),
    "memory": ("M, the memory", "cell", "steps", "test_nll", "nats for each held-out step"),
    "controller": ("C, the controller", "strategy", "generations", "confirmed_score", "on episodes of training"),
}
"""Of each part: a title, the setting that says what it is, what its training counts, its figure and what that is."""

Records = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Of finished stages by their names: `stage.json` and `summary.json`."""


def is_complete(name: str, manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Is there all that a card says of a stage?"""
    if name not in PARTS:
        return bool(summary)
    return {"weights", PARTS[name][2]} <= summary.keys() and name in manifest.get("config", {})


def card(records: Records, folder: str) -> str:
    """The whole card.

    Args:
      folder: of the run, as it is loaded by.
    """
    config = next(manifest["config"] for name in reversed(PARTS) if name in records for manifest in [records[name][0]])
    rows = []
    for name, (title, kind, unit, figure, what) in PARTS.items():
        if name in records:
            manifest, summary = records[name]
            value = summary.get(figure)
            shown = "" if value is None else f"{value:,.4g} ({what})"
            rows.append([title, str(manifest["config"][name].get(kind, "")), f"{summary[unit]:,} {unit}", shown])
            rows[-1].append(f"`{summary['weights'][:12]}`")
    made = next(iter(records.values()))[0].get("made_with", {})
    names = ", ".join(title.split(",")[0] for name, (title, *_) in PARTS.items() if name in records)
    parts = [
        f"# {config['game']}: {names} of a world model",
        "World Models (Ha & Schmidhuber 2018), trained by wm_jax. All settings, and what was made from what, stand in "
        "the `stage.json` of each part; weights are safetensors.",
        markdown.table(["part", "kind", "training", "figure", "weights"], rows).strip(),
        *_score(records),
        f"```python\nimport wm_jax\n\nagent = wm_jax.load({json.dumps(folder)})\n```",
        f"Preset {config['preset']}, seed {config['seed']}. "
        + (f"Made with {', '.join(f'{name} {version}' for name, version in made.items())}." if made else ""),
    ]
    if warnings := [each for _, summary in records.values() for each in summary.get("warnings", [])]:
        parts.append("What is known to be wrong:\n\n" + "\n".join(f"- {warning}" for warning in warnings))
    return "\n\n".join(parts) + "\n"


def _score(records: Records) -> list[str]:
    """A sentence on the official game, if it was played."""
    found = records.get("evaluation", ({}, {}))[1]
    if found.get("official_mean") is None:
        return []
    low, high = found.get("official_ci_low"), found.get("official_ci_high")
    spread = "" if low is None else f", 95 % of the mean {low:,.4g} to {high:,.4g}"
    random = found.get("official_random_mean")
    beside = "" if random is None else f"; the random policy {random:,.4g}"
    short = ", cut short" if found.get("official_cut_short") else ""
    episodes = found["official_episodes"]
    return [
        f"**Score in the official game: {found['official_mean']:,.4g}** over {episodes:,} episodes{short} (seeds "
        f"1,000,000,000 and up{spread}{beside})."
    ]
