"""What is compared: auto-encoders by their names, each with settings of its own if they are given."""

import re
from dataclasses import dataclass
from typing import Any

from wm_jax.config.layers import shared, validate
from wm_jax.config.schema import CHOICES, Config
from wm_jax.config.text import nearest
from wm_jax.config.vaes import VARIANTS
from wm_jax.utils.errors import UsageError


@dataclass(frozen=True)
class Contender:
    """An auto-encoder with its settings.

    name: as it was asked for: `vq`, or `vanilla+encoder=grid+moving_weight=4`.
    settings: of the section `vae`, over those of the game; several numbers of one setting lie between slashes.
    """

    name: str
    settings: dict[str, Any]

    def folder(self, seed: int) -> str:
        """The name of the run that its models are made in."""
        return f"compare-{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.name)}-{seed}"

    def config(self, config: Config, **settings: Any) -> Config:
        """The settings of everything, for this auto-encoder.

        Args:
          settings: of the section `vae`, over all others.

        Raises:
          UsageError: a setting that it does not have, or a value that it does not take.
        """
        kept = shared(config.vae.model_dump(), type(config.vae), CHOICES["vae"].type_for(self.settings))
        vae = {**kept, **self.settings, **settings}
        source = ((f"--variants {self.name}", {"vae": self.settings}),)
        return validate({**config.model_dump(exclude={"vae"}), "vae": vae}, source)


def parse(words: str) -> list[Contender]:
    """The contenders of a list with commas, such as `vanilla,vq,vanilla+encoder=grid`; of `all` every one of ours.

    Raises:
      UsageError: there is no such auto-encoder, or something is given twice.
    """
    names = list(VARIANTS) if words == "all" else [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise UsageError("--variants: none is named; give all, or names with commas")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--variants {name}: it is named twice; leave one out")
    return [_contender(name) for name in names]


def _contender(name: str) -> Contender:
    variant, *pairs = name.split("+")
    if variant not in VARIANTS and ":" not in variant:
        raise UsageError(
            f"--variants {variant}: no such auto-encoder{nearest(variant, tuple(VARIANTS))}; bin/train_vae --help "
            "lists them, one of your own is MODULE:CLASS"
        )
    settings: dict[str, Any] = {"variant": variant}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--variants {name}: {pair!r} is no NAME=VALUE; write, say, vanilla+moving_weight=4")
        settings[key.strip()] = tuple(value.split("/")) if "/" in value else value.strip()
    return Contender(name, settings)
