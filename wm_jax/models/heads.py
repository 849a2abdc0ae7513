"""What M says about the next latent, in log space throughout: a mixture density of numbers, or odds of classes.

Bishop 1994, "Mixture Density Networks"; Graves 2013 (arXiv 1308.0850) for the recurrent form; Ha & Schmidhuber 2018,
appendix A.2: one mixture of K Gaussians *per latent dimension*, so that dimensions are independent given the state.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Key

from wm_jax.kernels import native
from wm_jax.kernels.mixture import mixture_nll

LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
MIN_LOG_STD = -7.0
"""Floor of log_std (a standard deviation of 0.0009). Without it the density of a latent that never changes, as of an
auto-encoder without noise, grows without bound and training ends in NaN. A component that has come to lie below can
still widen (see `log_density`)."""


@runtime_checkable
class Distribution(Protocol):
    """What M expects of the next latent."""

    def log_prob(self, target: Array) -> Float[Array, "*lead"]:
        """Log density, or probability, of `Latent.target` in nats."""
        ...

    def sample(self, key: Key[Array, ""], temperature: float | Float[Array, ""] = 1.0) -> Array:
        """One such target, drawn. Temperature tau > 0 is the paper's knob for how uncertain the dream is."""
        ...

    def best_guess(self) -> Array:
        """One such target without noise: the mean of numbers, the likeliest of classes."""
        ...


@runtime_checkable
class Head(Protocol):
    """The last layer's outputs, read as a distribution."""

    @property
    def outputs(self) -> int:
        """How many it takes."""
        ...

    @property
    def predicted(self) -> int:
        """Over how many numbers, or classes, the paper's code averages the negative log likelihood."""
        ...

    def read(self, raw: Float[Array, "*lead outputs"]) -> Distribution:
        """What they say."""
        ...

    def nll(
        self, h: Float[Array, "N H"], kernel: Float[Array, "H outputs"], bias: Float[Array, "outputs"], target: Array
    ) -> Float[Array, "N"]:
        """Negative log probability of targets [N, ...] by what the last layer makes of h, in nats."""
        ...


class Mixture(NamedTuple):
    """One mixture of K Gaussians for each of Z latent dimensions, which lie last: loops over them fill whole vectors.

    log_weights: normalised: their exponentials sum to 1 over K.
    mean: of each Gaussian.
    log_std: natural logarithm of the standard deviation, at least `MIN_LOG_STD`.
    """

    log_weights: Float[Array, "*lead K Z"]
    mean: Float[Array, "*lead K Z"]
    log_std: Float[Array, "*lead K Z"]

    def log_prob(self, target: Float[Array, "*lead Z"]) -> Float[Array, "*lead"]:
        """See `log_density`."""
        return log_density(self, target)

    def best_guess(self) -> Float[Array, "*lead Z"]:
        """The mean of the mixture: of all guesses that with the smallest expected squared error."""
        return jnp.sum(jnp.exp(self.log_weights) * self.mean, axis=-2)

    def sample(self, key: Key[Array, ""], temperature: float | Float[Array, ""] = 1.0) -> Float[Array, "*lead Z"]:
        """Draw z.

        Args:
          temperature: divides the log weights and multiplies the standard deviations by sqrt(tau). Towards 0 the draw
            becomes the mean of the likeliest component; large values make the components equally likely and wide.
        """
        # Ha & Eck 2017 (arXiv 1704.03477), eq. 8: logits / tau, variances * tau.
        log_weights, mean, log_std = self
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, log_weights / temperature, axis=-2)[..., None, :]
        chosen_mean, chosen_log_std = (
            jnp.take_along_axis(values, component, axis=-2).squeeze(-2) for values in (mean, log_std)
        )
        noise = jax.random.normal(noise_key, chosen_mean.shape, chosen_mean.dtype)
        return chosen_mean + jnp.exp(chosen_log_std) * jnp.sqrt(temperature) * noise


def log_density(mixture: Mixture, target: Float[Array, "*lead Z"]) -> Float[Array, "*lead"]:
    """Log density of target in nats, summed over the Z dimensions.

    A deviation at its floor has a gradient where a wider one would be likelier, and none where a narrower one
    would: cut off altogether, the component could never widen by itself; let through altogether, what lies behind
    the floor would sink without bound.
    """
    log_weights, mean, log_std = mixture
    distance = target[..., None, :] - mean
    held = (log_std <= MIN_LOG_STD) & (jnp.abs(distance) <= math.exp(MIN_LOG_STD))
    log_std = jnp.where(held, jax.lax.stop_gradient(log_std), log_std)
    score = distance * jnp.exp(-log_std)
    # log(alpha_k phi_k): Bishop 1994, eq. 23, in one dimension
    components = log_weights - 0.5 * jnp.square(score) - log_std - LOG_SQRT_TWO_PI
    return jax.nn.logsumexp(components, axis=-2).sum(axis=-1)  # log p: eq. 22; its negative is the error of eq. 29


