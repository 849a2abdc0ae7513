"""Opening the environments of a game: the one place that knows who plays what."""

from wm_jax.envs.games import announce
from wm_jax.envs.host.pool import EpisodePool
from wm_jax.envs.load import load_device_game
from wm_jax.envs.types import DeviceGame, Game, Pool
from wm_jax.utils.errors import UserError
from wm_jax.utils.extras import require


def open_pool(game: Game, slots: int, *, official: bool = False, workers: int = 0, random_start: bool = False) -> Pool:
    """Open `slots` environments of a game.

    Args:
      game: from `games.find`.
      slots: most episodes side by side.
      official: the game that scores are published for, instead of the training one: Gymnasium's CarRacing-v3;
        ALE/X-v5 (frame skip 4, sticky actions 0.25, full-screen RGB); Procgen on its unseen test levels.
      random_start: begin episodes anywhere, where the game can (`Game.random_starts`): on the track of CarRacing, at
        any time of a game of Atari in which nobody acts; elsewhere, and in the official game, ignored.
      workers: threads (EnvPool) or processes (Gymnasium) (0: `env.threads`, and one per core if that is 0 too).

    Raises:
      UserError: it consists of recordings, or can't be opened here.
    """
    require_playable(game, official=official)
    announce(game)
    # All are imported late: JAX may be of no use here, EnvPool takes a second and isn't needed for Gymnasium's games.
    if _on_device(game, official):
        from wm_jax.envs.device import DeviceEngine

        played = device_game(game)
        return EpisodePool(
            game, slots, DeviceEngine(played.for_training(random_start=True) if random_start else played)
        )
    if _by_gymnasium(game, official):
        from wm_jax.envs.host.gymnasium import open_engine

        return EpisodePool(
            game, slots, open_engine(game, slots, official=official, workers=workers, random_start=random_start)
        )
    from wm_jax.envs.host.envpool import EnvPoolEngine

    return EpisodePool(game, slots, EnvPoolEngine(game, test_levels=official, workers=workers))


def require_playable(game: Game, *, official: bool = False) -> None:
    """See that something plays a game, and that it is installed.

    Args:
      official: see `open_pool`.

    Raises:
      UserError: it is not; or the game consists of recordings.
    """
    if game.recorded:
        raise UserError(
            f"{game.name} consists of recordings and can't be played: V and M learn from them, no C does; to play, "
            "import them as a game of the catalogue, or write one (docs/architecture.md)"
        )
    if _by_gymnasium(game, official):
        require(game.family, f"{'the official ' if official else ''}{game.title}")
    elif not _on_device(game, official):
        require("procgen", f"{game.title} by EnvPool")


def _on_device(game: Game, official: bool) -> bool:
    return game.env.backend == "device" and not (official and game.gymnasium_id is not None)


def _by_gymnasium(game: Game, official: bool) -> bool:
    if _on_device(game, official):
        return False
    return game.envpool_id is None or game.env.backend == "gymnasium" or (official and game.gymnasium_id is not None)


def device_game(game: Game) -> DeviceGame:
    """The game as functions of JAX; only where its backend is the device."""
    assert game.device_entry is not None
    return load_device_game(game.device_entry, game.env.kwargs, f"game {game.name}")
