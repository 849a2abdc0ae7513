"""The chain of artefacts, in the order of the data, each with the command that makes it."""

CHAIN = {
    "replays": "collect",
    "vae": "train_vae",
    "latents": "encode",
    "memory": "train_memory",
    "controller": "train_controller",
    "evaluation": "evaluate",
}
