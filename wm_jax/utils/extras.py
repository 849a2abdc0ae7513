"""Packages that only some games or files need, which the package's extras bring (`pip install 'wm_jax[atari]'`)."""

from importlib.util import find_spec

from wm_jax.utils.errors import UserError

MODULES = {
    "gymnasium": ("gymnasium", ("gymnasium",)),
    "atari": ("atari", ("gymnasium", "ale_py")),
    "carracing": ("carracing", ("gymnasium", "Box2D", "pygame")),
    "gymnax": ("carracing", ("gymnax",)),
    "procgen": ("procgen", ("envpool",)),
    "doom": ("doom", ("gymnasium", "vizdoom")),
    "hdf5": ("hdf5", ("h5py",)),
}
"""What may be needed: the extra that brings it, and its modules."""


def require(needed: str, what: str) -> None:
    """See that what is needed is installed.

    Args:
      needed: a key of `MODULES`.
      what: for which it is needed, in words.

    Raises:
      UserError: it is not.
    """
    extra, modules = MODULES[needed]
    lacking = [module for module in modules if find_spec(module) is None]
    if lacking:
        raise UserError(
            f"{what} needs {', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not installed here: "
            f"python -m pip install 'wm_jax[{extra}]'"
        )
