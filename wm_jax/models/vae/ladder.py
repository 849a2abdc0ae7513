"""Ladder VAE: several levels of z; each level's posterior combines what the frame and the level above say about it.

Sønderby, Raiko, Maaløe, Sønderby & Winther 2016, "Ladder Variational Autoencoders" (arXiv 1602.02282), without its
batch normalisation; layers between levels are tanh, and variances exponentials. The paper counts levels from the
bottom, 1 to L; lists of levels here start at the top, those of the layers `up`, `mean` and `log_var` at the bottom.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import LadderConfig
from wm_jax.models.latents import Gaussian, Levels
from wm_jax.models.vae.contract import Batch, Metrics, Scalar, Update, Vae
from wm_jax.models.vae.gaussian import GaussianLayer
from wm_jax.models.vae.layers import Dense
from wm_jax.models.vae.losses import kl_between, kl_term, reconstruction_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.models.vae.places import shares_near, too_small


class Level(NamedTuple):
    """One level of z, given the level above.

    posterior, prior: q(z_i | z_{i+1}, x) and p(z_i | z_{i+1}).
    z: the sample of the posterior that the level below is given, or its mean.
    """

    posterior: Gaussian
    prior: Gaussian
    z: Float[Array, "B _"]


class Ladder(Vae):
    """z is (z_L, ..., z_1), of which only z_1 is decoded."""

    config: LadderConfig

    def __init__(self, config: LadderConfig, rngs: nnx.Rngs):
        """The networks.

        Raises:
          UserError: `latent` is too small for so many levels.
        """
        self.config = config
        self.sizes = sizes = level_sizes(config)
        self.encoder = make_encoder(config, rngs)
        above, bottom, hidden = sizes[:-1], sizes[-1], config.hidden
        # From the bottom up: d_{i+1} of d_i, and the Gaussian that each d_i gives for its level.
        inputs = [self.encoder.features, *[hidden] * len(above)]
        self.up = nnx.List([Dense(each, hidden, rngs) for each in inputs[:-1]])
        self.mean, self.log_var = (
            nnx.List([self.encoder.head(bottom, rngs), *[Dense(hidden, size, rngs) for size in reversed(above)]])
            for _ in range(2)
        )
        # From the top down: p(z_i | z_{i+1}).
        self.down = nnx.List([GaussianLayer(a, [hidden], b, rngs) for a, b in zip(above, sizes[1:], strict=True)])
        self.decoder = make_decoder(sizes[-1], config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Levels:
        """The posterior of each level for frames in [0, 1], with the levels above at their means."""
        return Levels(tuple(level.posterior for level in self.descend(frames, None)))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z[:, -self.sizes[-1] :])

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Samples drawn from the top down."""
        keys = jax.random.split(key, len(self.sizes))
        levels = [jax.random.normal(keys[0], (count, self.sizes[0]), jnp.float32)]
        for down, own in zip(self.down, keys[1:], strict=True):
            levels.append(down(levels[-1]).sample(own))
        return jnp.concatenate(levels, axis=1)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, Metrics]:
        """Error + the KL's term (`losses.kl_term`), each summed over pixels or latents and averaged over the batch.

        Returns:
          The loss, and the metrics loss, reconstruction (see `losses.reconstruction_error`), kl (of all levels, in nats
          before any weight or floor) and kl_1 to kl_L, its parts.
        """
        levels = self.descend(batch.encoder_input, update.key)
        error, metrics = reconstruction_error(self.decoder(levels[-1].z), batch, self.config)
        # KL(q(z_L | x) || N(0, 1)) + sum_i E KL(q(z_i | z_{i+1}, x) || p(z_i | z_{i+1}))
        parts = [kl_between(level.posterior, level.prior) for level in levels]
        kl = jnp.sum(jnp.stack(parts), axis=0)
        loss = error + kl_term(kl, self.config, update.step)
        metrics |= {f"kl_{len(parts) - i}": jnp.mean(part) for i, part in enumerate(parts)}
        return loss, {"loss": loss, **metrics, "kl": jnp.mean(kl)}

    def descend(self, frames: Float[Array, "B side side 3"], key: Key[Array, ""] | None) -> list[Level]:
        """The levels, the top one first.

        Args:
          frames: in [0, 1].
          key: to sample z; None: each level's z is its mean.
        """
        top, *below = self._ascend(frames)
        keys = [None] * len(self.sizes) if key is None else list(jax.random.split(key, len(self.sizes)))
        standard = Gaussian(jnp.zeros_like(top.mean), jnp.zeros_like(top.mean))
        levels = [Level(top, standard, _z(top, keys[0]))]
        for down, evidence, own in zip(self.down, below, keys[1:], strict=True):
            prior = down(levels[-1].z)
            posterior = merged(evidence, prior)
            levels.append(Level(posterior, prior, _z(posterior, own)))
        return levels

    def _ascend(self, frames: Float[Array, "B side side 3"]) -> list[Gaussian]:
        """What the frame alone says about each level, N(mu^_i, sigma^_i ^2) of d_i, the top one first."""
        features, found = self.encoder(frames), []
        for i, (mean, log_var) in enumerate(zip(self.mean, self.log_var, strict=True)):
            if i:
                features = jnp.tanh(self.up[i - 1](features))
            found.insert(0, Gaussian(mean(features), log_var(features)))
        return found


def merged(evidence: Gaussian, prior: Gaussian) -> Gaussian:
    """The normalised product of both: precisions add up, and means are weighted by them (eq. 17 to 19).

    The paper writes sigma in eq. 17 but means its square, whose log is returned here.
    """
    log_ratio = jnp.asarray(prior.log_var) - evidence.log_var
    share = jax.nn.sigmoid(log_ratio)  # of the evidence in the sum of precisions
    mean = share * evidence.mean + (1 - share) * prior.mean
    return Gaussian(mean, -jnp.logaddexp(-jnp.asarray(evidence.log_var), -jnp.asarray(prior.log_var)))


def level_sizes(config: LadderConfig) -> tuple[int, ...]:
    """How many numbers each level has, the top one first: about half as many as the one below.

    The bottom level, which is decoded, has as many as the networks can share out among their places.

    Raises:
      UserError: a level would have none.
    """
    depth = config.depth
    sizes, left = [], config.latent
    for levels in range(depth, 1, -1):
        above = left * (2 ** (levels - 1) - 1) // (2**levels - 1)
        wanted, at_most = left - above, left - (levels - 1)
        sizes.insert(0, min(wanted, at_most) if sizes else shares_near(wanted, at_most, config))
        left -= sizes[0]
        if sizes[0] < 1:
            raise too_small(config, depth)
    return (left, *sizes)


def _z(level: Gaussian, key: Key[Array, ""] | None) -> Float[Array, "B _"]:
    return level.mode() if key is None else level.sample(key)
