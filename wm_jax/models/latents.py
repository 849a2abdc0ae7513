"""What V makes of frames: named arrays, and the vectors that M and C see of them.

Every kind is a pytree of arrays [*lead, ...], with any axes in front, so that a store can write it and windows can be
cut out of it. An auto-encoder has one of those here, or one of its own.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key

from wm_jax.models.straight_through import straight_through

Either = Array | np.ndarray
"""On the device, or on the host."""


@runtime_checkable
class Latent(Protocol):
    """What one kind of latent offers."""

    def mode(self) -> Float[Array, "*lead Z"]:
        """The likeliest z: what there is to see, without noise."""
        ...

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """A z, drawn."""
        ...

    def target(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"] | Int32[Array, "*lead G"]:
        """What M is to predict of the z that `sample` draws with this key: z itself, or the classes it consists of."""
        ...


class LatentKind(NamedTuple):
    """What M and C must know of the latents of an auto-encoder.

    size: Z.
    classes: (G, C) where z consists of G groups, each one of C classes; None where it is numbers.
    """

    size: int
    classes: tuple[int, int] | None = None


class Gaussian(NamedTuple):
    """A diagonal Gaussian over z."""

    mean: Float[Either, "*lead Z"]
    log_var: Float[Either, "*lead Z"]

    def mode(self) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return jnp.asarray(self.mean)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`; reparameterised (Kingma & Welling 2014, 2.4)."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return jnp.asarray(self.mean) + noise * jnp.exp(self.log_var / 2)  # z = mu + sigma * epsilon, eq. 10 there

    def target(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return self.sample(key)


class Gamma(NamedTuple):
    """A Gamma distribution over each number of z, which is positive. Its shape is above 1, so its mode is above 0."""

    concentration: Float[Either, "*lead Z"]
    rate: Float[Either, "*lead Z"]

    def mode(self) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return (jnp.asarray(self.concentration) - 1) / jnp.asarray(self.rate)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`; reparameterised by the distribution function (Figurnov et al. 2018, arXiv 1805.08498)."""
        return jax.random.gamma(key, jnp.asarray(self.concentration)) / jnp.asarray(self.rate)

    def target(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return self.sample(key)


class Point(NamedTuple):
    """z itself, of an auto-encoder without noise."""

    z: Float[Either, "*lead Z"]

    def mode(self) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return jnp.asarray(self.z)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`: nothing is drawn."""
        return jnp.asarray(self.z)

    def target(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return jnp.asarray(self.z)


class Levels(NamedTuple):
    """A hierarchy of z, one Gaussian for each level, the top one first: z is the levels' numbers, one after the other.

    A level that depends on another is given that level's mean.
    """

    levels: tuple[Gaussian, ...]

    def mode(self) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return jnp.concatenate([level.mode() for level in self.levels], axis=-1)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`: of each level by itself."""
        keys = jax.random.split(key, len(self.levels))
        drawn = [level.sample(own) for level, own in zip(self.levels, keys, strict=True)]
        return jnp.concatenate(drawn, axis=-1)

    def target(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return self.sample(key)


class Codes(NamedTuple):
    """Entries of a codebook, as of a VQ-VAE (van den Oord et al. 2017): z is their vectors, one after the other."""

    indices: Int32[Either, "*lead G"]
    vectors: Float[Either, "*lead Z"]

    def mode(self) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return jnp.asarray(self.vectors)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`: nothing is drawn."""
        return jnp.asarray(self.vectors)

    def target(self, key: Key[Array, ""]) -> Int32[Array, "*lead G"]:
        """See `Latent`."""
        return jnp.asarray(self.indices)


class Classes(NamedTuple):
    """G independent groups, each a distribution over C classes: z is their one-hot vectors, one after the other.

    logits: unnormalised log probabilities.
    """

    logits: Float[Either, "*lead G C"]

    def mode(self) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return self._vector(jnp.argmax(self.logits, axis=-1))

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`; its gradient is that of the probabilities."""
        probabilities = jax.nn.softmax(self.logits, axis=-1).reshape(*self.logits.shape[:-2], -1)
        return straight_through(self._vector(self.target(key)), probabilities)

    def target(self, key: Key[Array, ""]) -> Int32[Array, "*lead G"]:
        """See `Latent`."""
        return jax.random.categorical(key, jnp.asarray(self.logits), axis=-1).astype(jnp.int32)

    def _vector(self, chosen: Array) -> Array:
        *lead, groups, classes = self.logits.shape
        return jax.nn.one_hot(chosen, classes, dtype=self.logits.dtype).reshape(*lead, groups * classes)


class Joint(NamedTuple):
    """Numbers and classes: z is both, one after the other, and M takes all of it as numbers."""

    numbers: Gaussian
    classes: Classes

    def mode(self) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return jnp.concatenate([self.numbers.mode(), self.classes.mode()], axis=-1)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        numbers_key, classes_key = jax.random.split(key)
        return jnp.concatenate([self.numbers.sample(numbers_key), self.classes.sample(classes_key)], axis=-1)

    def target(self, key: Key[Array, ""]) -> Float[Array, "*lead Z"]:
        """See `Latent`."""
        return self.sample(key)


def named(latent: Any) -> dict[str, Any]:
    """The arrays of a latent by their names, such as `mean`, or `levels.0.mean` of one that consists of others."""
    leaves = jax.tree_util.tree_flatten_with_path(latent)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def from_named(like: Any, arrays: dict[str, Any]) -> Any:
    """The latent that `named` took apart.

    Args:
      like: one of the same kind.
    """
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in named(like)])
