"""The commands: what each is for, what it makes, and which settings its help shows."""

from typing import Any

from wm_jax.run.stage_graph import CHAIN

COMMANDS = {
    "import": "make recordings from elsewhere (pictures, videos, arrays) a run's replays",
    "collect": "play with an exploring policy and store the episodes",
    "train_vae": "train V, the auto-encoder, on the stored frames",
    "encode": "encode every stored frame with V",
    "train_memory": "train M, the recurrent network, on the encoded episodes",
    "train_controller": "evolve C, the controller, on the game",
    "evaluate": "score the agent over many episodes, beside the random policy",
    "dream": "film the game beside what V and M make of it, and dreams in which anything may happen",
    "pipeline": "collect to evaluate, then a report in one HTML file",
    "iterate": "let the agent play for V and M, learn on from that, and again: rounds of the whole chain",
    "export_replays": "write a run's replays as .npz files, or as a dataset of Minari",
    "compare_vaes": "train auto-encoders on the same frames for the same time, and say which one the game needs",
    "benchmark": "measure the throughput of the stages beside PyTorch's",
    "check_car_racing": "measure how near CarRacing on the device is to Gymnasium's, and its speed",
    "runs": "list the runs there are: how far each is, its size and its score",
    "doctor": "say what works on this machine, and the remedy for what does not",
}
STANDALONE = {
    "benchmark": "wm_jax.tools.benchmark.command",
    "check_car_racing": "wm_jax.tools.fidelity.command",
    "doctor": "wm_jax.tools.doctor",
    "runs": "wm_jax.tools.runs",
}
"""Commands without a game, and the modules that have a `main` of their own for them."""
TOOLS = {
    "compare_vaes": "wm_jax.tools.compare",
    "export_replays": "wm_jax.tools.export_data",
    "import": "wm_jax.tools.import_data",
    "iterate": "wm_jax.tools.iterate",
}
"""Commands with a game and options of their own that are no stage of the chain, and their rooms: `options` there has
their options, `command` their `accept` and `run`."""
PIPELINE: dict[str, dict[str, Any]] = {"evaluate": {"on": "both", "video": True}}
"""Settings of the pipeline, over those of the preset."""
ARTIFACT_OF = {command: artifact for artifact, command in CHAIN.items()}
"""What a command makes."""
MAINTENANCE = {
    "verify": "reads every stored byte and names what is damaged",
    "repair": "sets damaged shards aside, so that the next collect plays their episodes again",
}
"""What `collect` does to a store that is there."""
SECTIONS = {
    "import": ("collect",),
    "export_replays": ("env",),
    "collect": ("env", "collect"),
    "train_vae": ("env", "collect", "data", "vae", "hosts"),
    "compare_vaes": ("env", "collect", "vae", "memory", "controller"),
    "encode": ("encode", "hosts"),
    "train_memory": ("memory", "dream", "hosts"),
    "train_controller": ("env", "controller", "dream", "hosts"),
    "evaluate": ("env", "evaluate"),
    "dream": ("env", "dream", "film"),
}
"""The sections that a command's --help shows; `pipeline` shows all. Every command takes every setting."""
AGENT_COMMANDS = ("evaluate", "dream")
"""Commands that the agent that comes with the package can be used with."""
WHOLE_CHAIN = ("pipeline", "iterate")
"""Commands that make all artifacts."""
