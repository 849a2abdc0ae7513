"""Named random streams: every stream is derived from the run's one seed and the names of what it is for.

A stream depends on nothing else, so a resumed stage draws what the uninterrupted one would have drawn.
"""

import hashlib

import numpy as np


def _words(seed: int, names: tuple[str | int, ...]) -> list[int]:
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy stream of these names, for example `generator(seed, "vae", "epoch", 3)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(_words(seed, names))))


def integer(seed: int, *names: str | int) -> int:
    """A number in [0, 2^31) of these names: the seed of a `jax.random.key` or of one episode of a game."""
    return _words(seed, names)[0] >> 1
