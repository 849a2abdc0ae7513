"""The dream of a run: its game as its V and M know it."""

from wm_jax.config.schema import Config
from wm_jax.data.beginnings import beginnings
from wm_jax.data.sequences import flat_latents
from wm_jax.envs.types import Game
from wm_jax.models.dream import Dream, require_heads
from wm_jax.run.artifacts import latent_like, load_memory, load_vae, open_latents, open_replays
from wm_jax.run.folder import Run


def load_dream(run: Run, config: Config, game: Game) -> Dream:
    """The dream to learn in, which begins where the run's training episodes do.

    Raises:
      UserError: V, M, or the latents are missing or don't fit together; or M lacks a head.
    """
    vae = load_vae(run, config)
    memory = load_memory(run, vae, game)
    settings = config.dream
    require_heads(memory.model().config, game, settings.ends)
    # Those that M was trained on, although there may be more by now.
    store = open_replays(run, config, begun=run.stage("memory"))
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
