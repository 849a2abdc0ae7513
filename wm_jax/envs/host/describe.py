"""What the catalogue needs to know about a Gymnasium environment, from the environment itself."""

import contextlib
import difflib
import traceback
import warnings
from typing import Any, Literal, NamedTuple

from wm_jax.config.text import shown
from wm_jax.envs.host.adapt import Environment, open_environment
from wm_jax.envs.host.conversions import Unplayable
from wm_jax.envs.spaces import ActionSpace
from wm_jax.utils.errors import UsageError
from wm_jax.utils.user_classes import blamed_on

_DEFAULT_FPS = 30.0
_NEAR = 0.7
"""How alike a name must be to be offered: there are hundreds, which share their endings."""


class Facts(NamedTuple):
    """What is known of an environment once it was open.

    limit: steps of its longest episode (None: it has no limit).
    conversions: what is done to its observations and actions, in words.
    """

    actions: ActionSpace
    screen: tuple[int, int]
    limit: int | None
    fps: float
    conversions: tuple[str, ...]


_known: dict[str, Facts] = {}
"""What was found, by what was asked: opening an environment may take long."""


def describe(
    identifier: str, kwargs: dict[str, Any], observation: str | None, pixels: Literal["observation", "render"]
) -> Facts:
    """The facts of an environment by its id (`ID` or `module:ID`); it is opened once in a process.

    Args:
      kwargs, observation, pixels: see `open_environment`.

    Raises:
      UsageError: there is none of that name, or its observations or actions are of a kind that we don't play.
      UserError: its module, its constructor or its drawing raised something.
    """
    asked = repr((identifier, kwargs, observation, pixels))
    if asked not in _known:
        _known[asked] = _look_at(identifier, kwargs, observation, pixels)
    return _known[asked]


def _look_at(
    identifier: str, kwargs: dict[str, Any], observation: str | None, pixels: Literal["observation", "render"]
) -> Facts:
    """Open it and look at its spaces."""
    import gymnasium

    name = f"game gymnasium:{identifier}"
    settings = {"kwargs": kwargs, "observation": observation, "pixels": pixels}
    given = f", or env.kwargs {shown(kwargs)}" if kwargs else ""
    with blamed_on(f"{name}: it can't be opened", f"mend it{given}"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.closing(open_environment(identifier, **settings)) as env:
                    if pixels == "render":
                        env.reset(seed=0)  # its first picture says how large they are
                    fps = float(env.env.metadata.get("render_fps") or _DEFAULT_FPS)
                    return Facts(env.actions, env.screen, _limit(env), fps, env.conversions)
        except Unplayable as error:
            raise UsageError(f"{name}: {' '.join(str(error).split())}") from error  # NumPy breaks lines
        except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound) as error:
            raise UsageError(f"{name}: Gymnasium knows no such id{_near(identifier, settings)}") from error
        except gymnasium.error.Error as error:
            failure = UsageError(f"{name}: Gymnasium can't open it ({' '.join(str(error).split())})")
            failure.details = "".join(traceback.format_exception(error))
            raise failure from error


def _limit(env: Environment) -> int | None:
    """Steps of the longest episode. ALE counts emulator frames, and has no limit on steps."""
    spec = env.env.spec
    if spec.max_episode_steps is not None:
        return spec.max_episode_steps
    frames, skip = spec.kwargs.get("max_num_frames_per_episode"), spec.kwargs.get("frameskip", 4)
    return frames // (skip if isinstance(skip, int) else min(skip)) if frames else None


def _near(identifier: str, settings: dict[str, Any]) -> str:
    """`; did you mean gymnasium:X?`, for names near this one that can be played as they stand there."""
    import gymnasium

    module, colon, word = identifier.rpartition(":")
    # A module brings names of its own; these need none.
    free = ("gymnasium.", "ale_py.") if module else ()
    known = [name for name, spec in gymnasium.registry.items() if not str(spec.entry_point).startswith(free)]
    near = difflib.get_close_matches(word, known, n=10, cutoff=_NEAR)
    candidates = [f"{module}{colon}{each}" for each in near]
    playable = [f"gymnasium:{each}" for each in candidates if _can_be_played(each, settings)]
    return f"; did you mean {' or '.join(playable[:3])}?" if playable else ""


def _can_be_played(identifier: str, settings: dict[str, Any]) -> bool:
    """Can this environment be opened here, and do we play it?"""
    try:
        open_environment(identifier, **settings).close()
    except (Exception, SystemExit):  # whatever it lacks, it is no help to the user
        return False
    return True
