"""The dream of a run: its game as its V and M know it."""

from wm_jax.config.schema import Config
from wm_jax.data.beginnings import beginnings
from wm_jax.data.sequences import flat_latents
from wm_jax.envs.types import Game
from wm_jax.models.dream import Dream
from wm_jax.run.artifacts import Trained, latent_like, load_memory, load_vae, open_latents, open_replays
from wm_jax.run.folder import Run


def load_dream(run: Run, config: Config, game: Game) -> Dream:
    """The dream that begins where the run's training episodes do.

    Raises:
      UserError: V, M, or the latents are missing or don't fit together; or M lacks a head.
    """
    vae = load_vae(run, config)
    return make_dream(run, config, game, vae, load_memory(run, vae, game))


def make_dream(run: Run, config: Config, game: Game, vae: Trained, memory: Trained) -> Dream:
    """The dream of these V and M; see `load_dream`."""
    settings, store = config.dream, open_replays(run, config)
    latents = open_latents(run, store, vae.digest)
    flat = flat_latents(latents, latent_like(vae), store, game.actions, "train")
    begins = [record.begin for record in store.records if record.split == "train"]
    return Dream(
        game,
        vae.model(),
        memory.model(),
        beginnings(flat, begins, settings.warm_up, anywhere=settings.random_start),
        temperature=settings.temperature,
        ends=settings.ends,
        episode_steps=settings.episode_steps,
    )
