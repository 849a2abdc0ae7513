"""The end of the pipeline: plots, and one self-contained HTML file that shows what came of the run."""

import platform
from pathlib import Path
from typing import Any

import jax

from wm_jax.config.schema import Config
from wm_jax.envs.games import find
from wm_jax.evaluation.statistics import is_approximate
from wm_jax.render.plots import loss_curves, score_history
from wm_jax.render.report import Media, Score, StageRow, number, write_report
from wm_jax.run.ancestors import inherit_settings
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.run.metrics import read_metrics
from wm_jax.run.provenance import made_with, now
from wm_jax.run.stage_graph import whole_chain

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
    "vae": ("steps", "test_reconstruction", "test_moving_explained", "test_kl", "active_units"),
    "latents": ("frames",),
    "memory": ("steps", "test_nll"),
    "controller": ("generations", "parameters", "best_score", "confirmed_score"),
    "evaluation": (
        "official_episodes",
        "official_mean",
        "official_error",
        "official_moving_explained",
        "training_episodes",
        "training_mean",
    ),
}
"""What the report says of each stage, from its summary."""


def run(config: Config, run: Run, stop: Stop) -> dict[str, Any]:
    """Write `report.html` into the run's folder; returns the scores and where it is."""
    game = find(config.game, config.env)
    chain = whole_chain(config.controller)
    weights = {name: (run.stage(name).summary() or {}).get("weights") for name in chain}
    evaluations = {on: _evaluation(run, on, weights["controller"]) for on in ("official", "training")}
    headline = evaluations["official"] or evaluations["training"] or {}
    warnings = [warning for name in chain for warning in (run.stage(name).summary() or {}).get("warnings", [])]
    path = write_report(
        run.path / "report.html",
        game=game.title,
        subtitle=f"preset {config.preset}, seed {config.seed}, {now()}",
        score=_score(headline),
        random_score=_score(headline.get("random", {})),
        references={"solved": game.solved} if game.solved is not None else {},
        unit=game.unit,
        stages=[_row(run, name) for name in chain],
        warnings=warnings,
        scores=[*_history(run, headline, game.unit), *_histograms(run, evaluations)],
        video=_media(
            _film(run, weights["controller"]),
            "One game played by the agent, each frame beside V's reconstruction of it",
        ),
        reconstructions=_media(
            run.stage("vae").path / "reconstructions.png" if "vae" in chain else None,
            "Held-out frames above their reconstructions",
            "Real above decoded.",
        ),
        seen=_seen(run, weights["controller"]),
        losses=[curve for name in ("vae", "memory") if name in chain for curve in _losses(run, name)],
        settings=inherit_settings(config, run, "evaluation").model_dump(),
        provenance={
            "made with": made_with(),
            "machine": {"system": platform.platform(), "devices": ", ".join(map(str, jax.devices()))},
            "weights": {name: digest for name, digest in weights.items() if digest is not None},
        },
    )
    summary: dict[str, Any] = {"report": str(path)}
    for on, result in evaluations.items():
        if result is not None:
            summary |= {f"{on}_mean": result["mean"], f"{on}_std": result["std"], f"{on}_episodes": result["episodes"]}
            summary |= {f"{on}_random_mean": result["random"]["mean"]} if "random" in result else {}
    summary["warnings"] = warnings
    summary["seconds"] = round(sum((run.stage(name).summary() or {}).get("seconds") or 0 for name in chain), 1)
    return summary


def _evaluation(run: Run, on: str, weights: str | None) -> dict[str, Any] | None:
    """The score on that game, if it is this agent's."""
    result = run.stage("evaluation").record(f"{on}.json")
    return result if result is not None and result["weights"] == weights else None


def _film(run: Run, weights: str | None) -> Path | None:
    """A video of this agent, on the official game if there is one."""
    for on in ("official", "training"):
        record = run.stage("evaluation").record(f"{on}-film.json")
        if record is not None and record["made"]["weights"] == weights:
            return run.stage("evaluation").path / f"{on}.mp4"
    return None


