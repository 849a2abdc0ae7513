"""The commands: what each is for, what it makes, what it needs first, and which settings its help shows."""

import argparse
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from wm_jax.config.schema import Config, ControllerConfig
from wm_jax.run.stage_graph import upstream, whole_chain

Done = Callable[[str], bool]
"""Whether an artifact of the run is finished."""


@dataclass(frozen=True)
class Command:
    """A command.

    about: what it is for, as --help says it.
    sections: the sections of settings that its --help shows (None: all). Every command takes every setting.
    artifact: the one that it makes, of a command that is a stage of the chain.
    makes: all artifacts that are the run's own by it, and that --fresh makes anew.
    before: the artifacts that have to be made first.
    tool: of a command that is no stage, the module that has its `run`; its `accept`, where there is something to refuse
      before anything is made; and its `start_anew`, where --fresh is its own business.
    options: the module whose `add` adds options that are no settings.
    instead: of a stage, the module (see `tool`) of what is done in its place where those options ask for it (`asked`).
    forced: settings above those of the preset.
    refuses: options that it can't have, and why.
    standalone: the module with the `main` of a command without a game.
    pretrained: whether it can be used with the agent that comes with the package.
    computes: whether it needs JAX.
    """

    about: str
    sections: tuple[str, ...] | None = None
    artifact: str | None = None
    makes: Callable[[ControllerConfig], list[str]] = lambda _: []
    before: Callable[[ControllerConfig, Done], list[str]] = lambda _, __: []
    tool: str | None = None
    options: str | None = None
    instead: str | None = None
    forced: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    standalone: str | None = None
    pretrained: bool = False
    computes: Callable[[Config], bool] = lambda _: True

    def is_replaced(self, options: argparse.Namespace) -> bool:
        """Is something else done in its place?"""
        if self.instead is None:
            return False
        assert self.options is not None, "somebody has to ask for it"
        return importlib.import_module(self.options).asked(options)

    def does(self, options: argparse.Namespace) -> ModuleType | None:
        """The module that does it; None: that of its stage."""
        name = self.instead if self.is_replaced(options) else self.tool
        return None if name is None else importlib.import_module(name)


def _stage(about: str, artifact: str, *sections: str, **more: Any) -> Command:
    """A command that makes one artifact of the chain."""
    return Command(
        about,
        sections,
        artifact,
        makes=lambda _: [artifact],
        before=lambda controller, done: upstream(artifact, controller, done),
        **more,
    )


def _plays_on_device(config: Config) -> bool:
    """Playing at random outside of JAX needs none."""
    return config.env.backend == "device" or config.collect.policy == "agent"


COMMANDS = {
    "import": Command(
        "make recordings from elsewhere (pictures, videos, arrays) a run's replays",
        ("collect",),
        makes=lambda _: ["replays"],
        tool="wm_jax.tools.import_data.command",
        options="wm_jax.tools.import_data.options",
    ),
    "collect": _stage(
        "play with an exploring policy and store the episodes", "replays", "env", "collect", computes=_plays_on_device
    ),
    "train_vae": _stage(
        "train V, the auto-encoder, on the stored frames", "vae", "env", "collect", "data", "vae", "hosts"
    ),
    "encode": _stage("encode every stored frame with V", "latents", "encode", "hosts"),
    "train_memory": _stage(
        "train M, the recurrent network, on the encoded episodes", "memory", "memory", "dream", "hosts"
    ),
    "train_controller": _stage(
        "evolve C, the controller, on the game",
        "controller",
        "env",
        "controller",
        "dream",
        "hosts",
        options="wm_jax.tools.temperatures.options",
        instead="wm_jax.tools.temperatures.command",
    ),
    "evaluate": _stage(
        "score the agent over many episodes, beside the random policy",
        "evaluation",
        "env",
        "evaluate",
        pretrained=True,
    ),
    "dream": _stage(
        "film the game beside what V and M make of it, and dreams in which anything may happen",
        "dream",
        "env",
        "dream",
        "film",
        pretrained=True,
    ),
    "pipeline": Command(
        "collect to evaluate, then a report in one HTML file",
        makes=whole_chain,
        before=lambda controller, _: whole_chain(controller),  # what is finished says so
        tool="wm_jax.tools.pipeline.command",
        forced={"evaluate": {"on": "both", "video": True}},
    ),
    "iterate": Command(
        "let the agent play for V and M, learn on from that, and again: rounds of the whole chain",
        makes=whole_chain,
        tool="wm_jax.tools.iterate.command",
        options="wm_jax.tools.iterate.options",
        refuses=dict.fromkeys(("name", "base"), "the agents play into the run's own replays"),
    ),
    "export_replays": Command(
        "write a run's replays as .npz files, or as a dataset of Minari",
        ("env",),
        tool="wm_jax.tools.export_data.command",
        options="wm_jax.tools.export_data.options",
    ),
    "compare_vaes": Command(
        "train auto-encoders on the same frames for the same time, and say which one the game needs",
        ("env", "collect", "vae", "memory", "controller"),
        before=lambda _, done: [] if done("replays") else ["replays"],
        tool="wm_jax.tools.compare.command",
        options="wm_jax.tools.compare.options",
    ),
    "benchmark": Command(
        "measure the throughput of the stages beside PyTorch's", standalone="wm_jax.tools.benchmark.command"
    ),
    "check_car_racing": Command(
        "measure how near CarRacing on the device is to Gymnasium's, and its speed",
        standalone="wm_jax.tools.fidelity.command",
    ),
    "runs": Command("list the runs there are: how far each is, its size and its score", standalone="wm_jax.tools.runs"),
    "doctor": Command(
        "say what works on this machine, and the remedy for what does not", standalone="wm_jax.tools.doctor"
    ),
}
MAINTENANCE = {
    "verify": Command(
        "reads every stored byte and names what is damaged",
        tool="wm_jax.tools.upkeep.verify",
        computes=lambda _: False,
    ),
    "repair": Command(
        "sets damaged shards aside, so that the next collect plays their episodes again",
        tool="wm_jax.tools.upkeep.repair",
        computes=lambda _: False,
    ),
}
"""What `collect` does to a store that is there: bin/collect verify."""


def described(command: str) -> Command:
    """A command, or an action of `collect`."""
    return MAINTENANCE[command] if command in MAINTENANCE else COMMANDS[command]
