"""One contender from its first update to its figures: V within the budget, M on its latents, and for some a C."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from wm_jax import stages
from wm_jax.config.schema import Config
from wm_jax.config.vaes import BetaConfig
from wm_jax.data.replay import ReplayStore
from wm_jax.distributed.progress import log
from wm_jax.envs.exposed_state import ExposedState
from wm_jax.envs.games import find
from wm_jax.evaluation.vae_measures import pictures
from wm_jax.render.sheets import picture_grid, reconstruction_sheet
from wm_jax.run.artifacts import Trained, load_memory, load_vae
from wm_jax.run.folder import Run
from wm_jax.run.interrupt import Stop
from wm_jax.tools.compare import vision
from wm_jax.tools.compare.contenders import Contender
from wm_jax.tools.compare.held_out import HeldOut
from wm_jax.tools.compare.pace import Pace
from wm_jax.tools.compare.prediction import of_predictions
from wm_jax.tools.compare.probing import of_state
from wm_jax.utils.arrays import evenly_spaced
from wm_jax.utils.errors import UserError
from wm_jax.utils.files import plain, read_manifest, write_manifest

TRAIN_FRAMES = 500
"""Of those that V was trained on, its error is measured on so many."""
SHEET_FRAMES = 16
PLANNED = ("steps", "save_every", "report_every")
"""Settings that follow from the budget."""
LEAST_STEPS = 20
REMEDY = "remove the file, and the same command makes it again"


@dataclass(frozen=True)
class Trial:
    """A contender with a seed.

    Attributes:
      config: the comparison's, of the game.
      base: the run whose replays all are trained on.
      folder: where the comparison keeps what it finds.
      minutes: of V's training.
      pace: how long updates take.
    """

    contender: Contender
    seed: int
    config: Config
    base: Run
    folder: Path
    minutes: float
    pace: Pace

    @property
    def name(self) -> str:
        """Of its run, and of its files."""
        return self.contender.folder(self.seed)

    @property
    def run(self) -> Run:
        """The run that its models lie in."""
        made = {"vae", "latents", "memory", "controller", "evaluation"}
        return self.base.named(self.name, makes=made)

    def figures(self) -> dict[str, Any] | None:
        """What was found, if it is there."""
        return read_manifest(self._path, REMEDY) if self._path.exists() else None

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.name}.json"

    def train_and_measure(self, held_out: HeldOut, exposed: ExposedState | None, stop: Stop) -> dict[str, Any]:
        """Train V and M, and measure them; returns the figures, also of a trial that was finished before."""
        config, run = self.planned(stop), self.run
        if (found := self.figures()) is not None:
            return found
        run.make()
        log(f"== {self.contender.name}, seed {self.seed}: {config.vae.steps:,} updates")
        stages.accept("vae", config)
        trained = stages.make("vae", config, run, stop)
        vae = load_vae(run, config)
        seen = vision.see(vae.graphdef, vae.params, held_out.frames, config.vae.steps, trained["train_frames"])
        encoded = stages.make("latents", config, run, stop)
        predicted = stages.make("memory", config, run, stop)
        stop.check()
        memory = load_memory(run, vae, find(config.game, config.env))
        drawn, prior = vision.of_samples(vae.graphdef, vae.params, held_out.frames)
        self._draw(held_out, seen, vae, prior)
        figures = {
            "contender": self.contender.name,
            "settings": self.contender.settings,
            "seed": self.seed,
            "steps": config.vae.steps,
            "updates_per_second": trained["steps_per_second"],
            "encoded_per_second": encoded.get("frames_per_second"),
            "train_error": self._train_error(vae, config.vae.steps),
            **vision.sizes(nnx.state(vae.model(), nnx.Param)),
            **vision.of_pictures(held_out, seen.decoded),
            **vision.of_latents(seen, vae.model().latent_kind, has_kl=isinstance(config.vae, BetaConfig)),
            **drawn,
            **of_state(exposed, vae),
            "test_nll": predicted["test_nll"],
            **of_predictions(held_out, vae, memory),
        }
        return self._written(figures)

    def train_controller(self, generations: int, episodes: int, stop: Stop) -> dict[str, Any]:
        """Evolve a controller for so many generations, and score it; returns all figures."""
        figures = self.figures()
        assert figures is not None, "V and M come first"
        asked = {"generations": generations, "episodes": episodes}
        if figures.get("scored") == asked:
            return figures
        config, run = self.planned(stop), self.run
        controller = config.controller.model_copy(
            update={"generations": generations, "evaluate_every": max(generations // 3, 1)}
        )
        evaluation = config.evaluate.model_copy(
            update={"episodes": episodes, "on": "official", "looked_at": 0, "video": False}
        )
        config = config.model_copy(update={"controller": controller, "evaluate": evaluation})
        log(f"== {self.contender.name}, seed {self.seed}: a controller of {generations} generations")
        stages.make("controller", config, run, stop)
        scored = stages.make("evaluation", config, run, stop)
        names = {"score": "mean", "score_low": "ci_low", "score_high": "ci_high", "random_score": "random_mean"}
        figures |= {mine: scored.get(f"official_{theirs}") for mine, theirs in names.items()}
        return self._written(figures | {"scored": asked})

    def planned(self, stop: Stop) -> Config:
        """Its settings, with as many updates as the budget has room for: measured once, and kept.

        Raises:
          UserError: they were made for another budget, or with other settings.
        """
        path = self.folder / f"{self.name}-plan.json"
        base = self.config.model_copy(update={"seed": self.config.seed + self.seed})
        config = self.contender.config(base, frames="replays")
        asked = plain({"minutes": self.minutes, "vae": config.vae.model_dump(exclude=set(PLANNED))})
        if not path.exists():
            stop.check()
            seconds = self.pace.seconds_per_update(config.vae)
            steps = max(int(60 * self.minutes / seconds), LEAST_STEPS)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_manifest(path, {"steps": steps, "seconds_per_update": seconds, **asked})
        plan = read_manifest(path, REMEDY)
        if any(plan.get(name) != value for name, value in asked.items()):
            raise UserError(
                f"{path}: {self.contender.name} was compared with --budget {plan.get('minutes'):g} before, or with "
                "other settings of --vae; give the same again, or another --run or --name"
            )
        steps = int(plan["steps"])
        saves = max(steps // 4, 1)
        return self.contender.config(base, frames="replays", steps=steps, save_every=saves, report_every=steps)

    def _written(self, figures: dict[str, Any]) -> dict[str, Any]:
        """The figures as the file has them, where those that are no number are null."""
        figures = plain(figures)
        write_manifest(self._path, figures)
        return figures

    def _train_error(self, vae: Trained, steps: int) -> float:
        """As of the held-out frames, of frames that V was trained on."""
        store = ReplayStore.open(self.base.stage("replays").path)
        frames = store.read("train", evenly_spaced(store.count("train").frames, TRAIN_FRAMES))
        decoded = vision.see(vae.graphdef, vae.params, frames, steps, 0).decoded
        return float(pictures.squared_error(frames, decoded).mean())

    def _draw(self, held_out: HeldOut, seen: vision.Seen, vae: Trained, prior: np.ndarray) -> None:
        """Pictures beside the figures: reconstructions, traversals of z, and what the prior says."""
        frames = held_out.frames
        places = evenly_spaced(len(frames), SHEET_FRAMES)
        path = self.folder / self.name
        reconstruction_sheet(frames[places], seen.decoded[places], f"{path}.png")
        rows = vision.traversals(vae.graphdef, vae.params, frames[len(frames) // 2], seen.z)
        picture_grid(rows, f"{path}-traversals.png")
        drawn = prior[: min(SHEET_FRAMES, len(prior) // 2 * 2)]
        picture_grid(drawn.reshape(2, -1, *prior.shape[1:]), f"{path}-samples.png")
