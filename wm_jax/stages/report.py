"""The end of the pipeline: plots, and one self-contained HTML file that shows what came of the run."""

import platform
from pathlib import Path
from typing import Any

import jax

from wm_jax.config import Config
from wm_jax.envs.games import find
from wm_jax.interrupt import Stop
from wm_jax.metrics import read_metrics
from wm_jax.render.plots import loss_curves, score_history
from wm_jax.render.report import Media, Score, StageRow, write_report
from wm_jax.run import Run, made_with, now

TITLES = {
    "replays": "Collect",
    "vae": "V sees",
    "latents": "Encode",
    "memory": "M predicts",
    "controller": "C acts",
    "evaluation": "Evaluate",
}
FACTS = {
    "replays": ("episodes", "train_frames", "mean_return"),
    "vae": ("steps", "test_reconstruction", "test_kl", "active_units"),
    "latents": ("frames",),
    "memory": ("steps", "test_nll"),
    "controller": ("generations", "parameters", "best_score"),
    "evaluation": ("episodes",),
}
"""What the report says of each stage, from its summary."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Write `report.html` into the run's folder; returns the scores and where it is."""
    game = find(config.game, config.env)
    evaluations = {on: run.stage("evaluation").record(f"{on}.json") for on in ("official", "training")}
    headline = evaluations["official"] or evaluations["training"] or {}
    path = write_report(
        run.path / "report.html",
        game=game.title,
        subtitle=f"preset {config.preset}, seed {config.seed}, {now()}",
        score=_score(headline),
        random_score=_score(headline.get("random", {})),
        references={"solved": game.solved} if game.solved is not None else {},
        unit=game.unit,
        stages=[_row(run, name) for name in TITLES],
        scores=[*_history(run, headline, game.unit), *_histograms(run, evaluations)],
        video=_media(
            _first(run.path / "evaluation", "official.mp4", "training.mp4"),
            "One game played by the agent, each frame beside V's reconstruction of it",
        ),
        reconstructions=_media(
            run.path / "vae" / "reconstructions.png",
            "Held-out frames above their reconstructions",
            "Real above decoded.",
        ),
        losses=[curve for name in ("vae", "memory") for curve in _losses(run, name)],
        settings=config.model_dump(),
        provenance={
            "made with": made_with(),
            "machine": {"system": platform.platform(), "devices": ", ".join(map(str, jax.devices()))},
            "weights": {
                name: (run.stage(name).summary() or {}).get("weights") for name in ("vae", "memory", "controller")
            },
        },
    )
    summary: dict[str, Any] = {"report": str(path)}
    for on, result in evaluations.items():
        if result is not None:
            summary |= {f"{on}_mean": result["mean"], f"{on}_std": result["std"], f"{on}_episodes": result["episodes"]}
            summary |= {f"{on}_random_mean": result["random"]["mean"]} if "random" in result else {}
    summary["seconds"] = round(sum((run.stage(name).summary() or {}).get("seconds") or 0 for name in TITLES), 1)
    return summary


def _score(result: dict[str, Any]) -> Score | None:
    if not result:
        return None
    return Score(result["mean"], result["ci_low"], result["ci_high"], result["std"], result["episodes"])


def _row(run: Run, name: str) -> StageRow:
    summary = run.stage(name).summary()
    if summary is None:
        return StageRow(TITLES[name], done=False)
    facts = {key.replace("_", " "): summary[key] for key in FACTS[name] if summary.get(key) is not None}
    return StageRow(TITLES[name], summary.get("seconds"), facts)


def _media(path: Path | None, alt: str, caption: str = "") -> Media | None:
    return Media(path, alt, caption) if path is not None and path.exists() else None


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _losses(run: Run, name: str) -> list[Media]:
    rows = read_metrics(run.path / name / "metrics.jsonl")
    if not rows:
        return []
    path = loss_curves(run.path / name / "losses.png", rows, TITLES[name])
    return [Media(path, f"Losses of {name} over its updates")]


def _history(run: Run, headline: dict[str, Any], unit: str) -> list[Media]:
    rows = read_metrics(run.path / "controller" / "metrics.jsonl")
    if not rows:
        return []
    history = [
        {
            "generation": row["step"],
            "best": row["best"],
            "mean": row["mean"],
            "min": row["worst"],
            "evaluation": row.get("evaluation_mean"),
            "evaluation_error": row.get("evaluation_error"),
        }
        for row in rows
    ]
    random = headline.get("random", {}).get("mean")
    path = score_history(run.path / "controller" / "history.png", history, random, "Scores over the generations", unit)
    return [Media(path, "Scores of the population and of the distribution's mean over the generations")]


def _histograms(run: Run, evaluations: dict[str, Any]) -> list[Media]:
    names = {"official": "the official game", "training": "the game it was trained on"}
    found = []
    for on, result in evaluations.items():
        path = run.path / "evaluation" / f"{on}.png"
        if result is not None and path.exists():
            transfer = " (another renderer than it was trained on)" if result.get("transfer") else ""
            found.append(Media(path, f"Scores of single episodes on {names[on]}", f"On {names[on]}{transfer}."))
    return found