def dense(h: Float[Array, "*lead H"], kernel: Float[Array, "H O"], bias: Float[Array, "O"]) -> Float[Array, "*lead O"]:
    """The last layer's outputs, or some of them."""
    return h @ kernel + bias.reshape((1,) * (h.ndim - 1) + (-1,))


@dataclass(frozen=True)
class MixtureHead:
    """For latents that are numbers.

    latent: Z.
    mixtures: K.
    fast: compute `nll` by our kernel in C where there is one.
    """

    latent: int
    mixtures: int
    fast: bool = False

    @property
    def outputs(self) -> int:
        """See `Head`."""
        return 3 * self.mixtures * self.latent

    @property
    def predicted(self) -> int:
        """See `Head`."""
        return self.latent

    def read(self, raw: Float[Array, "*lead outputs"]) -> Mixture:
        """See `Head`: logits, means, log deviations, in this order."""
        parts = raw.reshape(*raw.shape[:-1], 3, self.mixtures, self.latent)
        logits, mean, log_std = (parts[..., i, :, :] for i in range(3))
        # Bishop 1994: weights by eq. 25, deviations exp(log_std) by eq. 26, means by eq. 27.
        return Mixture(jax.nn.log_softmax(logits, axis=-2), mean, _floored(log_std))

    def nll(
        self, h: Float[Array, "N H"], kernel: Float[Array, "H outputs"], bias: Float[Array, "outputs"], target: Array
    ) -> Float[Array, "N"]:
        """See `Head`; the target has no gradient."""
        if self.fast and native.available() and h.dtype == target.dtype == jnp.float32:
            return mixture_nll(h, kernel, bias, target, MIN_LOG_STD)
        return -self.read(dense(h, kernel, bias)).log_prob(jax.lax.stop_gradient(target))


class Categorical(NamedTuple):
    """G independent groups, each a distribution over C classes.

    log_probs: normalised: their exponentials sum to 1 over C.
    """

    log_probs: Float[Array, "*lead G C"]

    def log_prob(self, target: Int32[Array, "*lead G"]) -> Float[Array, "*lead"]:
        """Log probability of the classes in nats, summed over the G groups."""
        return jnp.take_along_axis(self.log_probs, target[..., None], axis=-1).squeeze(-1).sum(axis=-1)

    def best_guess(self) -> Int32[Array, "*lead G"]:
        """The likeliest classes."""
        return jnp.argmax(self.log_probs, axis=-1).astype(jnp.int32)

    def sample(self, key: Key[Array, ""], temperature: float | Float[Array, ""] = 1.0) -> Int32[Array, "*lead G"]:
        """Draw classes; the temperature divides the log probabilities."""
        return jax.random.categorical(key, self.log_probs / temperature, axis=-1).astype(jnp.int32)


@dataclass(frozen=True)
class CategoricalHead:
    """For latents that consist of classes.

    groups: G.
    classes: C.
    """

    groups: int
    classes: int

    @property
    def outputs(self) -> int:
        """See `Head`."""
        return self.groups * self.classes

    @property
    def predicted(self) -> int:
        """See `Head`."""
        return self.groups

    def read(self, raw: Float[Array, "*lead outputs"]) -> Categorical:
        """See `Head`."""
        return Categorical(jax.nn.log_softmax(raw.reshape(*raw.shape[:-1], self.groups, self.classes), axis=-1))

    def nll(
        self, h: Float[Array, "N H"], kernel: Float[Array, "H outputs"], bias: Float[Array, "outputs"], target: Array
    ) -> Float[Array, "N"]:
        """See `Head`."""
        return -self.read(dense(h, kernel, bias)).log_prob(target)


@jax.custom_jvp
def _floored(log_std: Array) -> Array:
    """At least `MIN_LOG_STD`; derivatives pass as if there were no floor."""
    return jnp.maximum(log_std, MIN_LOG_STD)


@_floored.defjvp
def _floored_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _floored(*primals), tangents[0]