def _seen(run: Run, weights: str | None) -> list[Media]:
    """What V and M make of this agent's games."""
    found = []
    for on in ("official", "training"):
        record = run.stage("evaluation").record(f"{on}-seen.json")
        if record is None or record["made"]["weights"] != weights:
            continue
        games, folder = f"{record['made']['games']} games of the agent on the {on} game", run.stage("evaluation").path
        curve = _media(folder / f"{on}-seen.png", f"V's error and M's surprise along {games}", f"Along {games}.")
        sheet = _media(folder / f"{on}-worst.png", f"Frames with V's largest errors along {games}")
        found += [media for media in (curve, sheet) if media is not None]
    return found


def _score(result: dict[str, Any]) -> Score | None:
    if not result:
        return None
    # What an earlier version wrote of a single episode has an interval without width.
    several = result["episodes"] > 1
    low, high, std = (result[name] if several else None for name in ("ci_low", "ci_high", "std"))
    return Score(result["mean"], low, high, std, result["episodes"])


def _row(run: Run, name: str) -> StageRow:
    summary = run.stage(name).summary()
    if summary is None:
        return StageRow(TITLES[name], done=False)
    facts = {key.replace("_", " "): summary[key] for key in FACTS[name] if summary.get(key) is not None}
    if "confirmed score" in facts:
        facts["confirmed score"] = _confirmed(summary)
    return StageRow(TITLES[name], summary.get("seconds"), facts)


def _confirmed(summary: dict[str, Any]) -> str:
    """The kept mean's score on episodes that never chose it, with its interval and how much that is to be trusted."""
    score, error, episodes = (summary[f"confirmed_{name}"] for name in ("score", "error", "episodes"))
    if error is None:
        return f"{number(score)}, of one episode"
    approximate = ", approximate" if is_approximate(episodes) else ""
    return f"{number(score)} \N{PLUS-MINUS SIGN} {number(error)} (95 % interval{approximate}; {episodes:,} episodes)"


def _media(path: Path | None, alt: str, caption: str = "") -> Media | None:
    return Media(path, alt, caption) if path is not None and path.exists() else None


def _losses(run: Run, name: str) -> list[Media]:
    rows = read_metrics(run.stage(name).path / "metrics.jsonl")
    if not rows:
        return []
    path = loss_curves(run.stage(name).path / "losses.png", rows, TITLES[name])
    return [Media(path, f"Losses of {name} over its updates")]


def _history(run: Run, headline: dict[str, Any], unit: str) -> list[Media]:
    rows = read_metrics(run.stage("controller").path / "metrics.jsonl")
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
            "dream": row.get("dream_mean"),
            "dream_error": row.get("dream_error"),
        }
        for row in rows
    ]
    random = headline.get("random", {}).get("mean")
    in_dream = any("dream_mean" in row for row in rows)
    title = "Scores in the dream and in the real game" if in_dream else "Scores over the generations"
    path = score_history(run.stage("controller").path / "history.png", history, random, title, unit)
    caption = (
        "The population plays in the dream. Where the mean's score there rises and that in the real game does not, it "
        "has learned to cheat the dream."
    )
    alt = "Scores of the population and of the distribution's mean over the generations"
    return [Media(path, alt, caption if in_dream else "")]


def _histograms(run: Run, evaluations: dict[str, Any]) -> list[Media]:
    names = {"official": "the official game", "training": "the game it was trained on"}
    found = []
    for on, result in evaluations.items():
        path = run.stage("evaluation").path / f"{on}.png"
        if result is not None and path.exists():
            notes = ["which is not quite the one it was trained on"] if result["transfer"] else []
            notes += [f"episodes cut short at {result['episode_steps']:,} steps"] if result["cut_short"] else []
            caption = ", ".join([f"On {names[on]}", *notes]) + "."
            found.append(Media(path, f"Scores of single episodes on {names[on]}", caption))
    return found
