"""Command lines whose errors are one sentence."""

import argparse
from typing import NoReturn

from wm_jax.utils.errors import UsageError


class Parser(argparse.ArgumentParser):
    """argparse with errors of one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UsageError(f"{message} (see --help)")
