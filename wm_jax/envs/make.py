"""Opening the environments of a game: the one place that knows who plays what."""

from wm_jax.envs.games import Game, announce
from wm_jax.envs.host.pool import EpisodePool
from wm_jax.envs.types import Pool


def open_pool(game: Game, slots: int, *, official: bool = False, workers: int = 0, anywhere: bool = False) -> Pool:
    """Open `slots` environments of a game.

    Args:
      game: from `games.find`.
      slots: most episodes side by side.
      official: the game that scores are published for, instead of the training one: Gymnasium's CarRacing-v3;
        ALE/X-v5 (frame skip 4, sticky actions 0.25, full-screen RGB); Procgen on its unseen test levels.
      anywhere: begin episodes somewhere on the track, where the game runs on the device, and of Atari by Gymnasium at
        any time of a game in which nobody acts; elsewhere, and in the official game, ignored.
      workers: threads (EnvPool) or processes (Gymnasium) (0: `env.threads`, and one per core if that is 0 too).
    """
    announce(game)
    if game.env.backend == "device" and not official:
        from wm_jax.envs.car_racing import CarRacing
        from wm_jax.envs.device import DeviceEngine
        from wm_jax.envs.device_game import DeviceGame

        return EpisodePool(game, slots, DeviceEngine(DeviceGame(CarRacing(), anywhere)))
    # Imported late: EnvPool takes a second to import and isn't needed for Gymnasium games, nor the other way round.
    if game.envpool_id is None or game.env.backend == "gymnasium" or (official and game.gymnasium_id is not None):
        from wm_jax.envs.host.gymnasium import open_engine

        return EpisodePool(game, slots, open_engine(game, slots, official=official, workers=workers, anywhere=anywhere))
    from wm_jax.envs.host.envpool import EnvPoolEngine

    return EpisodePool(game, slots, EnvPoolEngine(game, test_levels=official, workers=workers))
