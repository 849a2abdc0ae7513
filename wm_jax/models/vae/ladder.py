"""Ladder VAE: levels of z from the top down, each by what the frame and the level above say of it, by their precision.

Sønderby, Raiko, Maaløe, Sønderby & Winther 2016, "Ladder Variational Autoencoders" (arXiv 1602.02282). Levels count
from the bottom there, 1 to L; lists here begin at the top. Without the paper's batch normalisation.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from wm_jax.config.vaes import LadderConfig
from wm_jax.models.latents import Gaussian, Levels
from wm_jax.models.vae.contract import Batch, Update, Vae
from wm_jax.models.vae.gaussian import GaussianLayer, Scalar
from wm_jax.models.vae.layers import Dense
from wm_jax.models.vae.losses import error, kl_between, pressure, squared_error
from wm_jax.models.vae.networks import make_decoder, make_encoder
from wm_jax.utils.errors import UserError


class Ladder(Vae):
    """Z is (z_L, ..., z_1), of which z_1 alone is decoded."""

    config: LadderConfig

    def __init__(self, config: LadderConfig, rngs: nnx.Rngs):
        self.config = config
        self.sizes = sizes = level_sizes(config.latent, config.levels)
        self.encoder = make_encoder(config, rngs)
        above, hidden = sizes[:-1], config.hidden
        # From the bottom up: d_{i+1} of d_i, and what each says of its level.
        inputs = [self.encoder.features, *[hidden] * len(above)]
        self.up = nnx.List([Dense(each, hidden, rngs) for each in inputs[:-1]])
        self.mean = nnx.List([Dense(*each, rngs) for each in zip(inputs, sizes[::-1], strict=True)])
        self.log_var = nnx.List([Dense(*each, rngs) for each in zip(inputs, sizes[::-1], strict=True)])
        # From the top down: p(z_i | z_{i+1}).
        self.down = nnx.List([GaussianLayer(a, [hidden], b, rngs) for a, b in zip(above, sizes[1:], strict=True)])
        self.decoder = make_decoder(sizes[-1], config, rngs)

    def encode(self, frames: Float[Array, "B side side 3"]) -> Levels:
        """What frames in [0, 1] say about z."""
        return Levels(tuple(posterior for posterior, _, _ in self.descend(frames, None)))

    def decode(self, z: Float[Array, "B Z"]) -> Float[Array, "B side side 3"]:
        """Frames in [0, 1]."""
        return self.decoder(z[:, -self.sizes[-1] :])

    def prior(self, key: Key[Array, ""], count: int) -> Float[Array, "count Z"]:
        """Z drawn from the top down."""
        keys = jax.random.split(key, len(self.sizes))
        levels = [jax.random.normal(keys[0], (count, self.sizes[0]), jnp.float32)]
        for down, own in zip(self.down, keys[1:], strict=True):
            levels.append(down(levels[-1]).sample(own))
        return jnp.concatenate(levels, axis=1)

    def loss(self, batch: Batch, update: Update) -> tuple[Scalar, dict[str, Scalar]]:
        """Error + KL, each summed over pixels or latents and averaged over B.

        Returns:
          The loss, and the metrics loss, reconstruction (squared error, every pixel alike), kl (of all levels, in nats
          before any weight or floor) and kl_1 to kl_L, its parts.
        """
        levels = self.descend(batch.seen, update.key)
        decoded, target = self.decoder(levels[-1][2]), batch.target
        # KL(q(z_L | x) || N(0, 1)) + sum_i E KL(q(z_i | z_{i+1}, x) || p(z_i | z_{i+1}))
        parts = [kl_between(posterior, prior) for posterior, prior, _ in levels]
        kl = jnp.sum(jnp.stack(parts), axis=0)
        loss = jnp.mean(error(decoded, target, batch.weights, self.config)) + pressure(kl, self.config, update.step)
        metrics = {f"kl_{len(parts) - i}": jnp.mean(part) for i, part in enumerate(parts)}
        metrics |= {"reconstruction": jnp.mean(squared_error(decoded, target)), "kl": jnp.mean(kl)}
        return loss, {"loss": loss, **metrics}

    def descend(
        self, frames: Float[Array, "B side side 3"], key: Key[Array, ""] | None
    ) -> list[tuple[Gaussian, Gaussian, Float[Array, "B _"]]]:
        """(posterior, prior, z) of each level, the top one first.

        Args:
          key: to draw z with; None: each level's z is its mean.
        """
        top, *below = self._ascend(frames)
        keys = [None] * len(self.sizes) if key is None else list(jax.random.split(key, len(self.sizes)))
        levels = [(top, Gaussian(jnp.zeros_like(top.mean), jnp.zeros_like(top.mean)), _z(top, keys[0]))]
        for down, evidence, own in zip(self.down, below, keys[1:], strict=True):
            prior = down(levels[-1][2])
            posterior = merged(evidence, prior)
            levels.append((posterior, prior, _z(posterior, own)))
        return levels

    def _ascend(self, frames: Float[Array, "B side side 3"]) -> list[Gaussian]:
        """What d_i says of its level alone, N(mu^_i, sigma^_i ^2), the top one first."""
        features, found = self.encoder(frames), []
        for i, (mean, log_var) in enumerate(zip(self.mean, self.log_var, strict=True)):
            if i:
                features = jnp.tanh(self.up[i - 1](features))
            found.insert(0, Gaussian(mean(features), log_var(features)))
        return found


def merged(evidence: Gaussian, prior: Gaussian) -> Gaussian:
    """Their product, normalised: precisions add up, and means are weighted by them (eq. 17 to 19)."""
    narrower = jnp.asarray(prior.log_var) - evidence.log_var
    share = jax.nn.sigmoid(narrower)  # of the evidence in the sum of precisions
    mean = share * evidence.mean + (1 - share) * prior.mean
    return Gaussian(mean, -jnp.logaddexp(-jnp.asarray(evidence.log_var), -jnp.asarray(prior.log_var)))


def level_sizes(latent: int, levels: int) -> tuple[int, ...]:
    """Numbers of each level, the top one first: about half of the one below.

    Raises:
      UserError: some would have none.
    """
    shares = [int(latent * 2**i / (2**levels - 1)) for i in range(levels - 1)]
    sizes = (*shares, latent - sum(shares))
    if min(sizes) < 1:
        raise UserError(f"vae.levels {levels}: vae.latent {latent} is not enough for them; give fewer, or a larger z")
    return sizes


def _z(level: Gaussian, key: Key[Array, ""] | None) -> Float[Array, "B _"]:
    return level.mode() if key is None else level.sample(key)
